"""How a set of stimuli is predicted and how nonlinear an encoder is there, over voxels.

N stimuli, V voxels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.contrast import quantile
from jne.analysis.prediction import resample_counts
from jne.utils.blocks import voxel_blocks

_TAILS = (0.025, 0.975)
_LOST = 3  # of the stimuli of a set, in the variance of Fisher's z
_TINY = 1e-9  # of a sum of squares: what rounding leaves of 0


class Estimate(NamedTuple):
    """A number with its 95 % interval over stimuli."""

    value: float
    low: float
    high: float


class SetScores(NamedTuple):
    """Of a set of stimuli."""

    r2: Estimate
    """1 - squared error over variance, each summed over voxels, so that it is stable where a set
    has few stimuli and some voxels hardly vary."""
    r: Estimate
    """Mean of Pearson's r over voxels."""
    jne: Estimate
    """Mean of JNE over voxels."""


def set_scores(
    responses: NDArray, predictions: NDArray, deviation: NDArray, n_bootstrap: int, seed: int
) -> SetScores:
    """Scores of the voxels in a set of stimuli, with percentile bootstrap intervals.

    Stimuli are resampled, as one for all voxels; the encoder and its mean Jacobian stay as they
    are.

    Parameters
    ----------
    responses, predictions, deviation : (N, V) array
        A voxel without finite responses counts for JNE alone, one without finite deviations for the
        others alone.
    n_bootstrap : int
        Number of resamples.
    seed : int
        Of the resamples.

    Returns
    -------
    SetScores
        NaN where no voxel counts.
    """
    n, n_voxels = responses.shape
    counts = np.concatenate([np.ones((1, n)), resample_counts(n, n_bootstrap, seed)])
    error, total, r, n_r, jne, n_jne = np.zeros((6, len(counts)))
    for v in voxel_blocks(n_voxels):
        y, p, s = (np.asarray(a[:, v], np.float64) for a in (responses, predictions, deviation))
        scored = np.isfinite(y).all(axis=0) & np.isfinite(p).all(axis=0)
        y, p, s = y[:, scored], p[:, scored], s[:, np.isfinite(s).all(axis=0)]
        yy, pp, ss = (_squares(counts, a, a) for a in (y, p, s))
        error += (counts @ np.square(y - p)).sum(axis=1)
        total += yy.sum(axis=1)
        varies = (yy > 0) & (pp > 0)
        product = np.sqrt(np.where(varies, yy * pp, 1))
        r += np.where(varies, _squares(counts, y, p, clip=False) / product, 0).sum(axis=1)
        n_r += varies.sum(axis=1)
        jne += np.sqrt(ss / n).sum(axis=1)
        n_jne += ss.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return SetScores(estimate(1 - error / total), estimate(r / n_r), estimate(jne / n_jne))


def r2_gain(
    responses: NDArray, predictions: NDArray, baseline: NDArray, n_bootstrap: int, seed: int
) -> NDArray[np.float64]:
    """R² of predictions minus that of others, of all voxels together, as in `SetScores`.

    Parameters
    ----------
    responses, predictions, baseline : (N, V) array
        Finite.
    n_bootstrap : int
        Number of resamples of the stimuli.
    seed : int
        Of the resamples, which are the same for the same N: differences of gains are paired.

    Returns
    -------
    (1 + n_bootstrap,) array
        Of the stimuli as they are, then of each resample. NaN without voxels.
    """
    n, n_voxels = responses.shape
    counts = np.concatenate([np.ones((1, n)), resample_counts(n, n_bootstrap, seed)])
    less, total = np.zeros(n), np.zeros(len(counts))
    for v in voxel_blocks(n_voxels):
        y, p, b = (np.asarray(a[:, v], np.float64) for a in (responses, predictions, baseline))
        less += (np.square(y - b) - np.square(y - p)).sum(axis=1)
        total += _squares(counts, y, y).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(counts @ less / total)


def rank_correlation(sets: Sequence[tuple[NDArray, NDArray]]) -> Estimate:
    """Spearman's correlation over stimuli within each of some sets: the mean of the sets.

    A set of N stimuli weighs N - 3. The interval is that of Bonett & Wright (2000), on Fisher's
    scale with the variance (1 + r² / 2) / sum(N - 3).

    Parameters
    ----------
    sets : sequence of pairs of (N,) arrays
        Of fewer than four stimuli, or where one of the pair is constant, a set does not count.

    Returns
    -------
    Estimate
        NaN where no set counts.
    """
    counted = [(x, y) for x, y in sets if len(x) > _LOST and np.ptp(x) > 0 and np.ptp(y) > 0]
    if not counted:
        return Estimate(np.nan, np.nan, np.nan)
    n = np.array([len(x) - _LOST for x, _ in counted])
    r = float(np.average([stats.spearmanr(x, y).statistic for x, y in counted], weights=n))
    with np.errstate(divide="ignore"):  # of r = 1
        z = np.arctanh(r)
    half = quantile() * np.sqrt((1 + r**2 / 2) / n.sum())
    return Estimate(r, float(np.tanh(z - half)), float(np.tanh(z + half)))


def _squares(counts: NDArray, a: NDArray, b: NDArray, *, clip: bool = True) -> NDArray[np.float64]:
    """Sums of products around the means of each resample: (n_resamples, V)."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)  # lowers rounding error
    n = counts.shape[1]
    sums = counts @ (a * b) - (counts @ a) * (counts @ b) / n
    if clip:
        sums[sums < _TINY * np.square(a).sum(axis=0)] = 0
    return np.asarray(sums)


def estimate(values: NDArray[np.float64]) -> Estimate:
    """values: of the stimuli as they are, then of each resample, as of `r2_gain`."""
    resampled = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(resampled, _TAILS) if len(resampled) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))
