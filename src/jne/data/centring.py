"""Columns whose values float32 cannot hold, because they vary little around a large mean.

Of 100,000,000 + x, float32 keeps multiples of 8. Such columns are centred before they become
float32, and what was subtracted stays beside them in float64. All others stay as they are.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.utils.blocks import voxel_blocks

# |mean| / standard deviation from which a column is centred. Below, rounding to float32 is a noise
# of at most 3.4e-8 * 1e4 standard deviations, which takes 1e-7 from R2.
_FAR = 1e4
# From here on what varies is the rounding of float64: the column is constant.
_CONSTANT = 1e12
LARGEST = 1e38
"""Of values that float32, which ends at 3.4e38, can hold and subtract."""


def centred(values: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Values (N, K) of any dtype in float32, less their `offset`; values beyond it are infinite."""
    shift = offset(values)
    result = np.empty(values.shape, dtype=np.float32)
    for v in voxel_blocks(values.shape[1]):
        with np.errstate(over="ignore"):
            result[:, v] = values[:, v] if shift is None else values[:, v] - shift[v]
    return result, shift


def offset(values: NDArray) -> NDArray[np.float64] | None:
    """What to subtract from each column of values (N, K) before they become float32: (K,).

    The mean of a column that varies too little around it, else 0; None where all are 0.
    """
    if np.can_cast(values.dtype, np.float32):
        return None
    blocks = [_offset(values[:, v]) for v in voxel_blocks(values.shape[1])]
    return np.concatenate(blocks) if any(block.any() for block in blocks) else None


def _offset(values: NDArray) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    n = np.maximum(finite.sum(axis=0), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(finite, values, 0).sum(axis=0) / n
        spread = np.sqrt(np.square(np.where(finite, values - mean, 0)).sum(axis=0) / n)
        far = (np.abs(mean) > _FAR * spread) & (np.abs(mean) < _CONSTANT * spread)
    return np.where(far, mean, 0.0)


def with_offset(mean: Tensor, shift: NDArray[np.float64] | None) -> Tensor:
    """The mean (K,) of centred columns in the units of the data; float64 where there is a shift."""
    return mean if shift is None else mean + torch.from_numpy(shift)
