"""Blocks of voxels, so that a memory-mapped (N, V) array is never copied whole."""

from collections.abc import Iterator

VOXELS_PER_BLOCK = 4096  # bounds a float64 copy at 8 * N * 4096 bytes


def voxel_blocks(n_voxels: int, size: int = VOXELS_PER_BLOCK) -> Iterator[slice]:
    """Slices that cover `n_voxels` columns in order, `size` columns each."""
    for start in range(0, n_voxels, size):
        yield slice(start, min(start + size, n_voxels))
