"""How good a measure of nonlinearity is, from its values on voxels of known nonlinear share.

A table of voxels has alpha, the known share; noise_ceiling; and of a measure value, p and q, NaN
where it has none (`jne.simulation.candidates.Measured`).
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

SMALL_P, RATE = 0.05, 0.1
SHARES = ("validated_share", "nonlinear_share")
"""Measures whose value is an estimate of alpha."""

HIGH_IS_GOOD = ("detected", "auc", "spearman", "defined", "seed", "sample")
DECIDING = ("small_p", "detected", "spearman", "ceiling", "noise", "seconds")
"""Calibration, power, freedom from noise and cost."""


def of_cohort(voxels: pd.DataFrame, measure: str) -> dict[str, float]:
    """Scores of a measure in one cohort, NaN where it has none.

    small_p   share of linear voxels with p < .05; .05 is right
    false     share of linear voxels among those with q <= .1; at most .1 is right
    detected  share of nonlinear voxels with q <= .1
    auc       probability that a nonlinear voxel has more than a linear one of its noise ceiling
    spearman  of alpha and value at equal noise ceiling, mean over ceilings
    ceiling   Spearman's r of noise ceiling and value at equal alpha, mean over alphas; 0 is right
    error     of a share: mean over cells of alpha and ceiling, abs(mean value - alpha)
    defined   share of voxels with a value
    """
    linear, finite = voxels["alpha"] == 0, np.isfinite(voxels["value"])
    good = voxels[finite]
    discovery = voxels["q"] <= RATE
    scores = {"defined": float(finite.mean())}
    if voxels["p"].notna().any():
        scores["small_p"] = float((voxels.loc[linear & voxels["p"].notna(), "p"] < SMALL_P).mean())
    if voxels["q"].notna().any():
        scores["detected"] = float(discovery[~linear].mean())
        scores["false"] = float(linear[discovery].mean()) if discovery.any() else 0.0
    by_ceiling = [cell for _, cell in good.groupby("noise_ceiling")]
    scores["auc"] = _mean(map(_auc, by_ceiling))
    scores["spearman"] = _mean(_spearman(cell["alpha"], cell["value"]) for cell in by_ceiling)
    scores["ceiling"] = _mean(
        _spearman(cell["noise_ceiling"], cell["value"]) for _, cell in good.groupby("alpha")
    )
    if measure in SHARES:
        mean = good.groupby(["alpha", "noise_ceiling"])["value"].mean()
        alpha = mean.index.get_level_values("alpha")
        scores["error"] = float(np.abs(mean.to_numpy() - alpha.to_numpy()).mean())
    return scores


def ratio(voxels: pd.DataFrame, other: pd.DataFrame) -> float:
    """Median value of the nonlinear voxels of another cohort, over that of this one."""
    medians = [table.loc[table["alpha"] > 0, "value"].median() for table in (voxels, other)]
    return float(medians[1] / medians[0]) if medians[0] else np.nan


def repeatability(voxels: pd.DataFrame, other: pd.DataFrame) -> float:
    """Spearman's r at equal noise ceiling of the values of the same voxels, mean over ceilings."""
    pairs = voxels.assign(other=other["value"].to_numpy()).dropna(subset=["value", "other"])
    return _mean(_spearman(c["value"], c["other"]) for _, c in pairs.groupby("noise_ceiling"))


def fold(ratios: pd.Series) -> float:
    """The largest factor, up or down, in ratios; infinite where a sign changes, NaN without any."""
    ratios = ratios.dropna()
    if ratios.empty:
        return np.nan
    if (ratios <= 0).any():
        return np.inf
    return float(np.exp2(np.abs(np.log2(ratios)).max()))


def overview(table: pd.DataFrame, varied: Iterable[str]) -> pd.DataFrame:
    """A row per measure, a column per score.

    Means over all worlds and structures of noise; then `noise` and each of the keys that were
    `varied`, the largest factor by which the median value of nonlinear voxels changes with it (of
    `noise`, the mean over worlds); of `seed` and `sample`, the repeatability; CPU seconds.

    table: measure, world, noise, setting, score, value.
    """
    base = table[table["setting"] == "default"]
    wide = base.pivot_table(index="measure", columns="score", values="value", sort=False)
    names = ("small_p", "false", "detected", "auc", "spearman", "ceiling", "error", "defined")
    result = wide.reindex(columns=names)
    of_noise = base[base["score"] == "noise_ratio"].groupby(["measure", "world"], sort=False)
    result["noise"] = of_noise["value"].agg(fold).groupby("measure").mean()
    for key in varied:
        levels = table[table["setting"].str.startswith(f"{key}=")]
        if key in ("seed", "sample"):
            chosen = levels[levels["score"] == "repeatability"].groupby("measure")["value"].mean()
        else:
            chosen = levels[levels["score"] == "ratio"].groupby("measure")["value"].agg(fold)
        result[key] = chosen
    seconds = base[base["score"] == "seconds"].groupby("measure")["value"].median()
    result["seconds"] = seconds
    return result


def dominated(summary: pd.DataFrame) -> dict[str, list[str]]:
    """By measure, those that are as good in all of DECIDING, and better in one.

    summary: as `overview` returns it. A score that a measure does not have is its worst.
    """
    worse = pd.DataFrame({name: _worse(summary[name]) for name in DECIDING}).fillna(np.inf)
    result = {}
    for measure, row in worse.iterrows():
        better = worse[(worse <= row).all(axis=1) & (worse < row).any(axis=1)]
        if len(better):
            result[str(measure)] = [str(name) for name in better.index]
    return result


def badness(summary: pd.DataFrame) -> pd.DataFrame:
    """Ranks of measures in each score, from 0, the best, to 1; NaN where there is no score."""
    worse = pd.DataFrame({name: _worse(summary[name]) for name in summary})
    ranks = worse.rank(method="min") - 1
    return ranks.div(ranks.max().clip(lower=1))


def _worse(values: pd.Series) -> pd.Series:
    """Scores so that they grow as they get worse."""
    name = str(values.name)
    if name == "small_p":
        return (values - SMALL_P).abs()
    if name == "ceiling":
        return values.abs()
    return -values if name in HIGH_IS_GOOD else values


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan


def _spearman(x: pd.Series, y: pd.Series) -> float:
    if len(x) < 3 or x.nunique() < 2 or y.nunique() < 2:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def _auc(cell: pd.DataFrame) -> float:
    linear = cell["alpha"] == 0
    more, less = cell.loc[~linear, "value"], cell.loc[linear, "value"]
    if more.empty or less.empty:
        return np.nan
    return float(stats.mannwhitneyu(more, less).statistic / (len(more) * len(less)))
