"""JNE by region and tier: does it rise up the visual hierarchy?"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.analysis import hierarchy
from jne.columns import label
from jne.evaluation.claims import of_regions, unclaimed, unclaimed_across
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables, first_names, p_text
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.plots.panels import name_groups
from jne.plots.regions import draw_groups
from jne.plots.style import short, subplots
from jne.roi import TIERS

_N_RESAMPLES = 1000  # for the intervals of means and medians
# ROIs: with more, their pairs are tested for JNE alone, or not at all. 1,000 make a million rows.
_MAX_PAIRED_ALL, _MAX_PAIRED = 60, 1000


class Hierarchy(Section):
    title = "Where JNE is high"
    headline = True
    captions: Mapping[str, str] = {
        "jne": "JNE and mean deviation of the analysed voxels, by ROI and by tier. The line is the "
        "median.",
        "pairwise": "The paper's test: share of voxel pairs in which the voxel of the row's region "
        "has the larger JNE. A dot marks a share significantly above one half (one-sided "
        "Mann-Whitney test over voxels, Holm).",
    }
    folded: Mapping[str, str] = {"pairwise": "The paper's tests of pairs of regions, over voxels"}
    regional: Mapping[str, int] = {"jne": MAX_SHOWN, "pairwise": MAX_SHOWN}
    headings: Mapping[str, str] = {
        "mean_low": "95 % from",
        "mean_high": "to",
        "median_low": "95 % from",
        "median_high": "to",
        "tau": "Kendall's tau",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {"hierarchy": _hierarchy(data), "pairwise": _pairwise(data), "trend": _trend(data)}

    def across_subjects(self, tables: Tables) -> Tables:
        rows = []
        for measure, group in tables["trend"].groupby("measure", sort=False):
            tau, p = hierarchy.combined_trend(group["tau"].to_numpy(), group["p"].to_numpy())
            n = int(group["n_voxels"].sum())
            rows.append({"measure": measure, "n_voxels": n, "tau": tau, "p": p})
        return {"trend": pd.DataFrame(rows)}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        jne = _jne_rows(tables).replace({"level": {"roi": "ROI"}})
        trend = tables["trend"].dropna(subset="tau")
        trend = trend.assign(measure=trend["measure"].map(label))
        titled = {
            "JNE by region": jne,
            "The paper's tests over voxels: rise from tier to tier": trend,
        }
        return {title: table for title, table in titled.items() if len(table)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        sentences = [
            "Means and medians of JNE over voxels, with 95 % bootstrap intervals. The tests over "
            "voxels (Mann-Whitney, Kendall) are those of Gao et al. (NeurIPS 2025); the tests over "
            "stimuli are those of the nonlinear and the validated share, above."
        ]
        if len(data.rois) > _MAX_PAIRED:
            sentences.append(f"Pairs of ROIs are not tested (more than {_MAX_PAIRED} ROIs).")
        jne = _jne_rows(tables)
        few = jne.loc[jne["n_voxels"] < hierarchy.MIN_VOXELS, "group"]
        if len(few):
            sentences.append(
                f"Not tested (fewer than {hierarchy.MIN_VOXELS} voxels): "
                f"{first_names(list(few), 12)}."
            )
        if tables["trend"]["tau"].notna().any():
            sentences.append(
                "Kendall's tau is the rank correlation of a measure with the tier (one-sided p)."
            )
        return " ".join(sentences)

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        drawn = {"jne": _jne_by_region(data)}
        regions = [*data.shown_rois, *TIERS]
        pairwise = tables["pairwise"].query("measure == 'jne'")
        pairwise = pairwise[pairwise["greater"].isin(regions) & pairwise["lesser"].isin(regions)]
        return drawn | ({"pairwise": _superiority(pairwise)} if len(pairwise) else {})

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        jne = tables["trend"].iloc[0]
        if not np.isfinite(jne.tau):
            return []
        if sentence := unclaimed(data, of_regions(data)):
            return sentence
        verdict = "rises" if jne.p < data.config.stats.alpha else "does not rise significantly"
        return [
            f"JNE {verdict} from tier to tier by the paper's tests, over voxels (Kendall's tau "
            f"{jne.tau:.2f}, {p_text(jne.p)})"
            f"{_significant_steps(tables['pairwise'])}{_extremes(tables)}."
        ]

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        jne = tables["trend"].query("measure == 'jne'")
        across = jne[jne["subject"] == ALL_SUBJECTS]
        each = jne.loc[(jne["subject"] != ALL_SUBJECTS) & jne["tau"].notna(), "tau"]
        if across["tau"].notna().any() and (sentence := unclaimed_across(subjects, of_regions)):
            return sentence
        return [
            f"All subjects: JNE rises from tier to tier in {(each > 0).sum()} of {len(each)} "
            f"(mean Kendall's tau {tau:.2f}, combined {p_text(p)}, Stouffer)."
            for tau, p in zip(across["tau"], across["p"], strict=True)
            if np.isfinite(tau)
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        jne = tables["trend"].query("measure == 'jne'")
        return dict(zip("trend_tau/" + jne["subject"], jne["tau"], strict=True))

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        lines = [
            "Voxels count as independent in the paper's tests, but neighbouring voxels are "
            "correlated and share noise and an encoder, so these p are too small. An effect that "
            "holds in every subject is stronger evidence.",
            "No absolute threshold of JNE separates linear from nonlinear voxels.",
        ]
        if len(subjects) > 1:
            lines.append(
                "The p combined over subjects tests for an effect in these subjects, not in the "
                "population they come from."
            )
        return lines


def _levels(data: SubjectData) -> list[tuple[str, NDArray, list[str]]]:
    """For ROIs and tiers: the level, the name at each analysed voxel, the names in order."""
    roi = data.analysed["roi"].to_numpy()
    reported = data.analysed["roi"].isin(data.rois)
    tier = np.where(reported, data.analysed["tier"].to_numpy(), "")
    return [("roi", roi, data.rois), ("tier", tier, [name for name in TIERS if name in tier])]


def _hierarchy(data: SubjectData) -> pd.DataFrame:
    values = data.analysed[data.measures].to_numpy(dtype=np.float64).T
    return _stacked(
        table.assign(level=level, measure=measure)
        for level, groups, order in _levels(data)
        for measure, table in zip(
            data.measures,
            hierarchy.summary(values, groups, order, _N_RESAMPLES, data.config.seed),
            strict=True,
        )
    )


def _pairwise(data: SubjectData) -> pd.DataFrame:
    alpha = data.config.stats.alpha
    return _stacked(
        hierarchy.pairwise(data.analysed[measure].to_numpy(), groups, order, alpha).assign(
            level=level, measure=measure
        )
        for level, groups, order in _levels(data)
        for measure in data.measures
        if level == "tier" or len(order) <= (_MAX_PAIRED if measure == "jne" else _MAX_PAIRED_ALL)
    )


def _stacked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The tables of all levels and measures as one, with these two columns first."""
    parts = list(parts)
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    first = ["level", "measure"]
    return table[[*first, *table.columns.difference(first, sort=False)]]


def _trend(data: SubjectData) -> pd.DataFrame:
    _, tiers, order = _levels(data)[1]
    rows = []
    for measure in data.measures:
        tau, p = hierarchy.trend(data.analysed[measure].to_numpy(), tiers, order)
        n = int(np.isin(tiers, order).sum())
        rows.append({"measure": measure, "n_voxels": n, "tau": tau, "p": p})
    return pd.DataFrame(rows)


def _jne_rows(tables: Tables) -> pd.DataFrame:
    return tables["hierarchy"].query("measure == 'jne'").drop(columns="measure")


def _extremes(tables: Tables) -> str:
    rows = _jne_rows(tables).query("level == 'roi'").dropna(subset="median")
    if len(rows) < 2:
        return ""
    low, high = (rows.iloc[int(at)] for at in (rows["median"].argmin(), rows["median"].argmax()))
    return (
        f"; the median is highest in {high.group} ({high['median']:.2f}) and lowest in "
        f"{low.group} ({low['median']:.2f})"
    )


def _significant_steps(pairwise: pd.DataFrame) -> str:
    pairs = pairwise.query("level == 'tier' and measure == 'jne' and significant")
    steps = [
        f"{lower} < {upper}"
        for lower, upper in (("PVC", "IVC"), ("IVC", "HVC"), ("PVC", "HVC"))
        if ((pairs["greater"] == upper) & (pairs["lesser"] == lower)).any()
    ]
    return f"; significant steps: {', '.join(steps)}" if steps else ""


def _jne_by_region(data: SubjectData) -> Figure:
    analysed = data.analysed
    if data.rois:
        analysed = analysed[analysed["roi"].isin(data.rois)]
    rois = data.shown_rois or [""]
    tiers = [name for name in TIERS if (analysed["tier"] == name).any()]
    levels = [("roi", rois)] + ([("tier", tiers)] if tiers else [])
    width = max(2.2, 0.6 + 0.42 * len(rois))
    figure, axes = subplots(
        2,
        len(levels),
        figsize=(width + 0.7 * len(tiers), 5.0),
        width_ratios=[width, 0.7 * len(tiers)][: len(levels)],
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, measure in zip(axes, ("jne", "mean_deviation"), strict=True):
        for panel, (level, names) in zip(row, levels, strict=True):
            draw_groups(panel, analysed, level, names, measure)
        for panel in row[1:]:
            panel.set_ylabel("")
    for panel, (_, names) in zip(axes[1], levels, strict=True):
        name_groups(panel, names)
    if data.rois:
        for panel, title in zip(axes[0], ("by ROI", "by tier"), strict=False):
            panel.set_title(title)
    return figure


def _superiority(pairwise: pd.DataFrame) -> Figure:
    """A matrix per level of the table: share of voxel pairs, a dot where it is significant."""
    matrices = []
    for level in ("roi", "tier"):
        rows = pairwise[pairwise["level"] == level]
        if rows.empty:
            continue
        order = list(dict.fromkeys(rows["greater"]))
        share, dots = (
            rows.pivot(index="greater", columns="lesser", values=values)
            .reindex(index=order, columns=order)
            .astype(float)  # NaN on the diagonal
            for values in ("superiority", "significant")
        )
        matrices.append((level, share, dots))
    sizes = [len(share) for _, share, _ in matrices]
    figure, axes = subplots(
        1,
        len(sizes),
        # Few regions leave the colour bar and its label their room.
        figsize=(max(3.4, 1.9 + 0.27 * sum(sizes)), max(2.9, 0.9 + 0.27 * max(sizes))),
        width_ratios=sizes,
        squeeze=False,
        layout="constrained",
    )
    for panel, (level, share, dots) in zip(axes[0], matrices, strict=True):
        image = panel.imshow(share, cmap="PuOr_r", vmin=0, vmax=1)
        y, x = np.nonzero(dots.to_numpy() == 1)
        panel.plot(x, y, "o", ms=3, color="black")
        names = [short(name) for name in share.index]
        panel.set_xticks(range(len(names)), names, rotation=90)
        panel.set_yticks(range(len(names)), names)
        panel.set_title("ROIs" if level == "roi" else "tiers")
        panel.spines[:].set_visible(False)
    axes[0, 0].set(ylabel="this region ...", xlabel="... above this one")
    figure.colorbar(image, ax=axes, label="share of voxel pairs with larger JNE", shrink=0.9)
    return figure
