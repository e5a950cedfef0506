"""Contrasts of the shares of sets of voxels: a difference of two regions, a trend over tiers.

Their errors are those over stimuli, K sets.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95


class Contrast(NamedTuple):
    """A weighted sum of the shares of sets."""

    value: float
    low: float
    high: float
    """The ends of the 95 % interval."""
    p: float
    """Two-sided, of its being 0."""


def contrast(value: float, error: float, degrees: float = np.inf) -> Contrast:
    """error: its standard error, of so many degrees of freedom."""
    half = quantile(degrees) * error
    p = float(2 * stats.t.sf(abs(value), degrees, scale=error))
    return Contrast(value, value - half, value + half, p)


def quantile(degrees: float = np.inf) -> float:
    """Standard errors from an estimate to the ends of its 95 % interval, by Student's t."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def difference(first: int, second: int, n_sets: int) -> NDArray[np.float64]:
    """The weights (K,) of one set minus another."""
    weights = np.eye(n_sets)
    return weights[first] - weights[second]


def slope(x: NDArray) -> NDArray[np.float64]:
    """The weights (K,) of the least-squares slope on x (K,), such as the ranks of tiers."""
    centred = x - x.mean()
    return np.asarray(centred / np.square(centred).sum())
