"""Deep features of images: what `features=...` chooses.

A vision transformer's token after each of its blocks, n images, L layers, D features. Layer 0 is
what enters the first block (the embedding), layer k what leaves block k.
"""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from jne.errors import InputError
from jne.features.images import Images
from jne.utils.arrays import read_array
from jne.utils.files import make_folder, write_json
from jne.utils.progress import stage_progress

RANDOM = "random"  # `pretrained` without weights, on purpose


class Features(BaseModel, ABC):
    """Where the features of images come from. Its fields are the keys of its conf/features file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Of the features in the record."""
    layer: int | None
    """None: the last, or the only one."""

    def input_files(self) -> list[Path]:
        """The files read; a change of their size or date makes a new prepared folder."""
        return []

    @abstractmethod
    def of(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray[np.float32]:
        """Features (len(rows), D) of the images with these numbers, of n in all.

        Raises InputError where they cannot be had.
        """


class OwnFeatures(Features):
    """`features=none`: the data bring their own."""

    def of(self, images, rows, n):
        raise InputError(
            "these data need image features; choose features=clip_vit_b32, features=timm or "
            "features=precomputed"
        )


class Precomputed(Features):
    """`features=precomputed`: an array (n, D) or (n, L, D), row i of image i."""

    path: Path
    key: str | None
    """The dataset inside an HDF5 or .npz file; needed where the file has several."""
    first_layer: int
    """1 where the array starts at the first block, 0 where it starts at the embedding."""

    def input_files(self) -> list[Path]:
        return [self.path]

    def n_rows(self) -> int:
        return len(self._array())

    def _array(self) -> NDArray:
        if not self.path.exists():
            raise InputError(f"features.path: no such file: {self.path}")
        return read_array(self.path, self.key, "features.path", "features.key")

    def of(self, images, rows, n):
        array = self._array()
        if len(array) < n:
            raise InputError(
                f"features.path={self.path} has {len(array)} rows, but there are {n} images"
            )
        array = layer_of(array, self.layer, self.first_layer, "features", self.path)
        return array[rows].astype(np.float32)


def layer_of(
    array: NDArray, layer: int | None, first_layer: int, section: str, path: Path
) -> NDArray:
    """(n, D) of an array (n, D) or (n, L, D), whose first layer has the number `first_layer`.

    section, path: the config section and the file, for the sentence of an InputError.
    """
    if array.ndim == 2 and layer is None:
        return array
    if array.ndim == 2:
        raise InputError(
            f"{section}.layer={layer} needs features of shape (n_stimuli, n_layers, n_features), "
            f"found {array.shape}; set {section}.layer=null"
        )
    if array.ndim != 3:
        raise InputError(
            f"{section}: features must be (n_stimuli, n_features) or (n_stimuli, n_layers, "
            f"n_features), found shape {array.shape}"
        )
    last = first_layer + array.shape[1] - 1
    if layer is None:
        raise InputError(
            f"{section}: features must be (n_stimuli, n_features), found shape {array.shape}; "
            f"choose one of its layers with {section}.layer"
        )
    if not first_layer <= layer <= last:
        raise InputError(
            f"{section}.layer={layer} is out of range: {path} has layers {first_layer} to {last}"
        )
    return array[:, layer - first_layer]


# --- vision transformers ------------------------------------------------------------------------


class _Tower(Features):
    """A vision transformer, all of whose layers are kept for the images once asked for."""

    model: str
    checkpoint: Path | None
    """Local weights, in place of a download."""
    pooling: Literal["class", "mean"]
    """The class token, or the mean of the patches."""
    dtype: Literal["float16", "float32"]
    """Of the features on disk."""
    # How it is computed, not what: no part of what tells one prepared folder from another.
    batch_size: int = Field(ge=1, exclude=True)
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", exclude=True)]
    cache: Path = Field(exclude=True)

    def input_files(self) -> list[Path]:
        return [self.checkpoint] if self.checkpoint is not None else []

    @abstractmethod
    def _load(self) -> "_Loaded":
        """The model with its weights. Raises InputError."""

    def of(self, images, rows, n):
        if images is None:
            raise InputError(f"features={self.name} needs images")
        if len(images) < n:
            raise InputError(f"images: {images.path} holds {len(images)} images of {n}")
        loaded = self._load()
        layer = len(loaded.blocks) if self.layer is None else self.layer
        if not 0 <= layer <= len(loaded.blocks):
            raise InputError(
                f"features.layer={layer} is out of range: {self.model} has layers 0 (the "
                f"embedding) to {len(loaded.blocks)}"
            )
        array = self._extracted(loaded, images, rows)
        return np.asarray(array[rows, layer], dtype=np.float32)

    def _extracted(self, loaded: "_Loaded", images: Images, rows: NDArray) -> NDArray:
        """(n_images, L, D), memory-mapped, with every one of `rows` filled in.

        A folder a model, weights, preprocessing and container of images. `done.npy` says which
        images are in; a batch is marked after it is written, so an interrupted extraction goes on
        from its last batch.
        """
        about = {
            "model": self.model,
            "weights_sha256": loaded.weights_sha256,
            "preprocessing": loaded.preprocessing,
            "pooling": self.pooling,
            "layers": [0, len(loaded.blocks)],
            "dtype": self.dtype,
            "images": hashlib.sha256(json.dumps(images.fingerprint()).encode()).hexdigest(),
            "n_images": len(images),
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        folder = make_folder(self.cache / f"{self.model.replace('/', '-')}-{digest[:12]}")
        with FileLock(folder / ".lock"):
            if not (folder / "about.json").exists():
                shape = (len(images), len(loaded.blocks) + 1, loaded.width)
                for name, size, dtype in (
                    ("features", shape, self.dtype),
                    ("done", shape[:1], np.bool_),
                ):
                    # Not whole yet, and marked so: `done` is false everywhere. Sparse on disk.
                    path = folder / f"{name}.npy"
                    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=size).flush()
                write_json(folder / "about.json", about)  # last: the arrays are there
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
        self, loaded: "_Loaded", images: Images, rows: NDArray
    ) -> Iterator[tuple[NDArray, NDArray]]:
        batches = [rows[k : k + self.batch_size] for k in range(0, len(rows), self.batch_size)]
        if not batches:
            return
        model = loaded.model.to(self.device).eval()

        def decoded(batch: NDArray) -> Tensor:
            return torch.stack([loaded.transform(images.read(int(i))) for i in batch])

        # One thread decodes the next batch while the model works on this one.
        with stage_progress() as progress, ThreadPoolExecutor(1) as pool:
            task = progress.add_task("features", total=len(rows), unit="images")
            ahead = pool.submit(decoded, batches[0])
            for k, batch in enumerate(batches):
                pixels = ahead.result().to(self.device)
                if k + 1 < len(batches):
                    ahead = pool.submit(decoded, batches[k + 1])
                with torch.inference_mode():
                    layers = _pooled(model, loaded, pixels, self.pooling)
                yield batch, layers.float().cpu().numpy()
                progress.update(task, advance=len(batch))


class _Loaded:
    """A vision transformer ready to run: its blocks in order, and how images enter it."""

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList,
        n_prefix: int,
        transform: Any,
        preprocessing: dict,
        batch_first: bool = True,
    ) -> None:
        self.model, self.blocks, self.n_prefix = model, blocks, n_prefix
        self.transform, self.preprocessing = transform, preprocessing
        self.batch_first = batch_first
        self.width = next(p for p in blocks[0].parameters() if p.ndim == 1).shape[0]
        state = hashlib.sha256()
        for name, value in sorted(model.state_dict().items()):
            state.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        self.weights_sha256 = state.hexdigest()


def _pooled(model: nn.Module, loaded: _Loaded, pixels: Tensor, pooling: str) -> Tensor:
    """(n, L, D): the token, or the mean patch, of the embedding and of every block."""
    found: list[Tensor] = []

    def keep(tokens: Tensor) -> None:
        tokens = tokens if loaded.batch_first else tokens.transpose(0, 1)  # (n, tokens, D)
        if pooling == "class":
            found.append(tokens[:, 0])
        else:
            found.append(tokens[:, loaded.n_prefix :].mean(dim=1))

    handles = [loaded.blocks[0].register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))]
    handles += [
        block.register_forward_hook(lambda _, inputs, output: keep(output))
        for block in loaded.blocks
    ]
    try:
        model(pixels)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found, dim=1)


class OpenClip(_Tower):
    """An image tower of open_clip with OpenAI's, LAION's or other weights it knows."""

    pretrained: str
    """open_clip's name of the weights, which also says how images enter; or `random`."""

    def _load(self) -> _Loaded:
        import open_clip
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        if self.model not in open_clip.list_models():
            raise _unknown_model(self.model, open_clip.list_models())
        known = open_clip.get_pretrained_cfg(self.model, self.pretrained) or {}
        if not known and self.pretrained != RANDOM:
            tags = open_clip.list_pretrained_tags_by_model(self.model)
            raise InputError(
                f"features.pretrained={self.pretrained}: {self.model} has {', '.join(tags)}, "
                f"or {RANDOM}"
            )
        # OpenAI's weights were trained with QuickGELU; with a plain GELU they load without a word
        # and give wrong features. The tag knows.
        quick = bool(known.get("quick_gelu", self.model.endswith("-quickgelu")))
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            visual = open_clip.create_model(
                self.model, load_weights=False, pretrained_text=False, force_quick_gelu=quick
            ).visual
        preprocessing = merge_preprocess_dict(visual.preprocess_cfg, known)
        if self.pretrained != RANDOM:
            path = self.checkpoint
            if path is not None and path.is_dir():
                path, preprocessing = _open_clip_folder(path, preprocessing)
            _load_weights(visual, path or self._download(known), "visual.", self.model)
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        if blocks is None:
            raise InputError(f"features.model={self.model} is not a vision transformer")
        return _Loaded(
            visual,
            blocks,
            n_prefix=1,
            transform=image_transform_v2(PreprocessCfg(**preprocessing), is_train=False),
            preprocessing=json.loads(json.dumps(preprocessing)),
            batch_first=visual.transformer.batch_first,
        )

    def _download(self, known: dict) -> Path:
        import open_clip

        try:
            return Path(open_clip.download_pretrained(known))
        except Exception as error:  # a dozen kinds, by what is between here and the hub
            raise _no_weights(f"{self.model} {self.pretrained}", error) from error


class Timm(_Tower):
    """A vision transformer of timm."""

    pretrained: bool
    """False: random weights."""

    def _load(self) -> _Loaded:
        import timm
        from timm.data import create_transform, resolve_model_data_config

        if not timm.is_model(self.model):
            raise _unknown_model(self.model, timm.list_models())
        local = self.checkpoint is not None
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = timm.create_model(self.model, pretrained=self.pretrained and not local)
        except Exception as error:  # a dozen kinds, by what is between here and the hub
            raise _no_weights(self.model, error) from error
        if self.pretrained and local:
            _load_weights(model, self.checkpoint, "", self.model)
        blocks = getattr(model, "blocks", None)
        if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
            raise InputError(f"features.model={self.model} is not a vision transformer")
        if self.pooling == "class" and getattr(model, "cls_token", None) is None:
            raise InputError(
                f"features.pooling=class: {self.model} has no class token; choose mean"
            )
        preprocessing = resolve_model_data_config(model)
        return _Loaded(
            model,
            blocks,
            n_prefix=model.num_prefix_tokens,
            transform=create_transform(**preprocessing, is_training=False),
            preprocessing=json.loads(json.dumps(preprocessing)),
        )


def _load_weights(module: nn.Module, path: Path, prefix: str, model: str) -> None:
    """Weights from a .safetensors file or a torch file of tensors; nothing else is unpickled."""
    if not path.is_file():
        raise InputError(f"features.checkpoint: no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds
        raise InputError(
            f"features.checkpoint={path} is not a readable file of weights (safetensors, or "
            f"tensors saved by torch; a TorchScript archive is not read)"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {name.removeprefix("module."): value for name, value in state.items()}
    if prefix and any(name.startswith(prefix) for name in state):  # both towers: take this one
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}
    if own != found:
        differ = sorted(name for name in own | found if own.get(name) != found.get(name))
        raise InputError(
            f"features.checkpoint={path} holds another architecture than {model}: {differ[0]} is "
            f"{found.get(differ[0], 'absent')}, expected {own.get(differ[0], 'nothing')}"
        )
    module.load_state_dict(state)


def _open_clip_folder(folder: Path, preprocessing: dict) -> tuple[Path, dict]:
    """The weights in a folder as open_clip saves one, and its own preprocessing."""
    from open_clip.transform import merge_preprocess_dict

    config = folder / "open_clip_config.json"
    if config.exists():
        own = json.loads(config.read_text()).get("preprocess_cfg", {})
        preprocessing = merge_preprocess_dict(preprocessing, own)
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        if (folder / name).exists():
            return folder / name, preprocessing
    raise InputError(
        f"features.checkpoint={folder} holds neither open_clip_model.safetensors nor "
        f"open_clip_pytorch_model.bin"
    )


def _unknown_model(model: str, known: list[str]) -> InputError:
    close = get_close_matches(model, known, n=3, cutoff=0.4)
    hint = f"; close to it: {', '.join(close)}" if close else ""
    return InputError(f"features.model={model}: there is no such model{hint}")


def _no_weights(what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"features: the weights of {what} cannot be downloaded ({type(error).__name__}: {reason}); "
        f"give a local file by features.checkpoint"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    # open_clip warns through the root logger that there are no weights yet.
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
