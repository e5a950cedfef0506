"""Blocks of voxels, so that a memory-mapped (N, V) array is never copied whole; some among all."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray

VOXELS_PER_BLOCK = 4096  # bounds a float64 copy at 8 * N * 4096 bytes


def voxel_blocks(n_voxels: int, size: int = VOXELS_PER_BLOCK) -> Iterator[slice]:
    """Slices that cover `n_voxels` columns in order, `size` columns each."""
    for start in range(0, n_voxels, size):
        yield slice(start, min(start + size, n_voxels))


def even_blocks(n_voxels: int, size: int) -> Iterator[slice]:
    """Slices that cover `n_voxels` columns in order, of up to `size` columns and nearly equal.

    None has a single column, which NumPy would add up in another order, unless `n_voxels` is 1.
    """
    n_blocks = -(-n_voxels // size)
    for k in range(n_blocks):
        yield slice(k * n_voxels // n_blocks, (k + 1) * n_voxels // n_blocks)


def among_all(
    values: NDArray, places: NDArray, n_voxels: int, dtype: DTypeLike = np.float64
) -> NDArray:
    """Values (..., v) of some voxels as those of all, (..., n_voxels), NaN for the others.

    places: their numbers (v,), or (n_voxels,) bool. dtype: of the result, of floating point.
    """
    result = np.full((*values.shape[:-1], n_voxels), np.nan, dtype)
    result[..., places] = values
    return result
