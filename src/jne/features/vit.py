"""What all vision transformers share: features of every layer, extracted once and kept on disk.

n images, L layers, D features per layer. Layer 0 is what enters the first block (the embedding),
layer k what leaves block k.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from jne.errors import InputError
from jne.features.base import Features
from jne.features.images import Images
from jne.utils.files import make_folder, write_json
from jne.utils.paths import UserPath
from jne.utils.progress import stage_progress
from jne.utils.reading import reading


@dataclass(frozen=True)
class LoadedTransformer:
    """A vision transformer with its weights, and how images enter it."""

    model: nn.Module
    blocks: nn.ModuleList | nn.Sequential
    """The model's blocks, in order."""
    n_prefix: int
    """How many tokens, such as the class token, come before the patches."""
    transform: Callable[[Image.Image], Tensor]
    """From an image to what the model takes."""
    preprocessing: dict[str, Any]
    """What `transform` does, as JSON values."""
    batch_first: bool = True
    """Whether tokens are (n, n_tokens, D) inside the model, rather than (n_tokens, n, D)."""

    @property
    def n_features(self) -> int:
        """D, the width of the tokens."""
        first_vector = next(p for p in self.blocks[0].parameters() if p.ndim == 1)
        return first_vector.shape[0]

    def weights_sha256(self) -> str:
        """A digest of all weights and buffers."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def pooled(self, pixels: Tensor, pooling: str) -> Tensor:
        """Features (n, L, D) of transformed images: their class token, or their mean patch."""
        layers: list[Tensor] = []

        def keep(tokens: Tensor) -> None:
            tokens = tokens if self.batch_first else tokens.transpose(0, 1)  # (n, n_tokens, D)
            if pooling == "class":
                layers.append(tokens[:, 0])
            else:
                layers.append(tokens[:, self.n_prefix :].mean(dim=1))

        hooks = [self.blocks[0].register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))]
        hooks += [
            block.register_forward_hook(lambda _, inputs, output: keep(output))
            for block in self.blocks
        ]
        try:
            self.model(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(layers, dim=1)


class VisionTransformer(Features):
    """A vision transformer. All layers of an image are kept once one of them has been asked for."""

    model: str
    checkpoint: UserPath | None
    """Local weights, in place of a download."""
    pooling: Literal["class", "mean"]
    """The class token, or the mean of the patches."""
    dtype: Literal["float16", "float32"]
    """Of the features on disk."""
    # These say how features are computed, not what they are: they are excluded from the settings
    # that tell one prepared folder from another.
    batch_size: int = Field(ge=1, exclude=True)
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", exclude=True)]
    cache: UserPath = Field(exclude=True)

    def input_files(self) -> list[Path]:
        return [self.checkpoint] if self.checkpoint is not None else []

    @abstractmethod
    def load(self) -> LoadedTransformer:
        """The model with its weights. Raises InputError where it cannot be had."""

    def of(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray[np.float32]:
        if images is None:
            raise InputError(f"features={self.name} needs images, and these data have none")
        if len(images) < n:
            raise InputError(
                f"images: {images.path} holds {len(images)} images, but at least {n} are needed"
            )
        loaded = self.load()
        n_blocks = len(loaded.blocks)
        layer = n_blocks if self.layer is None else self.layer
        if not 0 <= layer <= n_blocks:
            raise InputError(
                f"features.layer={layer} is out of range: {self.model} has layers 0 (the "
                f"embedding) to {n_blocks}"
            )
        array = self._extracted(loaded, images, rows)
        return np.asarray(array[rows, layer], dtype=np.float32)

    def _extracted(
        self, loaded: LoadedTransformer, images: Images, rows: NDArray[np.int64]
    ) -> NDArray:
        """Features (n_images, L, D) from the cache, memory-mapped, with all of `rows` filled in.

        The cache has one folder per model, weights, preprocessing, pooling and set of images.
        `done.npy` marks the images whose features are in it. A batch is marked only after its
        features are written, so an interrupted extraction continues after its last whole batch.
        """
        about = {
            "model": self.model,
            "weights_sha256": loaded.weights_sha256(),
            "preprocessing": loaded.preprocessing,
            "pooling": self.pooling,
            "layers": [0, len(loaded.blocks)],
            "dtype": self.dtype,
            "images": hashlib.sha256(json.dumps(images.fingerprint()).encode()).hexdigest(),
            "n_images": len(images),
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        path = self.cache / f"{self.model.replace('/', '-')}-{digest[:12]}"
        folder = make_folder(path, key="features.cache")
        with FileLock(folder / ".lock"):
            if not (folder / "about.json").exists():
                shape = (len(images), len(loaded.blocks) + 1, loaded.n_features)
                _new_array(folder / "features.npy", shape, self.dtype)
                _new_array(folder / "done.npy", shape[:1], np.bool_)
                write_json(folder / "about.json", about)  # last: both arrays are there
            with reading(folder, "features.cache"):
                array = np.load(folder / "features.npy", mmap_mode="r+")
                done = np.load(folder / "done.npy", mmap_mode="r+")
            missing = np.unique(rows[~done[rows]])
            for batch, features in self._batches(loaded, images, missing):
                array[batch] = features
                array.flush()
                done[batch] = True
                done.flush()
        return array

    def _batches(
        self, loaded: LoadedTransformer, images: Images, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Batches of `rows`, with the features (n, L, D) of their images."""
        batches = [rows[k : k + self.batch_size] for k in range(0, len(rows), self.batch_size)]
        if not batches:
            return
        if self.device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"features.device={self.device}: this machine has no usable GPU")
        loaded.model.to(self.device).eval()

        def decode(batch: NDArray[np.int64]) -> Tensor:
            return torch.stack([loaded.transform(images.read(int(i))) for i in batch])

        # One thread decodes the next batch while the model works on this one.
        with stage_progress() as progress, ThreadPoolExecutor(1) as pool:
            task = progress.add_task("features", total=len(rows), unit="images")
            decoded = pool.submit(decode, batches[0])
            for k, batch in enumerate(batches):
                pixels = decoded.result().to(self.device)
                if k + 1 < len(batches):
                    decoded = pool.submit(decode, batches[k + 1])
                with torch.inference_mode():
                    features = loaded.pooled(pixels, self.pooling)
                yield batch, features.float().cpu().numpy()
                progress.update(task, advance=len(batch))


def _new_array(path: Path, shape: tuple[int, ...], dtype: type | str) -> None:
    """Make an array of zeros, which takes no space on disk before it is written to."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()


def load_weights(module: nn.Module, path: Path, prefix: str, model: str) -> None:
    """Load weights into `module` from a .safetensors file or a torch file of tensors.

    Nothing else is unpickled. prefix: what the names of the module's weights begin with in a file
    that holds more than this module. model: its name, for error messages. Raises InputError where
    the file is missing or unreadable, or holds the weights of another architecture.
    """
    state = _read_state(path)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if prefix and any(name.startswith(prefix) for name in state):
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if expected != found:
        names = sorted(expected | found)
        first = next(name for name in names if expected.get(name) != found.get(name))
        raise InputError(
            f"features.checkpoint={path} holds another architecture than {model}: {first} is "
            f"{found.get(first, 'absent')}, expected {expected.get(first, 'nothing')}"
        )
    module.load_state_dict(state)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"features.checkpoint: no such file: {path}") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"features.checkpoint: {path} cannot be read ({reason})") from error
    except Exception as error:  # torch and safetensors raise a dozen kinds
        raise InputError(
            f"features.checkpoint={path} is not a readable file of weights (safetensors, or "
            f"tensors saved by torch; a TorchScript archive is not read)"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return state if isinstance(state, dict) else {}


def unknown_model(model: str, known: Iterable[str]) -> InputError:
    """The error for a model that its library does not know, with names that are close to it."""
    close = get_close_matches(model, known, n=3, cutoff=0.4)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return InputError(f"features.model={model}: there is no such model{hint}")


def no_weights(model: str, error: Exception) -> InputError:
    """The error for weights that cannot be downloaded."""
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"features: the weights of {model} cannot be downloaded ({type(error).__name__}: "
        f"{reason}); give a local file by features.checkpoint"
    )
