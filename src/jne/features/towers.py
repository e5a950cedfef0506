"""Models of images, and the features of every layer that they give.

n images, L layers, D_k features of layer k.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from jne.errors import InputError

Pooling = Literal["class", "mean"] | int
"""The class token; the mean of the patches; or g, their means in the cells of a g x g grid."""


@dataclass(frozen=True)
class Tower(ABC):
    """A model with its weights, in evaluation mode, and how images enter it."""

    model: nn.Module
    transform: Callable[[Image.Image], Tensor]
    """From an image to what the model takes."""
    preprocessing: dict[str, Any]
    """What `transform` does, as JSON values."""
    pooling: Pooling
    """How a layer becomes one vector."""

    layer_0: ClassVar[str]
    """What layer 0 is, for messages."""

    def __post_init__(self) -> None:
        self.model.eval()

    @abstractmethod
    def pooled(self, pixels: Tensor) -> list[Tensor]:
        """Features (n, D_k) of each layer k, of transformed images (n, 3, height, width)."""

    def weights_sha256(self) -> str:
        """A digest of all weights and buffers."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Transformer(Tower):
    """A vision transformer. Layer 0 is what enters the first block, layer k what leaves block k."""

    blocks: nn.ModuleList | nn.Sequential
    """The model's blocks, in order."""
    n_prefix: int
    """How many tokens, such as the class token, come before the patches."""
    batch_first: bool = True
    """Whether tokens are (n, n_tokens, D) inside the model, rather than (n_tokens, n, D)."""

    layer_0 = "the embedding"

    def pooled(self, pixels: Tensor) -> list[Tensor]:
        """The class token of each layer, the mean of its patches, or their means in g x g cells.

        Cells are row after row, each with all its features: D_k is g x g times the layer's width.
        Raises InputError where the patches make no map of g x g cells.
        """
        layers: list[Tensor] = []

        def keep(tokens: Tensor) -> None:
            tokens = tokens if self.batch_first else tokens.transpose(0, 1)  # (n, n_tokens, D)
            if self.pooling == "class":
                layers.append(tokens[:, 0])
                return
            patches = tokens[:, self.n_prefix :]
            if self.pooling == "mean":
                layers.append(patches.mean(dim=1))
            else:
                layers.append(_cells(patches, self.pooling))

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
        return layers


def _cells(patches: Tensor, grid: int) -> Tensor:
    """Means (n, grid * grid * D) of patches in cells, which share a patch where sides do not fit.

    patches: (n, side * side, D), row after row.
    """
    side = math.isqrt(patches.shape[1])
    if patches.ndim != 3 or side**2 != patches.shape[1]:
        raise InputError(
            "features.tokens", "this model's patches make no square map", value="patches"
        )
    if side < grid:
        raise InputError("features.grid", f"this model has {side} x {side} patches", value=grid)
    maps = patches.transpose(1, 2).unflatten(2, (side, side))
    return adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2).flatten(1)


@dataclass(frozen=True)
class Stages(Tower):
    """A network of stages, such as a convolutional one. Layer k is timm's map k (out_indices)."""

    layer_0 = "the first map"

    def pooled(self, pixels: Tensor) -> list[Tensor]:
        """The mean over space of each map (n, D_k, height_k, width_k)."""
        model: Any = self.model
        maps: list[Tensor] = model.forward_intermediates(pixels, intermediates_only=True)
        return [layer.mean(dim=(2, 3)) for layer in maps]
