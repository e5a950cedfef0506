"""Is a voxel nonlinear? Its JNE against that of its linear twin (docs/inference.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.analysis import hierarchy, inference
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.columns import label
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables, by_group, first_names
from jne.evaluation.sections.regions import holm
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.plots.panels import name_groups, violins
from jne.plots.style import COLOURS, OTHER_COLOUR, subplots
from jne.roi import TIERS

_MEASURES = ("jne", "w")
_MAX_NAMED = 4  # regions in a sentence
_NO_NULL = (
    "JNE has no null in this run: python train.py tests it on unseen responses, and "
    "python train.py control=twins by linear twins."
)


class Nonlinear(Section):
    title = "Other nulls: linear twins"
    docs = "inference.md"
    captions: Mapping[str, str] = {
        "nonlinear": "W of the analysed voxels (line: median), and the share of voxels that are "
        "nonlinear, with Wilson's 95 % interval.",
    }
    regional: Mapping[str, int] = {"nonlinear": MAX_SHOWN}
    headings: Mapping[str, str] = {
        "n_nonlinear": "nonlinear",
        "share_low": "95 % from",
        "share_high": "to",
        "median_w": "median W",
        "tau": "Kendall's tau with the tier",
        "partial_r": "partial rank r with the tier",
        "p": "p over voxels",
        "partial_p": "p of partial r, over voxels",
    }

    def tables(self, data: SubjectData) -> Tables:
        if data.subject.twins is None:
            return {}
        return {"nonlinear": _by_group(data), "nonlinear_trend": _trend(data)}

    def across_subjects(self, tables: Tables) -> Tables:
        if "nonlinear" not in tables:
            return {}
        rows = []
        for (level, group), table in tables["nonlinear"].groupby(["level", "group"], sort=False):
            counts = {name: int(table[name].sum()) for name in ("n_voxels", "n_nonlinear")}
            rows.append({"level": level, "group": group, **counts, **_share(*counts.values())})
        return {"nonlinear": pd.DataFrame(rows)}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        regions = tables["nonlinear"].replace({"level": {"roi": "ROI"}})
        trend = tables["nonlinear_trend"].dropna(subset="tau")
        trend = trend.assign(measure=trend["measure"].map(label))
        titled = {"Nonlinear voxels by region": regions, "Rise from tier to tier": trend}
        return {title: table for title, table in titled.items() if len(table)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        sentences = [
            "W is the JNE of a voxel minus that of its linear twin, a surrogate voxel that is "
            "linear, as predictable and as noisy, by one encoder trained on both. Nonlinear: at a "
            f"false discovery rate of {data.rate} (knockoff+) among the voxels of the row. "
            "p: of W > 0 (Wilcoxon, one-sided)."
        ]
        if tables["nonlinear_trend"]["tau"].notna().any():
            given = " and ".join(_covariates(data).values())
            sentences.append(
                f"Partial r: Spearman's correlation with the tier given {given}, two-sided p."
            )
        return " ".join(sentences)

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"nonlinear": _figure(data, tables["nonlinear"])} if tables else {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return [] if data.evidence is not None else [_NO_NULL]
        table = tables["nonlinear"]
        whole, rois = table.iloc[0], table.query("level == 'roi' and n_voxels > 0")
        clauses = [
            f"{whole.n_nonlinear} of {whole.n_voxels} voxels are nonlinear by their twins at a "
            f"false discovery rate of {data.rate}"
        ]
        if whole.n_nonlinear and len(rois) > 1:
            for which, share in ("highest", rois["share"].max()), ("lowest", rois["share"].min()):
                named = first_names(list(rois.loc[rois["share"] == share, "group"]), _MAX_NAMED)
                clauses.append(f"their share is {which} in {named} ({100 * share:.0f} %)")
        return ["; ".join(clauses) + "."]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if "nonlinear" not in tables:
            return []
        rows = tables["nonlinear"]
        whole = rows[(rows["subject"] == ALL_SUBJECTS) & (rows["level"] == "brain")]
        return [
            f"All subjects: {row.n_nonlinear} of {row.n_voxels} voxels are nonlinear by "
            "their twins."
            for row in whole.itertuples()
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if "nonlinear" not in tables:
            return {}
        whole = tables["nonlinear"].query("level == 'brain'")
        return dict(zip("nonlinear_voxels/" + whole["subject"], whole["share"], strict=True))

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if "nonlinear" not in tables:
            return []
        return [
            "A voxel that is not called nonlinear may be nonlinear: the test finds what the "
            "encoder has learned, and that learns little from few stimuli or noisy responses.",
            "Every p and the intervals of shares treat voxels as independent: p are too small.",
        ]


def _tested(data: SubjectData) -> pd.DataFrame:
    return data.analysed[data.analysed["w"].notna()]


def _by_group(data: SubjectData) -> pd.DataFrame:
    rows = []
    for level, group, voxels in by_group(data, _tested(data)):
        n, n_nonlinear, w = len(voxels), data.n_nonlinear(voxels), voxels["w"].to_numpy()
        rows.append(
            {
                "level": level,
                "group": group,
                "n_voxels": n,
                "n_nonlinear": n_nonlinear,
                **_share(n, n_nonlinear),
                "median_w": np.median(w) if n else np.nan,
                "p": inference.signed_rank_test(w),
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("level")["p"].transform(holm)
    return table


def _share(n: int, n_nonlinear: int) -> dict[str, float]:
    ends = ("share", "share_low", "share_high")
    return dict(zip(ends, inference.share_interval(n_nonlinear, n), strict=True))


def _trend(data: SubjectData) -> pd.DataFrame:
    """Do JNE and W rise from tier to tier, also beyond what noise ceiling and R² explain?"""
    voxels = _tested(data)
    voxels = voxels[voxels["roi"].isin(data.rois)]
    tiers = voxels["tier"].to_numpy()
    order = [tier for tier in TIERS if tier in tiers]
    ranked = voxels[voxels["tier"].isin(order)]
    given = [ranked[name].to_numpy() for name in _covariates(data)]
    rows = []
    for measure in _MEASURES:
        tau, p = hierarchy.trend(voxels[measure].to_numpy(), tiers, order)
        r, partial_p = np.nan, np.nan
        if np.isfinite(tau):
            rank: NDArray = ranked["tier"].map(order.index).to_numpy()
            r, partial_p = inference.partial_rank_correlation(
                rank, ranked[measure].to_numpy(), given
            )
        rows.append(
            {
                "measure": measure,
                "n_voxels": len(ranked),
                "tau": tau,
                "p": p,
                "partial_r": r,
                "partial_p": partial_p,
            }
        )
    return pd.DataFrame(rows)


def _covariates(data: SubjectData) -> dict[str, str]:
    """What the partial correlations hold constant: columns of the voxel table with their names."""
    covariates = {"noise_ceiling": "the noise ceiling"} if "noise_ceiling" in data.voxels else {}
    return covariates | {"r2_nonlinear": "R²"}


def _figure(data: SubjectData, table: pd.DataFrame) -> Figure:
    names = data.shown_rois or [WHOLE_BRAIN]
    level = "roi" if data.rois else "brain"
    groups = {
        name: voxels["w"] for kind, name, voxels in by_group(data, _tested(data)) if kind == level
    }
    rows = table[table["level"] == level].set_index("group").loc[names]
    width = max(4.2, 1.2 + 0.42 * len(names))  # room for the title
    figure, (above, below) = subplots(
        2, 1, figsize=(width, 4.0), sharex=True, layout="constrained", height_ratios=[1.4, 1]
    )
    violins(above, [groups[name] for name in names], names)
    above.set_ylim(auto=True)
    above.relim()
    above.autoscale_view()
    above.axhline(0, color="#999999", lw=0.7, zorder=0)
    above.set(ylabel="W", title="JNE minus that of the linear twin (line: median)")
    share = rows["share"].to_numpy()
    ends = np.array([share - rows["share_low"], rows["share_high"] - share])
    colours = [COLOURS.get(name, OTHER_COLOUR) for name in names]
    below.bar(range(len(names)), share, 0.7, color=colours, alpha=0.6)
    below.errorbar(range(len(names)), share, np.maximum(ends, 0), fmt="none", color="black", lw=0.8)
    below.set(ylim=(0, 1), ylabel="share nonlinear", title=f"false discovery rate {data.rate}")
    name_groups(below, data.shown_rois or [""])
    return figure
