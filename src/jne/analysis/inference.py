"""The interval of a share of voxels, and rank correlation with covariates held constant."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats


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
