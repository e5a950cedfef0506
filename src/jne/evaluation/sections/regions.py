"""What is measured of whole regions, over stimuli: their tables, steps and sentences.

A measure has three columns: NAME, NAME_low and NAME_high, the ends of its 95 % interval.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.contrast import Contrast, difference, quantile, slope
from jne.analysis.random_effects import random_effects_mean
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.sections.base import ALL_SUBJECTS, p_text
from jne.evaluation.voxels import SubjectData
from jne.roi import TIERS

Regions = dict[tuple[str, str], list[str]]
"""By level (brain, roi, tier) and name, the ROIs that a region is made of."""

STEP_HEADINGS: Mapping[str, str] = {
    "lower": "from",
    "upper": "to tier",
    "difference_low": "95 % from",
    "difference_high": "to",
    "slope": "slope per tier",
    "slope_low": "95 % from",
    "slope_high": "to",
    "n_subjects": "subjects",
    "n_clear": "of them clearly above 0",
}


class Sums(Protocol):
    """The sums of regions: ShareSums, EvidenceSums."""

    def contrast(self, weights: NDArray, /) -> Contrast: ...


class Measured(Protocol):
    """What is measured of ROIs: RegionShares, RegionEvidence."""

    def unions(self, regions: Mapping[str, Sequence[str]], /) -> Sums: ...
    def table(self, regions: Mapping[str, Sequence[str]], /) -> pd.DataFrame: ...


def ends(name: str) -> tuple[str, str, str]:
    """The columns of a measure."""
    return name, f"{name}_low", f"{name}_high"


def regions_of(data: SubjectData, whole: list[str]) -> Regions:
    """The whole brain, each reported ROI and each tier. whole: what the brain is made of."""
    regions = {("brain", WHOLE_BRAIN): whole}
    regions |= {("roi", roi): [roi] for roi in data.rois}
    tier = data.voxels.drop_duplicates("roi").set_index("roi")["tier"]
    for name in TIERS:
        members = [roi for roi in data.rois if tier[roi] == name]
        if members:
            regions["tier", name] = members
    return regions


def measured_table(measured: Measured, regions: Regions) -> pd.DataFrame:
    """A row per region, with its level and name as index."""
    table = measured.table({f"{level} {name}": rois for (level, name), rois in regions.items()})
    return table.set_axis(pd.MultiIndex.from_tuples(list(regions), names=["level", "group"]))


def steps(measured: Measured, regions: Regions, table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Differences between consecutive tiers that have the measure `name` in the table."""
    tiers, sums = _tiers(measured, regions, table, name)
    differences = [
        (*pair, *sums.contrast(difference(k + 1, k, len(tiers)))[:3])
        for k, pair in enumerate(pairwise(tiers))
    ]
    columns = ends("difference")
    content = pd.DataFrame(differences, columns=["lower", "upper", *columns])
    return content.astype(dict.fromkeys(columns, float))


def trend(measured: Measured, regions: Regions, table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The slope of the measure `name` on the rank of the tier, where all tiers have it."""
    tiers, sums = _tiers(measured, regions, table, name)
    slopes = []
    if len(tiers) == len(TIERS):
        weights = slope(np.arange(len(tiers)))
        slopes.append((f"{tiers[0]} to {tiers[-1]}", *sums.contrast(weights)))
    columns = [*ends("slope"), "p"]
    content = pd.DataFrame(slopes, columns=["tiers", *columns])
    return content.astype(dict.fromkeys(columns, float))


def _tiers(
    measured: Measured, regions: Regions, table: pd.DataFrame, name: str
) -> tuple[list[str], Sums]:
    """The tiers that have the measure, and their sums."""
    tiers = list(rows(table, "tier", name)["group"])
    return tiers, measured.unions({tier: regions["tier", tier] for tier in tiers})


def rows(table: pd.DataFrame, level: str, name: str) -> pd.DataFrame:
    """The groups of a level that have the measure."""
    return table[(table["level"] == level) & table[name].notna()]


def over_subjects(table: pd.DataFrame, keys: list[str], name: str) -> pd.DataFrame:
    """The mean over subjects of each group (`subjects_mean`).

    `n_clear`: in how many subjects the measure is above 0 by its own interval.
    """
    content = []
    for key, each in table.dropna(subset=name).groupby(keys, sort=False):
        row: dict[str, object] = dict(zip(keys, key, strict=True))
        if "n_voxels" in each:
            row["n_voxels"] = int(each["n_voxels"].sum())
        row |= {"n_subjects": len(each), "n_clear": int((each[f"{name}_low"] > 0).sum())}
        content.append(row | subjects_mean(each, name))
    return pd.DataFrame(content)


def subjects_mean(each: pd.DataFrame, name: str) -> dict[str, float]:
    """The random-effects mean of a measure with its interval, by the names of its columns.

    each: a row per subject. The error of each is taken from the width of its interval.
    """
    values, low, high = each[list(ends(name))].dropna().to_numpy(dtype=np.float64).T
    mean = random_effects_mean(values, (high - low) / (2 * quantile()))
    return dict(zip(ends(name), mean, strict=True))


def _whole_percent(value: float) -> str:
    """In percent, without the sign of a zero."""
    text = f"{100 * value:.0f}"
    return "0" if text == "-0" else text


def percent(row: pd.Series, name: str) -> str:
    """A measure with its interval, for a sentence."""
    share, low, high = (_whole_percent(row[column]) for column in ends(name))
    return f"{share} % [{low}, {high}]"


def range_of_rois(table: pd.DataFrame, name: str) -> str:
    """From the lowest to the highest ROI, for the end of a sentence; empty for fewer than two."""
    rois = rows(table, "roi", name)
    if len(rois) < 2:
        return ""
    order = rois[name].to_numpy().argsort()
    low, high = rois.iloc[order[0]], rois.iloc[order[-1]]
    return f": from {percent(low, name)} in {low.group} to {percent(high, name)} in {high.group}"


def rise(table: pd.DataFrame, trends: pd.DataFrame, what: str) -> list[str]:
    """Whether `what` rises from tier to tier, by the intervals of the differences, and its slope.

    table: of `steps`. trends: of `trend`.
    """
    if table.empty:
        return []
    clauses: dict[str, list[str]] = {}
    for _, row in table.iterrows():
        difference, low, high = (float(row[name]) for name in ends("difference"))
        verb, by = "does not clearly change", "({})"
        if low > 0 or high < 0:
            verb, by = "rises" if difference > 0 else "falls", "by {}"
        points = (
            f"{_whole_percent(difference)} percentage points "
            f"[{_whole_percent(low)}, {_whole_percent(high)}]"
        )
        clauses.setdefault(verb, []).append(
            f"from {row['lower']} to {row['upper']} {by.format(points)}"
        )
    changes = [f"{verb} {' and '.join(where)}" for verb, where in clauses.items()]
    slopes = [
        f"; its slope is {_whole_percent(row['slope'])} percentage points per tier "
        f"[{_whole_percent(row['slope_low'])}, {_whole_percent(row['slope_high'])}] "
        f"({p_text(row['p'])})"
        for _, row in trends.iterrows()
    ]
    return [f"{what} {', and '.join(changes)}{''.join(slopes)}."]


def clear_rises(table: pd.DataFrame) -> str:
    """In how many subjects each step is clear, for the end of a sentence over all of them."""
    each = table[table["subject"] != ALL_SUBJECTS]
    counts = [
        f"from {lower} to {upper} in {(rows['difference_low'] > 0).sum()} of {len(rows)}"
        for (lower, upper), rows in each.groupby(["lower", "upper"], sort=False)
    ]
    return f"; it rises clearly {', '.join(counts)}" if counts else ""
