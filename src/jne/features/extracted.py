"""Features that a model extracts from images: every layer at once, kept on disk.

n images, L layers, D_k features of layer k.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from jne.errors import InputError
from jne.features.base import Features, not_given
from jne.features.cache import filled_cache
from jne.features.images import Images
from jne.features.towers import Pooling, Tower
from jne.utils.paths import UserPath
from jne.utils.progress import stage_progress
from jne.utils.spaces import FeatureArrays, cell_names, named


class ExtractedFeatures(Features):
    """A model of images. All layers of an image are kept once one of them has been asked for."""

    model: str
    checkpoint: UserPath | None
    """Local weights, in place of a download."""
    image_size: int | None = Field(default=None, ge=1, exclude_if=not_given)
    """Height and width in pixels of the images that enter the model. None: the model's own."""
    pooling: Literal["class", "mean"]
    """The class token, or the mean of the patches; for a network of stages always the mean."""
    tokens: Literal["class", "patches"] | None = Field(default=None, exclude_if=not_given)
    """patches: a feature space for each cell of a grid over the image, the mean of its patches.
    class or None: one space, as `pooling` says."""
    grid: int | None = Field(default=None, ge=2, le=7, exclude_if=not_given)
    """g, with patches: the grid has g x g cells. None: 2."""
    dtype: Literal["float16", "float32"]
    """Of the features on disk."""
    # These say how features are computed, not what they are: they are excluded from the settings
    # that tell one prepared folder from another.
    batch_size: int = Field(ge=1, exclude=True)
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", exclude=True)]
    cache: UserPath = Field(exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, keys: dict[str, Any]) -> dict[str, Any]:
        """What is written out and what is left to a default have the same digest."""
        tokens = keys.get("tokens")
        if tokens == "patches" and keys.get("grid") is None:
            return keys | {"grid": 2}
        return keys | {"tokens": None} if tokens == "class" else keys

    @model_validator(mode="after")
    def _check_tokens(self) -> "ExtractedFeatures":
        if self.grid is not None and self.tokens is None:
            raise InputError(
                "grid", "has no effect without tokens=patches; leave it out", self.grid
            )
        if self.tokens is not None and self.pooling == "mean":
            raise InputError("pooling", "has no effect with tokens=patches; leave it out", "mean")
        return self

    @property
    def token_pooling(self) -> Pooling:
        """How the tokens of a transformer become the features of a layer."""
        return self.pooling if self.grid is None else self.grid

    def each(self, extract: Callable[[Features], NDArray]) -> FeatureArrays:
        features = super().each(extract)
        if self.grid is None:
            return features
        if not isinstance(features, dict):
            return _by_cell(features, self.grid)
        arrays: dict[str, NDArray] = {}
        for layer, array in features.items():
            arrays |= named(layer, _by_cell(array, self.grid))
        return arrays

    def input_files(self) -> list[Path]:
        return [self.checkpoint] if self.checkpoint is not None else []

    @abstractmethod
    def load(self) -> Tower:
        """The model with its weights. Raises InputError where it cannot be had."""

    def extract(
        self, images: Images | None, rows: NDArray[np.int64], n: int
    ) -> NDArray[np.float32]:
        if images is None:
            raise InputError("features", "needs images, and these data have none", value=self.name)
        if len(images) < n:
            raise InputError(
                "images", f"{images.path} holds {len(images)} images, but at least {n} are needed"
            )
        tower = self.load()
        widths = self._widths(tower)
        last = len(widths) - 1
        layer = last if self.one_layer is None else self.one_layer
        if not 0 <= layer <= last:
            sizes = f", of {', '.join(map(str, widths))} features" if len(set(widths)) > 1 else ""
            raise InputError(
                "features.layer",
                f"out of range: {self.model} has layers 0 ({tower.layer_0}) to {last}{sizes}",
                value=layer,
            )
        about = {
            "model": self.model,
            "weights_sha256": tower.weights_sha256(),
            "preprocessing": tower.preprocessing,
            "pooling": tower.pooling,
            "layers": [0, last],
            "dtype": self.dtype,
            "images": hashlib.sha256(json.dumps(images.fingerprint()).encode()).hexdigest(),
            "n_images": len(images),
        }
        columns = filled_cache(
            self.cache, about, widths, rows, lambda missing: self.batches(tower, images, missing)
        )
        start = sum(widths[:layer])
        return np.asarray(columns[rows, start : start + widths[layer]], dtype=np.float32)

    def _widths(self, tower: Tower) -> list[int]:
        """D_k of each layer k, from a blank image, which also shows that its size is possible."""
        pixels = tower.transform(Image.new("RGB", (64, 64)))[None]
        with self.impossible_size(), torch.inference_mode():
            return [layer.shape[1] for layer in tower.pooled(pixels)]

    @contextmanager
    def impossible_size(self) -> Iterator[None]:
        """Raise InputError, naming `features.image_size`, where the block fails for that size."""
        try:
            yield
        except (RuntimeError, AssertionError, ValueError, TypeError, ArithmeticError) as error:
            if self.image_size is None or isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(
                "features.image_size",
                f"{self.model} cannot take images of this size ({reason})",
                value=self.image_size,
            ) from error

    def check_patches(self, patch: int) -> None:
        """Raise InputError where `image_size` is not a multiple of the patch's size in pixels."""
        if self.image_size is not None and self.image_size % patch:
            raise InputError(
                "features.image_size",
                f"{self.model} takes multiples of {patch} px",
                value=self.image_size,
            )

    def batches(
        self, tower: Tower, images: Images, rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Batches of `rows`, with the features (n, sum of D_k) of their images."""
        batches = [rows[k : k + self.batch_size] for k in range(0, len(rows), self.batch_size)]
        if not batches:
            return
        if self.device != "cpu" and not torch.cuda.is_available():
            raise InputError("features.device", "this machine has no usable GPU", value=self.device)
        tower.model.to(self.device)

        def decode(batch: NDArray[np.int64]) -> Tensor:
            return torch.stack([tower.transform(images.read(int(i))) for i in batch])

        # One thread decodes the next batch while the model works on this one.
        with stage_progress() as progress, ThreadPoolExecutor(1) as pool:
            task = progress.add_task("features", total=len(rows), unit="images")
            decoded = pool.submit(decode, batches[0])
            for k, batch in enumerate(batches):
                pixels = decoded.result().to(self.device)
                if k + 1 < len(batches):
                    decoded = pool.submit(decode, batches[k + 1])
                with torch.inference_mode():
                    features = torch.cat(tower.pooled(pixels), dim=1)
                yield batch, features.float().cpu().numpy()
                progress.update(task, advance=len(batch))


def _by_cell(features: NDArray, grid: int) -> dict[str, NDArray]:
    """Features (N, grid * grid * D) of cells, row after row, as arrays (N, D) by their names."""
    return dict(zip(cell_names(grid), np.split(features, grid**2, axis=1), strict=True))
