"""Blocks of columns: of voxels, so that a memory-mapped (N, V) array is never copied whole."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from jne.errors import InputError

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


def named_slices(widths: Any, n_columns: int, path: Path) -> dict[str, slice]:
    """The columns of each feature space, from their numbers as a file `path` has them.

    Raises InputError where these are not numbers from 1, by names, that add up to `n_columns`.
    """
    whole = (
        isinstance(widths, dict)
        and all(type(width) is int and width > 0 for width in widths.values())
        and sum(widths.values()) == n_columns
    )
    if not whole:
        raise InputError(
            "", f"{path} must hold the number of columns of each feature space, {n_columns} in all"
        )
    ends = accumulate(widths.values())
    return {
        name: slice(end - width, end)
        for (name, width), end in zip(widths.items(), ends, strict=True)
    }
