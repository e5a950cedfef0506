"""Gain and shape: what of a Jacobian's deviation lies along the mean Jacobian, and what does not.

After Keshishian et al. 2020 (eLife 9:e53445). Per stimulus i and voxel,

    J_i = a_i Jbar + R_i,    a_i = <J_i, Jbar> / <Jbar, Jbar>,    <R_i, Jbar> = 0

over all features, and over those of each of K blocks of columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

GAIN_SHAPE = ("gain", "shape")
"""The names of the arrays, beside those of the variants: a_i and ||R_i|| / ||Jbar||."""


class Direction(NamedTuple):
    """Mean Jacobians, in each block a unit vector (v, D), and their lengths there (v, K).

    NaN for a mean of 0.
    """

    unit: Tensor
    length: Tensor

    def rows(self, block: slice) -> "Direction":
        """Of a block of the voxels."""
        return Direction(self.unit[block], self.length[block])


def direction_of_(mean: Tensor, blocks: Sequence[slice]) -> Direction:
    """The directions of mean Jacobians (v, D), which the unit vectors overwrite."""
    length = torch.stack(
        [torch.linalg.vector_norm(mean[:, columns], dim=1) for columns in blocks], dim=1
    )
    for k, columns in enumerate(blocks):
        mean[:, columns] /= length[:, k, None]
    return Direction(mean, length)


def gain_and_shape(
    deviation: Tensor, direction: Direction, blocks: Sequence[slice]
) -> list[tuple[Tensor, Tensor]]:
    """The gain a_i and the change of shape ||R_i|| / ||Jbar|| of each Jacobian.

    deviation: J_i - Jbar, (..., v, D). direction: of Jbar. Two (..., v) each: over all features,
    then in each block. Where J_i equals Jbar they are exactly 1 and 0; else NaN for a Jbar of 0,
    which has no direction.
    """
    sizes, alongs = [], []
    for columns in blocks:
        part = deviation[..., columns]
        sizes.append(torch.linalg.vector_norm(part, dim=-1))
        alongs.append(torch.linalg.vecdot(part, direction.unit[:, columns]))
    lengths = direction.length.unbind(dim=1)
    inside = [_gain_and_shape(*block) for block in zip(sizes, alongs, lengths, strict=True)]
    if len(blocks) == 1:
        return inside * 2
    length = torch.linalg.vector_norm(direction.length, dim=1)
    products = [torch.where(x > 0, a * x, 0) for a, x in zip(alongs, lengths, strict=True)]
    size = torch.linalg.vector_norm(torch.stack(sizes), dim=0)
    return [_gain_and_shape(size, torch.stack(products).sum(dim=0) / length, length), *inside]


def _gain_and_shape(size: Tensor, along: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    across = (size.square() - along.square()).clamp_(min=0).sqrt_()  # by Pythagoras
    gain, shape = 1 + along / length, across / length
    same = size == 0
    return gain.masked_fill_(same, 1), shape.masked_fill_(same, 0)
