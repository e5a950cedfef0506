"""How much JNE would change with other test stimuli and with other seeds."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import resample_counts
from jne.utils.blocks import voxel_blocks

N_SPLITS = 21
"""Random splits of the stimuli into halves, of which the median one is shown."""


def jne_interval(
    deviation: NDArray, n_bootstrap: int, seed: int, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap interval of the JNE of each voxel over the test stimuli.

    The mean Jacobian stays fixed: only the stored deviations are resampled. All resamples of a
    block of voxels are two products with the resampling counts.

    Parameters
    ----------
    deviation : (N, V) array
        As `jacobian_deviation` returns it.
    n_bootstrap : int
        Number of resamples of the stimuli.
    seed : int
        Of the resamples.
    confidence : float
        Of the interval.

    Returns
    -------
    low, high : (V,) array of float64
    """
    n, n_voxels = deviation.shape
    counts = resample_counts(n, n_bootstrap, seed)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    interval = np.empty((2, n_voxels))
    for columns in voxel_blocks(n_voxels):
        s = np.asarray(deviation[:, columns], dtype=np.float64)
        s = s - s.mean(axis=0)  # leaves the spread as it is and lowers its rounding error
        variance = counts @ np.square(s) / n - np.square(counts @ s / n)
        interval[:, columns] = np.quantile(np.sqrt(np.maximum(variance, 0)), tails, axis=0)
    return interval[0], interval[1]


def split_halves(
    deviation: NDArray, seed: int, n_splits: int = N_SPLITS, among: NDArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """JNE of two random halves of the test stimuli, as reliable as is typical.

    Of several random splits it is the one with the median correlation over voxels: that of a single
    split depends much on which half the few stimuli fall into that a region is most nonlinear for.

    Parameters
    ----------
    deviation : (N, V) array
        N at least 2, as `jacobian_deviation` returns it.
    seed : int
        Of the first split; each further split adds 1.
    n_splits : int
        An odd number.
    among : (V,) array of bool
        The voxels over which splits are compared; all by default.

    Returns
    -------
    first, second : (V,) array of float64
    """
    seeds = range(seed, seed + n_splits)
    r = _split_half_r(deviation, seeds, slice(None) if among is None else among)
    typical = seeds[int(np.argsort(r)[n_splits // 2])]
    first, second = _halves(len(deviation), typical)
    return jne(deviation[first]), jne(deviation[second])


def _split_half_r(deviation: NDArray, seeds: Sequence[int], among: NDArray | slice) -> list[float]:
    """Pearson's r over voxels between the JNE of both halves of each split.

    All halves of a block of voxels are two products with the halves' weights.
    """
    n, n_voxels = deviation.shape
    weights = np.zeros((2 * len(seeds), n))
    for split, seed in enumerate(seeds):
        for k, half in enumerate(_halves(n, seed)):
            weights[2 * split + k, half] = 1 / len(half)
    jne_of_half = np.empty((2 * len(seeds), n_voxels))
    for columns in voxel_blocks(n_voxels):
        s = np.asarray(deviation[:, columns], dtype=np.float64)
        s = s - s[:1]  # exactly 0 where all are equal
        s = s - s.mean(axis=0)  # leaves the spread as it is and lowers its rounding error
        variance = weights @ np.square(s) - np.square(weights @ s)
        jne_of_half[:, columns] = np.sqrt(np.maximum(variance, 0))
    jne_of_half = jne_of_half[:, among]
    return [correlation(*jne_of_half[k : k + 2]) for k in range(0, 2 * len(seeds), 2)]


def _halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two random halves of n stimuli."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def correlation(first: NDArray, second: NDArray) -> float:
    """Pearson's r over the voxels that are finite in both.

    first, second: (V,). NaN for fewer than 3 such voxels, or where either is constant over them.
    """
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def across_seeds(maps: list[NDArray]) -> tuple[float, NDArray[np.float64]]:
    """How well the JNE maps of several seeds agree.

    Parameters
    ----------
    maps : list of (V,) arrays
        JNE of the same voxels, one array per seed.

    Returns
    -------
    r : float
        Mean of the pairwise Pearson's r over voxels.
    spread : (V,) array of float64
        Standard deviation of each voxel over seeds.
    """
    pairs = [correlation(a, b) for a, b in combinations(maps, 2)]
    return float(np.mean(pairs)), np.std(maps, axis=0, ddof=1)
