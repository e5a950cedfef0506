"""Is one region, or one tier, more nonlinear than another (Gao et al. 2025, 3.3, 3.4)?

Voxels are the units of every test here. Neighbouring voxels of a real brain are correlated, so
their number overstates the evidence: read each p beside its effect.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

MIN_VOXELS = 3
"""A group with fewer voxels is reported, but not tested."""
_CONFIDENCE = 0.95
_ENDS = ("", "_low", "_high")
_SUMMARY = ["group", "n_voxels", *(f"{name}{end}" for name in ("mean", "median") for end in _ENDS)]


def summary(
    values: NDArray, groups: NDArray, order: Sequence[str], n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Mean and median of each group with percentile bootstrap intervals (95 %) over its voxels.

    Parameters
    ----------
    values : (V,) array
        Without NaN.
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
    DataFrame
        One row per group: group, n_voxels, mean, mean_low, mean_high, median, median_low,
        median_high; the intervals are NaN below MIN_VOXELS voxels.
    """
    rows = []
    for position, group in enumerate(order):
        chosen = values[groups == group]
        row = {"group": group, "n_voxels": len(chosen)}
        for name, statistic in (("mean", np.mean), ("median", np.median)):
            row[name] = statistic(chosen) if len(chosen) else np.nan
            low = high = np.nan
            if len(chosen) >= MIN_VOXELS:
                found = stats.bootstrap(
                    (chosen,),
                    statistic,
                    n_resamples=n_bootstrap,
                    batch=max(1, 2_000_000 // len(chosen)),
                    method="percentile",
                    confidence_level=_CONFIDENCE,
                    rng=np.random.default_rng([seed, position]),
                )
                low, high = found.confidence_interval
            row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows, columns=_SUMMARY)


def pairwise(values: NDArray, groups: NDArray, order: Sequence[str], alpha: float) -> pd.DataFrame:
    """One-sided Mann-Whitney tests of every ordered pair of groups, corrected by Holm's method.

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
    samples = {group: values[groups == group] for group in order}
    tested = [group for group in order if len(samples[group]) >= MIN_VOXELS]
    rows = []
    for greater in tested:
        for lesser in tested:
            if greater != lesser:
                x, y = samples[greater], samples[lesser]
                u, p = stats.mannwhitneyu(x, y, alternative="greater")
                rows.append(
                    {
                        "greater": greater,
                        "lesser": lesser,
                        "superiority": u / (len(x) * len(y)),
                        "p": p,
                    }
                )
    table = pd.DataFrame(rows, columns=["greater", "lesser", "superiority", "p"])
    table["p_holm"] = multipletests(table["p"], method="holm")[1] if len(table) else table["p"]
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
    found = stats.kendalltau(rank, values[chosen], variant="b", alternative="greater")
    return float(found.statistic), float(found.pvalue)


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
    known = np.isfinite(taus)
    if not known.any():
        return np.nan, np.nan
    # A p of exactly 0 or 1 has an infinite z
    bounded = np.clip(ps[known], np.finfo(float).tiny, 1 - np.finfo(float).eps)
    return float(taus[known].mean()), float(
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
