"""Do maps of different subjects agree, within and between data sets?

S subjects, R regions that they share by name, such as the areas of HCP_MMP1. A profile is one value
per region, NaN where a subject has none. Only ranks count: data sets and encoders differ in the
level and the scale of JNE. Regions are the units, and neighbouring regions are alike, so no p is
given for a single correlation.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MIN_REGIONS = 5
"""Two profiles with fewer regions in common are not compared."""


def rank_correlation(first: NDArray, second: NDArray) -> float:
    """Spearman's correlation over the regions that are finite in both profiles (R,).

    NaN below MIN_REGIONS such regions, or where either is constant over them.
    """
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    if len(x) < MIN_REGIONS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def mean_rank(profiles: NDArray) -> NDArray[np.float64]:
    """The mean over subjects of each region's rank, from 0 (lowest) to 1 (highest): (R,).

    profiles: (S, R). Each subject's regions are ranked among those that it has; NaN where no
    subject has the region, and for a subject with a single region.
    """
    ranks = np.full(profiles.shape, np.nan)
    for subject, values in enumerate(profiles):
        finite = np.isfinite(values)
        if finite.sum() > 1:
            ranks[subject, finite] = (stats.rankdata(values[finite]) - 1) / (finite.sum() - 1)
    return _mean(ranks)


def _mean(ranks: NDArray) -> NDArray[np.float64]:
    """The mean (R,) of ranks (S, R), NaN left out; NaN where there is no other."""
    some = np.isfinite(ranks)
    total, count = np.where(some, ranks, 0).sum(axis=0), some.sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def leave_one_out(
    profiles: NDArray, groups: Sequence[str]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each group: the mean ranks (R,) of its own subjects, and those of all other subjects.

    profiles: (S, R). groups: the group of each subject, of which there are at least two. The mean
    over the others is one over groups, so that a group with many subjects does not outweigh others.
    """
    names = list(dict.fromkeys(groups))
    own = {name: mean_rank(profiles[[group == name for group in groups]]) for name in names}
    return {
        name: (own[name], _mean(np.stack([own[other] for other in names if other != name])))
        for name in names
    }
