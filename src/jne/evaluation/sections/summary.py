"""The first screen: each region's nonlinearity, and how well it is predicted, in one figure."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jne.analysis import inference
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.columns import label
from jne.evaluation.claims import of_regions, unclaimed_across
from jne.evaluation.sections.base import ALL_SUBJECTS, Section, Tables, by_region
from jne.evaluation.sections.regions import ends, measured_table, regions_of, subjects_mean
from jne.evaluation.voxels import SubjectData
from jne.plots.style import COLOURS, OTHER_COLOUR, short, subplots
from jne.results.evidence import ALL

_PREDICTORS = {
    "noise_ceiling": ("noise ceiling", "|", "#444444"),
    "r2_ridge": ("ridge", "s", "#999999"),
    "r2_linear": ("linear encoder", "D", "#CC79A7"),
    "r2_nonlinear": ("nonlinear encoder", "o", "#0072B2"),
}
"""Column of the voxel table: its name in the figure, its marker and colour."""
_SHARES = {
    "nonlinear_share": ("nonlinear share: how much there is", True),
    "validated_share": ("validated share: how much the encoder has found", False),
}
"""Column of the table: its name in the figure, and whether its marks are filled."""


class Summary(Section):
    title = "Summary"
    headline = True
    captions: Mapping[str, str] = {
        "summary": "By region, in the order of the hierarchy. Nonlinearity: of the signal, the "
        "nonlinear share (filled), and of what is predicted, the share that the encoder has found "
        "(validated share, open), with 95 % intervals over stimuli; in runs without either, median "
        "and quartiles over the analysed voxels of W where there are linear twins, else of JNE. "
        "Share of nonlinear voxels with Wilson's 95 % interval. Prediction: mean R² over all "
        "voxels, and the mean noise ceiling.",
        "group": "The same for all subjects: one small mark per subject, a line for their mean "
        "(of shares, by random effects: subjects that are measured well weigh more).",
    }
    headings: Mapping[str, str] = {
        "jne_calibrated": "median JNE, calibrated",
        "jne": "median JNE",
        "jne_q25": "quartiles from",
        "jne_q75": "to",
        "w": "median W",
        "w_q25": "quartiles from",
        "w_q75": "to",
        "nonlinear_share": "nonlinear share",
        "nonlinear_share_low": "95 % from",
        "nonlinear_share_high": "to",
        "validated_share": "validated share",
        "validated_share_low": "95 % from",
        "validated_share_high": "to",
        "share": "share of voxels nonlinear",
        "share_low": "95 % from",
        "share_high": "to",
        "r2_nonlinear": "R² nonlinear",
        "n_subjects": "subjects",
        "n_above": "subjects above their whole brain",
        "sd": "SD over subjects",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {"summary": _by_region(data)}

    def across_subjects(self, tables: Tables) -> Tables:
        return {"summary": _over_subjects(tables["summary"])}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "Nonlinear share: how much of the signal no linear map of the features explains. "
            "Validated share: how much of what is predicted the nonlinear part of the encoder "
            "alone explains. JNE: how much the encoder's Jacobian changes over stimuli (Gao et "
            "al., NeurIPS 2025). Tiers: steps of the visual hierarchy, PVC (V1), IVC (V2 to V4) "
            "and HVC (areas beyond)."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"summary": _figure([tables["summary"]], data.shown_rois, data.shown_note())}

    def figures_across(self, subjects: Sequence[SubjectData], tables: Tables) -> dict[str, Figure]:
        table = tables["summary"]
        each = [table[table["subject"] == data.name] for data in subjects]
        rois = list(dict.fromkeys(roi for data in subjects for roi in data.shown_rois))
        mean = table[table["subject"] == ALL_SUBJECTS]
        return {"group": _figure(each, rois, subjects[0].shown_note(), mean)}

    def findings_across(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        table = tables["summary"]
        across = table[(table["subject"] == ALL_SUBJECTS) & (table["roi"] != WHOLE_BRAIN)]
        across = across[across["n_above"].notna() & (across["n_subjects"] > 1)]
        steady = across[across["n_above"] == across["n_subjects"]]
        if steady.empty:
            return []
        measure = _compared(table)
        if measure == "jne" and (unclaimed := unclaimed_across(subjects, of_regions)):
            return unclaimed
        names = ", ".join(steady.sort_values(measure, ascending=False)["roi"].iloc[:6])
        called = "median JNE" if measure == "jne" else label(measure)
        return [
            f"In every subject, the {called} of {names} is above that of the whole brain "
            f"({len(steady)} of {len(across)} regions)."
        ]


def _by_region(data: SubjectData) -> pd.DataFrame:
    shares = _shares(data)
    rows = []
    for roi, voxels in by_region(data.voxels, data.rois):
        analysed = voxels[voxels["analysed"]]
        row: dict[str, object] = {
            "roi": roi,
            "tier": "" if roi == WHOLE_BRAIN or voxels.empty else voxels["tier"].iloc[0],
            "n_voxels": len(voxels),
            "n_analysed": len(analysed),
        }
        row |= {name: values[roi] for name, values in shares.items()}
        if "nonlinear" in voxels:
            share = inference.share_interval(*_counts(data, voxels))
            row |= dict(zip(("share", "share_low", "share_high"), share, strict=True))
        for measure in ("jne", "w"):
            if measure in analysed:
                low, middle, high = analysed[measure].quantile([0.25, 0.5, 0.75])
                row |= {measure: middle, f"{measure}_q25": low, f"{measure}_q75": high}
        if "jne_calibrated" in analysed:
            row["jne_calibrated"] = analysed["jne_calibrated"].median()
        row |= {name: voxels[name].mean() for name in _PREDICTORS if name in voxels}
        rows.append(row)
    return pd.DataFrame(rows)


def _shares(data: SubjectData) -> dict[str, pd.Series]:
    """The columns of the nonlinear and the validated share, by region, where there are these."""
    columns: dict[str, pd.Series] = {}
    shares, evidence = data.subject.nonlinear.region_shares, data.evidence
    for measured, whole, name in (
        (shares, shares.rois if shares else [], "nonlinear_share"),
        (evidence, [ALL], "validated_share"),
    ):
        if measured is not None:
            table = measured_table(measured, regions_of(data, whole)).drop("tier", errors="ignore")
            columns |= {end: table[end].droplevel("level") for end in ends(name)}
    return columns


def _counts(data: SubjectData, voxels: pd.DataFrame) -> tuple[int, int]:
    """How many voxels are nonlinear, and of how many."""
    if data.evidence is not None:
        nonlinear = voxels["nonlinear"].dropna()
        return int(nonlinear.sum()), len(nonlinear)
    tested = voxels[voxels["analysed"] & voxels["w"].notna()]
    return data.n_nonlinear(tested), len(tested)


def _compared(table: pd.DataFrame) -> str:
    """By what regions are above their whole brain: the first that all subjects have."""
    whole = table[table["roi"] == WHOLE_BRAIN]
    return next((name for name in _SHARES if name in whole and whole[name].notna().all()), "jne")


def _over_subjects(table: pd.DataFrame) -> pd.DataFrame:
    """Means over subjects, their spread, and in how many a region is above its whole brain."""
    compared = _compared(table)
    whole = table[table["roi"] == WHOLE_BRAIN].set_index("subject")[compared]
    measures = ("share", "jne", "jne_calibrated", "w", *_PREDICTORS)
    averaged = [name for name in measures if name in table.columns]
    shares = [name for name in _SHARES if name in table.columns]
    rows = []
    for roi, per_subject in table.groupby("roi", sort=False):
        means: dict[str, float] = {}
        for name in shares:
            means |= subjects_mean(per_subject, name)
        above = per_subject[compared] > per_subject["subject"].map(whole)
        rows.append(
            {
                "roi": roi,
                "tier": per_subject["tier"].iloc[0],
                "n_voxels": int(per_subject["n_voxels"].sum()),
                "n_analysed": int(per_subject["n_analysed"].sum()),
                **means,
                **per_subject[averaged].mean(),
                "sd": per_subject["jne"].std(),
                "n_subjects": len(per_subject),
                "n_above": np.nan if roi == WHOLE_BRAIN else int(above.sum()),
            }
        )
    return pd.DataFrame(rows)


def _figure(
    tables: Sequence[pd.DataFrame],
    rois: Sequence[str],
    note: str,
    across: pd.DataFrame | None = None,
) -> Figure:
    """Regions from top to bottom; nonlinearity, share of nonlinear voxels and R² side by side.

    across: the rows over all subjects, where there are several tables.
    """
    names = list(rois) or [WHOLE_BRAIN]
    each = [table.set_index("roi").reindex(names) for table in tables]
    means = each[0] if across is None else across.set_index("roi").reindex(names)
    called = all("share" in table for table in each)
    figure, axes = subplots(
        1,
        3 if called else 2,
        figsize=(7.4, 0.95 + 0.23 * len(names)),
        width_ratios=[1.5, 1.0, 1.5] if called else [1, 1],
        sharey=True,
        layout="constrained",
    )
    colours = [COLOURS.get(name, OTHER_COLOUR) for name in names]
    strength, prediction = axes[0], axes[-1]
    _nonlinearity(strength, each, means, colours)
    if called:
        _marks(axes[1], each, means, "share", colours, ("share_low", "share_high"))
        axes[1].set(title="nonlinear voxels", xlim=(-0.03, 1.03))
        axes[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    for column, (predictor, marker, colour) in _PREDICTORS.items():
        values = [table[column] for table in each if column in table]
        if values and not all(value.isna().all() for value in values):
            mean = pd.concat(values, axis=1).mean(axis=1)
            size = 9 if marker == "|" else 4.5
            prediction.plot(
                mean, range(len(names)), marker, ms=size, color=colour, label=predictor, mew=1.4
            )
    prediction.set(title="mean R²")
    left, right = prediction.get_xlim()
    prediction.set_xlim(min(0.0, left), 1.04 * right)  # whole marks
    prediction.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, handletextpad=0.2)
    labels = ["all voxels" if name == WHOLE_BRAIN else short(name) for name in names]
    strength.set_yticks(range(len(names)), labels)
    for text, colour in zip(strength.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    strength.set_ylim(len(names) - 0.5, -0.5)
    for panel in axes:
        panel.grid(axis="y", color="#E5E5E5", lw=0.6)
        panel.set_axisbelow(True)
    if note:
        figure.supxlabel(note, fontsize=7, color="#555555")
    return figure


def _nonlinearity(
    panel: Axes, each: Sequence[pd.DataFrame], means: pd.DataFrame, colours: Sequence[str]
) -> None:
    """The shares, filled and open, one above the other; without any, W or JNE."""
    present = {
        name: [table for table in each if name in table and table[name].notna().any()]
        for name in _SHARES
    }
    present = {name: tables for name, tables in present.items() if tables}
    if not present:
        measure = "w" if all("w" in table for table in each) else "jne"
        _marks(panel, each, means, measure, colours, (f"{measure}_q25", f"{measure}_q75"))
        panel.set(title="W = JNE − its twin's" if measure == "w" else "JNE")
        if measure == "w":
            panel.axvline(0, color="#999999", lw=0.7, zorder=0)
        else:
            panel.set_xlim(left=0)
        return
    rows_apart = (-0.16, 0.16) if len(present) > 1 else (0.0,)
    for (name, tables), down in zip(present.items(), rows_apart, strict=True):
        meaning, filled = _SHARES[name]
        _marks(panel, tables, means, name, colours, ends(name)[1:], down=down, filled=filled)
        face = "#444444" if filled else "white"
        panel.plot([], [], "o", ms=4.5, mec="#444444", mfc=face, ls="none", label=meaning)
    low, high = _limits(
        [table[list(ends(name))] for name, tables in present.items() for table in tables]
    )
    panel.set(title="share nonlinear", xlim=(low, high))
    panel.axvline(0, color="#999999", lw=0.7, zorder=0)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    panel.figure.legend(
        *panel.get_legend_handles_labels(),
        loc="outside lower left",
        fontsize=7,
        ncols=2,
        handletextpad=0.2,
    )


def _limits(tables: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """An axis that holds the intervals, but not any that hardly ends."""
    values = np.concatenate([table.to_numpy(dtype=np.float64).ravel() for table in tables])
    low, high = np.clip([np.nanmin(values), np.nanmax(values)], -0.5, 1.25)
    low, high = min(low, 0.0), max(high, 0.1)
    return float(low - 0.04 * (high - low)), float(high + 0.04 * (high - low))


def _marks(
    panel: Axes,
    each: Sequence[pd.DataFrame],
    means: pd.DataFrame,
    column: str,
    colours: Sequence[str],
    interval: Sequence[str],
    *,
    down: float = 0.0,
    filled: bool = True,
) -> None:
    """One mark per region with its interval; of several subjects, small marks and their mean.

    interval: the columns of its ends. down: how far below the middle of a region's row.
    """
    rows = np.arange(len(colours)) + down
    faces = colours if filled else ["white"] * len(colours)
    if len(each) == 1:
        (table,) = each
        low, high = (table[name] for name in interval)
        panel.hlines(rows, low, high, colors=colours, lw=1.6, alpha=0.5)
        panel.scatter(table[column], rows, s=26, c=faces, edgecolors=colours, zorder=3)
        return
    width = 0.25 if down else 0.5
    for k, table in enumerate(each):
        offset = width * (k / (len(each) - 1) - 0.5)
        panel.scatter(table[column], rows + offset, s=7, c=faces, edgecolors=colours, alpha=0.6)
    size = 60 if down else 110
    panel.scatter(means[column], rows, s=size, c="black", marker="|", linewidths=1.2, zorder=3)
