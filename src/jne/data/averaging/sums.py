"""Sums over the valid trials of each voxel, from which the noise ceiling follows.

N stimuli, V voxels, B blocks of stimuli.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import ncsnr_of
from jne.utils.files import atomic_file


@dataclass(frozen=True)
class VoxelNoise:
    """What is known of V voxels besides their means."""

    n_invalid: NDArray[np.int64]
    """(V,): trials that no mean has."""
    ncsnr: NDArray[np.float64]
    """(V,): computed from the trials; NaN where that was not asked for, or nothing repeats."""
    inverse: NDArray[np.float64]
    """(V,): the mean of 1 / (valid trials) over the test stimuli, NaN where one has none."""
    between_repeats: NDArray[np.float32]
    """(B, V): `jne.analysis.repeats.RepeatNoise.noise`; (0, V) without repeats."""

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The voxels of all parts."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column, axis=-1) for column in columns))

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Of the voxels that are here in the order `order`, (V,)."""
        place = np.argsort(order)
        return type(self)(*(values[..., place] for values in vars(self).values()))

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as saved:
            return cls(**saved)

    def save(self, path: Path) -> None:
        save_arrays(path, vars(self))


@dataclass
class TrialSums:
    """Sums over the valid trials of each voxel, (V,) each."""

    n: NDArray[np.int64]
    """Trials."""
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    within: NDArray[np.float64]
    """Squares around the mean of the stimulus."""
    repeats: NDArray[np.int64]
    """Trials beyond the first of each stimulus."""

    @classmethod
    def of_means(cls, count: NDArray, mean: NDArray, squares: NDArray) -> "TrialSums":
        """From the means of all stimuli, where the trials themselves are not in memory.

        count, mean: (N, V), the number of trials of each stimulus and their mean. squares: (V,),
        the sum of squares over all trials.
        """
        within = squares - (count * np.square(mean)).sum(axis=0)
        repeats = np.maximum(count - 1, 0).sum(axis=0)
        n, total = count.sum(axis=0), (count * mean).sum(axis=0)
        return cls(n, total, squares, np.maximum(within, 0), repeats)

    def ncsnr(self) -> NDArray[np.float64]:
        """The ncsnr (V,) as of `noise_ceiling_snr`; NaN where no stimulus was repeated."""
        mean = self.total / np.maximum(self.n, 1)
        around_mean = self.squares - self.n * np.square(mean)
        return ncsnr_of(self.within, self.repeats, around_mean, self.n)


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz file, whole or not at all."""
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
