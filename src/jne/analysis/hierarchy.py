"""Is one region, or one tier, more nonlinear than another (Gao et al. 2025, 3.3, 3.4)?

Voxels are the units of every test here. Neighbouring voxels of a real brain are correlated, so
their number overstates the evidence: read each p beside its effect.
"""

from collections.abc import Sequence
from itertools import pairwise as pairs

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from jne.analysis.prediction import holm
from jne.analysis.rank_tests import mann_whitney
from jne.utils.blocks import voxel_blocks

MIN_VOXELS = 3
"""A group with fewer voxels is reported, but not tested."""
_CONFIDENCE = 0.95
_DRAWS_PER_BLOCK = 4_000_000
_ENDS = ("", "_low", "_high")
_SUMMARY = ["group", "n_voxels", *(f"{name}{end}" for name in ("mean", "median") for end in _ENDS)]


def summary(
    values: NDArray, groups: NDArray, order: Sequence[str], n_bootstrap: int, seed: int
) -> list[pd.DataFrame]:
    """Mean and median of each group with percentile bootstrap intervals (95 %) over its voxels.

    All measures share the resamples. A resample counts how often it draws each voxel; its median
    is that of the ranks that it draws.

    Parameters
    ----------
    values : (M, V) array
        Measures, without NaN.
    groups : (V,) array of str
        The group of each voxel.
    order : sequence of str
        The groups to report.
    n_bootstrap : int
        Number of resamples of the voxels.
    seed : int
        Of the resamples.

    Returns
    -------
    list of DataFrame
        For each measure, one row per group: group, n_voxels, mean, mean_low, mean_high, median,
        median_low, median_high; the intervals are NaN below MIN_VOXELS voxels.
    """
    rows: list[list[dict[str, object]]] = [[] for _ in values]
    for position, (group, chosen) in enumerate(zip(order, members(groups, order), strict=True)):
        ordered = np.sort(values[:, chosen], axis=1)
        n = ordered.shape[1]
        low, high = np.full((2, 2, len(values)), np.nan)
        if n >= MIN_VOXELS:
            rng = np.random.default_rng([seed, position])
            means, medians = _resampled(ordered, n_bootstrap, rng)
            tails = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
            low, high = np.quantile([means, medians], tails, axis=2)
        for measure, sample in enumerate(ordered):
            row: dict[str, object] = {"group": group, "n_voxels": n}
            averages = {
                "mean": sample.mean() if n else np.nan,
                "median": np.median(sample) if n else np.nan,
            }
            for k, (name, value) in enumerate(averages.items()):
                row[name] = value
                row |= {f"{name}_low": low[k, measure], f"{name}_high": high[k, measure]}
            rows[measure].append(row)
    return [pd.DataFrame(of_measure, columns=_SUMMARY) for of_measure in rows]


def _resampled(
    ordered: NDArray, n_bootstrap: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and medians of resamples of sorted values (M, n), (M, n_bootstrap) each."""
    n = ordered.shape[1]
    means, medians = np.empty((2, len(ordered), n_bootstrap))
    for rows in voxel_blocks(n_bootstrap, max(1, _DRAWS_PER_BLOCK // n)):
        draws = rng.integers(0, n, (rows.stop - rows.start, n))
        offset = n * np.arange(len(draws))[:, None]
        counts = np.bincount((draws + offset).ravel(), minlength=draws.size).reshape(draws.shape)
        means[:, rows] = ordered @ counts.T.astype(np.float64) / n
        middle = [(n - 1) // 2, n // 2]
        ranks = np.partition(draws, middle, axis=1)[:, middle]
        medians[:, rows] = ordered[:, ranks].mean(axis=2)
    return means, medians


def members(groups: NDArray, order: Sequence[str]) -> list[NDArray[np.int64]]:
    """The positions of the voxels of each group. groups: (V,) names."""
    number = {name: k for k, name in enumerate(order)}
    numbers = np.array([number.get(name, len(order)) for name in groups.tolist()], dtype=np.int64)
    starts = np.searchsorted(np.sort(numbers), np.arange(len(order) + 1))
    positions = np.argsort(numbers, kind="stable")
    return [positions[start:end] for start, end in pairs(starts)]


def pairwise(values: NDArray, groups: NDArray, order: Sequence[str], alpha: float) -> pd.DataFrame:
    """One-sided Mann-Whitney tests of every ordered pair of groups, corrected by Holm's method.

    The p is that of scipy's `mannwhitneyu(greater, lesser, alternative="greater")`: exact where a
    group has at most 8 voxels and no value is tied, else of the normal approximation. All pairs are
    computed together, which for hundreds of groups is hundreds of times faster.

    Parameters
    ----------
    values : (V,) array
        Without NaN.
    groups : (V,) array of str
        The group of each voxel.
    order : sequence of str
        The groups to test. Those below MIN_VOXELS voxels are left out.
    alpha : float
        Level of significance.

    Returns
    -------
    DataFrame
        One row per pair: greater, lesser, superiority (the share of voxel pairs in which `greater`
        has the larger value, ties counting half), p, p_holm, significant (p_holm < alpha).
    """
    parts = zip(order, members(groups, order), strict=True)
    samples = {name: np.sort(values[chosen]) for name, chosen in parts if len(chosen) >= MIN_VOXELS}
    names = list(samples)
    u, p = mann_whitney(list(samples.values()))
    size = np.array([len(sample) for sample in samples.values()], dtype=np.float64)
    first, second = np.nonzero(~np.eye(len(names), dtype=bool))
    table = pd.DataFrame(
        {
            "greater": np.array(names, dtype=object)[first],
            "lesser": np.array(names, dtype=object)[second],
            "superiority": (u / np.outer(size, size))[first, second],
            "p": p[first, second],
        }
    )
    table["p_holm"] = holm(table["p"].to_numpy())
    table["significant"] = table["p_holm"] < alpha
    return table


def trend(values: NDArray, tiers: NDArray, order: Sequence[str]) -> tuple[float, float]:
    """Kendall's tau-b of the values with the rank of their tier, and its one-sided p.

    A rank test against an ordered alternative, like that of Jonckheere and Terpstra: tau > 0
    where values rise from tier to tier.

    Parameters
    ----------
    values : (V,) array
        Without NaN.
    tiers : (V,) array of str
        The tier of each voxel; those not in `order` are left out.
    order : sequence of str
        The tiers, lowest first.

    Returns
    -------
    tau, p : float
        NaN with fewer than two tiers of MIN_VOXELS voxels.
    """
    counts = [int((tiers == tier).sum()) for tier in order]
    kept = [tier for tier, count in zip(order, counts, strict=True) if count >= MIN_VOXELS]
    if len(kept) < 2:
        return np.nan, np.nan
    chosen = np.isin(tiers, kept)
    rank = np.array([kept.index(tier) for tier in tiers[chosen]])
    test = stats.kendalltau(rank, values[chosen], variant="b", alternative="greater")
    return float(test.statistic), float(test.pvalue)


def combined_trend(taus: NDArray, ps: NDArray) -> tuple[float, float]:
    """Mean tau of several subjects, and Stouffer's combination of their one-sided p.

    Parameters
    ----------
    taus, ps : (n_subjects,) array
        As `trend` returns them, NaN for a subject without a trend.

    Returns
    -------
    tau, p : float
        NaN if no subject has a trend.
    """
    finite = np.isfinite(taus)
    if not finite.any():
        return np.nan, np.nan
    # A p of exactly 0 or 1 has an infinite z
    bounded = np.clip(ps[finite], np.finfo(float).tiny, 1 - np.finfo(float).eps)
    return float(taus[finite].mean()), float(
        stats.combine_pvalues(bounded, method="stouffer").pvalue
    )


def paired_difference(first: NDArray, second: NDArray) -> tuple[float, float]:
    """Mean of second - first over voxels, and the two-sided p of Wilcoxon's signed-rank test.

    Parameters
    ----------
    first, second : (V,) array
        Without NaN.

    Returns
    -------
    difference, p : float
        p is NaN below MIN_VOXELS voxels, 1 where nothing differs.
    """
    difference = second - first
    if len(difference) < MIN_VOXELS:
        return (float(difference.mean()) if len(difference) else np.nan), np.nan
    if not difference.any():
        return 0.0, 1.0
    return float(difference.mean()), float(stats.wilcoxon(difference).pvalue)
