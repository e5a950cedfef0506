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
    """Values (N, K) of any dtype in float32, less an offset (K,) per column; None: of no column.

    The offset is the mean of a column that varies too little around it for float32, else 0. Values
    beyond the range of float32 become infinite.
    """
    result = np.empty(values.shape, dtype=np.float32)
    offset = np.zeros(values.shape[1])
    for v in voxel_blocks(values.shape[1]):
        block = values[:, v]
        if not np.can_cast(values.dtype, np.float32):
            offset[v] = _offset(np.asarray(block, dtype=np.float64))
            block = block - offset[v] if offset[v].any() else block
        with np.errstate(over="ignore"):
            result[:, v] = block
    return result, offset if offset.any() else None


def _offset(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,), of the finite values (N, K)."""
    finite = np.isfinite(values)
    n = np.maximum(finite.sum(axis=0), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.where(finite, values, 0).sum(axis=0) / n
        spread = np.sqrt(np.square(np.where(finite, values - mean, 0)).sum(axis=0) / n)
        far = (np.abs(mean) > _FAR * spread) & (np.abs(mean) < _CONSTANT * spread)
    return np.where(far, mean, 0.0)


def with_offset(mean: Tensor, offset: NDArray[np.float64] | None) -> Tensor:
    """The mean (K,) of columns in the units of the data; float64 where they have an offset."""
    return mean if offset is None else mean + torch.from_numpy(offset)
