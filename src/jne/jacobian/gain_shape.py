"""Gain and shape: what of a Jacobian's deviation lies along the mean Jacobian, and what does not.

After Keshishian et al. 2020 (eLife 9:e53445). Per stimulus i and voxel,

    J_i = a_i Jbar + R_i,    a_i = <J_i, Jbar> / <Jbar, Jbar>,    <R_i, Jbar> = 0
"""

from typing import NamedTuple

import torch
from torch import Tensor

GAIN_SHAPE = ("gain", "shape")
"""The names of the arrays, beside those of the variants: a_i and ||R_i|| / ||Jbar||."""


class Direction(NamedTuple):
    """Mean Jacobians as unit vectors (v, D), NaN for a mean of 0, and their lengths (v,)."""

    unit: Tensor
    length: Tensor

    def rows(self, block: slice) -> "Direction":
        """Of a block of the voxels."""
        return Direction(self.unit[block], self.length[block])


def direction_of_(mean: Tensor) -> Direction:
    """The directions of mean Jacobians (v, D), which the unit vectors overwrite."""
    length = torch.linalg.vector_norm(mean, dim=1)
    return Direction(mean.div_(length[:, None]), length)


def gain_and_shape(deviation: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """The gain a_i and the change of shape ||R_i|| / ||Jbar|| of each Jacobian.

    deviation: J_i - Jbar, (..., v, D). direction: of Jbar. Returns two (..., v). Where J_i equals
    Jbar they are exactly 1 and 0; else NaN for a Jbar of 0, which has no direction.
    """
    size = torch.linalg.vector_norm(deviation, dim=-1)
    along = torch.linalg.vecdot(deviation, direction.unit)
    across = (size.square() - along.square()).clamp_(min=0).sqrt_()  # by Pythagoras
    gain, shape = 1 + along / direction.length, across / direction.length
    same = size == 0
    return gain.masked_fill_(same, 1), shape.masked_fill_(same, 0)
