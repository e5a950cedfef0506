"""Is a voxel nonlinear? Tests of W, the JNE of a voxel minus that of its linear twin.

If the voxel is linear, it and its twin are exchangeable, so W is as likely -w as w. From this sign
alone come a false discovery rate over voxels (Barber & Candes 2015, https://arxiv.org/abs/1404.5609)
and tests of whole regions. Voxels without a twin have W = NaN and enter no test. docs/inference.md
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.hierarchy import MIN_VOXELS


def knockoff_w(jne: NDArray, twins: NDArray) -> NDArray[np.float64]:
    """The statistic whose sign `knockoff_q` counts. For one twin, W = JNE - JNE of the twin.

    For several (Gimenez & Zou 2019, https://arxiv.org/abs/1810.11378) its size is the largest JNE,
    of the voxel and its twins, minus the median of the others; it is positive where the voxel has
    the largest, negative where a twin has, 0 where they share it.

    Parameters
    ----------
    jne : (V,) array
        JNE of each voxel, in the encoder that was trained with the twins.
    twins : (n_twins, V) array
        JNE of its twins.

    Returns
    -------
    (V,) array of float64
        NaN where any of them is NaN.
    """
    everyone = np.concatenate([jne[None], twins]).astype(np.float64)
    ordered = np.sort(everyone, axis=0)
    size = ordered[-1] - np.median(ordered[:-1], axis=0)
    return size * np.sign(jne - np.max(twins, axis=0))


def knockoff_threshold(w: NDArray, rate: float, n_twins: int = 1) -> float:
    r"""The knockoff+ threshold of Barber & Candès 2015.

    .. math:: \min \left\{ t > 0: \frac{1 + \#\{v: W_v \le -t\}}
              {n_\mathrm{twins}\, \#\{v: W_v \ge t\}} \le \mathrm{rate} \right\}

    The voxels with W >= t have a false discovery rate of at most `rate`.

    Parameters
    ----------
    w : (V,) array
        As `knockoff_w` returns it; NaN enters no count.
    rate : float
        The false discovery rate.
    n_twins : int
        Twins per voxel.

    Returns
    -------
    float
        Infinite where there is no such t.
    """
    thresholds, ratios = _ratios(w, n_twins)
    low_enough = thresholds[ratios <= rate]
    return float(low_enough[0]) if len(low_enough) else np.inf


def knockoff_q(w: NDArray, n_twins: int = 1) -> NDArray[np.float64]:
    """The smallest rate at which `knockoff_threshold` finds each voxel.

    Parameters
    ----------
    w : (V,) array
        As `knockoff_w` returns it.
    n_twins : int
        Twins per voxel.

    Returns
    -------
    (V,) array of float64
        1 where no rate below 1 finds the voxel, NaN where W is.
    """
    thresholds, ratios = _ratios(w, n_twins)
    q = np.where(np.isfinite(w), 1.0, np.nan)
    positive = w > 0
    lowest = np.minimum.accumulate(ratios)  # over all thresholds at which a voxel is found
    q[positive] = np.minimum(lowest[np.searchsorted(thresholds, w[positive])], 1)
    return q


def _ratios(w: NDArray, n_twins: int) -> tuple[NDArray, NDArray]:
    """The candidate thresholds, ascending, and the estimated false discovery rate at each."""
    ordered = np.sort(w[np.isfinite(w)])
    thresholds = np.unique(np.abs(ordered[ordered != 0]))
    discoveries = len(ordered) - np.searchsorted(ordered, thresholds)
    opposite = np.searchsorted(ordered, -thresholds, side="right")
    return thresholds, (1 + opposite) / (n_twins * np.maximum(discoveries, 1))


def sign_test(w: NDArray) -> float:
    """p of W > 0 more often than not, one-sided. Exact for any sample size.

    Parameters
    ----------
    w : (V,) array
        Zeros and NaN do not count.

    Returns
    -------
    float
        NaN below MIN_VOXELS voxels, 1 where W is 0 everywhere.
    """
    w = w[np.isfinite(w)]
    n = int(np.count_nonzero(w))
    if len(w) < MIN_VOXELS:
        return np.nan
    return float(stats.binomtest(int((w > 0).sum()), n, alternative="greater").pvalue) if n else 1.0


def signed_rank_test(w: NDArray) -> float:
    """p of W > 0 by Wilcoxon's signed-rank test, one-sided.

    Parameters
    ----------
    w : (V,) array
        NaN does not count.

    Returns
    -------
    float
        NaN below MIN_VOXELS voxels, 1 where W is 0 everywhere.
    """
    w = w[np.isfinite(w)]
    if len(w) < MIN_VOXELS:
        return np.nan
    return float(stats.wilcoxon(w, alternative="greater").pvalue) if w.any() else 1.0


def share_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """A share, and Wilson's interval for it.

    Parameters
    ----------
    count, n : int
        The share is count / n.
    confidence : float
        Of the interval.

    Returns
    -------
    share, low, high : float
        All NaN where n is 0.
    """
    if not n:
        return np.nan, np.nan, np.nan
    low, high = stats.binomtest(count, n).proportion_ci(confidence, method="wilson")
    return count / n, float(low), float(high)


def partial_rank_correlation(
    x: NDArray, y: NDArray, given: Sequence[NDArray]
) -> tuple[float, float]:
    """Spearman's correlation of x and y with covariates held constant, and its two-sided p.

    Pearson's r of what the ranks of the covariates leave of the ranks of x and y. Voxels where any
    value is not finite are left out.

    Parameters
    ----------
    x, y : (V,) array
    given : sequence of (V,) arrays
        The covariates.

    Returns
    -------
    r, p : float
        NaN where fewer than 3 voxels beyond the covariates are left, or where the covariates leave
        nothing.
    """
    columns = np.stack([x, y, *given]).astype(np.float64)
    columns = columns[:, np.isfinite(columns).all(axis=0)]
    degrees = columns.shape[1] - 2 - len(given)
    if degrees < 1:
        return np.nan, np.nan
    ranks = stats.rankdata(columns, axis=1)
    design = np.vstack([np.ones(ranks.shape[1]), ranks[2:]]).T
    residuals = ranks[:2].T - design @ np.linalg.lstsq(design, ranks[:2].T, rcond=None)[0]
    norms = np.linalg.norm(residuals, axis=0)
    if (norms < 1e-9 * np.linalg.norm(ranks[:2], axis=1)).any():
        return np.nan, np.nan
    r = float(np.clip(residuals[:, 0] @ residuals[:, 1] / norms.prod(), -1, 1))
    with np.errstate(over="ignore"):  # t of a perfect correlation is infinite, its p 0
        t = r * np.sqrt(degrees / max(1 - r**2, np.finfo(float).tiny))
    return r, float(2 * stats.t.sf(abs(t), degrees))
