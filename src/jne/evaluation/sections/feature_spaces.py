"""In which of several feature spaces voxels are nonlinear, by region (docs/features.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from jne.analysis.evidence import RATE
from jne.analysis.evidence_spaces import INTERACTION
from jne.analysis.hierarchy import MIN_VOXELS
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.sections.cells_figure import MAX_REGIONS, draw_cells
from jne.evaluation.sections.regions import regions_of
from jne.evaluation.voxels import MAX_SHOWN, SubjectData
from jne.plots.style import qualitative, short, subplots
from jne.utils.spaces import grid_of

_COUNTED = "voxels_nonlinear"
_BARS = {
    _COUNTED: "share of voxels nonlinear in",
    "deviation_share": "share of the mean deviation",
    "r2_split": "parts of R² (banded ridge)",
}
"""What the figure stacks, where a run has it, with the titles of its panels."""
_TOGETHER = "#444444"  # of the interaction
_KEYS = ["level", "group", "space"]


class FeatureSpaces(Section):
    title = "In which features?"
    docs = "features.md"
    captions: Mapping[str, str] = {
        "feature_spaces": "By region: which feature space voxels are nonlinear in (interaction: in "
        "several together; the rest of a bar's row is linear, for all that is known), what part of "
        "the mean deviation of the Jacobians lies in the features of each space, and the parts of "
        "the R² of banded ridge regression.",
        "feature_spaces_cells": "By region and cell of the image as it enters the model: the share "
        "of voxels that are nonlinear in the cell alone, the cell's part of the mean deviation of "
        "the Jacobians, and of the R² of banded ridge regression. What attention has brought into "
        "a cell from others counts where it was brought.",
    }
    regional: Mapping[str, int] = {
        "feature_spaces": MAX_SHOWN,
        "feature_spaces_cells": MAX_REGIONS,
    }
    headings: Mapping[str, str] = {
        "space": "feature space",
        "n_voxels": "voxels",
        "n_nonlinear": "nonlinear in it",
        _COUNTED: "share of voxels",
        "r2_nonlinear_part": "R² of nonlinear part",
        "deviation_share": "share of mean deviation",
        "r2_split": "part of R²",
        "r2_unique": "unique R²",
        "n_subjects": "subjects",
    }

    def tables(self, data: SubjectData) -> Tables:
        spaces = data.subject.nonlinear.spaces
        if spaces is None:
            return {}
        n = len(spaces) // len(data.voxels)
        names = [str(name) for name in spaces.index.get_level_values("space")[:n]]
        rois = data.voxels["roi"].fillna("").astype(str)
        content = []
        for (level, group), members in regions_of(data, list(rois.unique())).items():
            rows = (rois.isin(members) & (data.voxels["status"] == "ok")).to_numpy()
            for k, name in enumerate(names):
                measured = _of_space(data.voxels[rows], spaces.iloc[k::n][rows], name)
                content.append(dict(zip(_KEYS, (level, group, name), strict=True)) | measured)
        return {"feature_spaces": pd.DataFrame(content)}

    def across_subjects(self, tables: Tables) -> Tables:
        if not tables:
            return {}
        grouped = tables["feature_spaces"].groupby(_KEYS, sort=False)
        counts = [c for c in ("n_voxels", "n_nonlinear") if c in tables["feature_spaces"]]
        means = grouped.mean(numeric_only=True).drop(columns=counts)
        together = pd.concat([grouped[counts].sum(), means], axis=1)
        together["n_subjects"] = grouped.size()
        return {"feature_spaces": together.reset_index()}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        if not tables:
            return {}
        table = tables["feature_spaces"].replace({"level": {"roi": "ROI"}})
        return {"Nonlinearity by region and feature space": table}

    def text(self, data: SubjectData, tables: Tables) -> str:
        if not tables:
            return ""
        return (
            "The nonlinear part of the prediction is split into what is nonlinear in one space "
            "alone, the others held at their mean, and the interaction of spaces; responses to "
            "unseen stimuli are regressed on all of these together. A voxel with evidence for any "
            f"(a false discovery rate of {100 * RATE:g} %) is nonlinear in the one that explains "
            "most. Validated share: of what all components and the linear part predict of a "
            "region, what the component alone explains. Mean deviation: of the Jacobians from "
            "their mean, over analysed voxels; its parts add up to 1. R²: means over the voxels."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        table = tables["feature_spaces"]
        table = table[
            ((table["level"] == "roi") & table["group"].isin(data.shown_rois))
            | (table["level"] == "brain")
        ]
        bars = [name for name in _BARS if name in table and table[name].notna().any()]
        grid = grid_of(data.subject.nonlinear.feature_spaces or ())
        if grid and bars:
            measures = {name: _BARS[name] for name in bars}
            return {"feature_spaces_cells": draw_cells(table, measures, grid)}
        return {"feature_spaces": _draw(table, bars)} if bars else {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables or _COUNTED not in tables["feature_spaces"]:
            return []
        table = tables["feature_spaces"]
        whole = table[(table["level"] == "brain") & (table["n_nonlinear"] > 0)]
        at_rate, n = f"t a false discovery rate of {100 * RATE:g} %", table["n_voxels"].iloc[0]
        if whole.empty:
            return [f"No voxel is nonlinear in any of the feature spaces, a{at_rate}."]
        rois = table[(table["level"] == "roi") & (table["n_voxels"] >= MIN_VOXELS)]
        first, *others = (
            (row["n_nonlinear"], f"in {_phrase(row['space'])}{_most(rois, row['space'])}")
            for _, row in whole.sort_values("n_nonlinear", ascending=False).iterrows()
        )
        more = "".join(f"; {count} {where}" for count, where in others)
        return [f"A{at_rate}, {first[0]} of {n} voxels are nonlinear {first[1]}{more}."]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if not tables or _COUNTED not in tables["feature_spaces"]:
            return {}
        whole = tables["feature_spaces"].query("level == 'brain'")
        names = "voxels_nonlinear_in/" + whole["space"] + "/" + whole["subject"]
        return dict(zip(names, whole[_COUNTED], strict=True))

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        if not tables:
            return []
        return [
            "The parts of the deviation describe the encoder: a hidden unit reads all spaces, so a "
            "voxel that is nonlinear in one has some deviation in the others. Which space a voxel "
            "is nonlinear in is by unseen responses, and relative to these spaces: beside another "
            "one, or with spaces that say the same, it may be another.",
            "The validated shares of the components are of what each explains alone; what they "
            "explain in each other's place is in none of them. They need not add up to the share "
            "of the whole nonlinear part, in which all components have one coefficient.",
        ]


def _of_space(voxels: pd.DataFrame, space: pd.DataFrame, name: str) -> dict[str, float]:
    """The numbers of a region and space. voxels, space: their rows, of the region's voxels."""
    row: dict[str, float] = {"n_voxels": len(voxels)}
    if "nonlinear_in" in voxels:
        row["n_nonlinear"] = int((voxels["nonlinear_in"] == name).sum())
        row[_COUNTED] = row["n_nonlinear"] / len(voxels) if len(voxels) else np.nan
    if "r2_nonlinear_part" in space:
        row["validated_share"] = _validated_share(space)
        row["r2_nonlinear_part"] = space["r2_nonlinear_part"].mean()
    if "mean_deviation" in space:
        analysed = voxels["analysed"].to_numpy()
        whole = voxels["mean_deviation"][analysed].sum()
        part = space["mean_deviation"][analysed].sum(min_count=1)
        row["deviation_share"] = part / whole if whole > 0 else np.nan
    return row | {c: space[c].mean() for c in ("r2_split", "r2_unique") if c in space}


def _validated_share(space: pd.DataFrame) -> float:
    """The mean over voxels, weighted by what is predicted of them: the ratio of the sums."""
    rows = space[space["validated_share"].notna() & (space["validated_share"] != 0)]
    part = rows["r2_nonlinear_part"]
    return part.sum() / (part / rows["validated_share"]).sum() if len(rows) else np.nan


def _phrase(space: str) -> str:
    return "several spaces together" if space == INTERACTION else space


def _most(rois: pd.DataFrame, space: str) -> str:
    """The ROI with the largest share of voxels that are nonlinear in the space, in brackets."""
    rows = rois[rois["space"] == space]
    if len(rows) < 2 or not rows["n_nonlinear"].any():
        return ""
    first = rows.iloc[rows[_COUNTED].argmax()]
    return f" (most in {first['group']}: {first['n_nonlinear']} of {first['n_voxels']})"


def _draw(table: pd.DataFrame, bars: list[str]) -> Figure:
    """Stacked bars of the spaces, a row per region, the whole brain last; a panel per measure."""
    spaces, groups = (list(table[name].unique()) for name in ("space", "group"))
    groups = [*groups[1:], groups[0]]
    named = [space for space in spaces if space != INTERACTION]
    colours = dict(zip(named, qualitative(len(named)), strict=True)) | {INTERACTION: _TOGETHER}
    figure, axes = subplots(
        1,
        len(bars),
        figsize=(1.4 + 2.1 * len(bars), 1.3 + 0.2 * len(groups)),
        sharey=True,
        squeeze=False,
        layout=ConstrainedLayoutEngine(w_pad=0.1),  # a smaller one cuts a name off
    )
    for panel, name in zip(axes[0], bars, strict=True):
        values = table.pivot(index="group", columns="space", values=name)
        _stack(panel, values.reindex(index=groups, columns=spaces), colours)
        panel.set_title(_BARS[name])
        if name != "r2_split":
            panel.set_xlim(0, 1)
    axes[0, 0].set_yticks(range(len(groups)), [*map(short, groups[:-1]), "all voxels"])
    axes[0, 0].invert_yaxis()
    figure.legend(
        handles=[Patch(color=colours[space], label=short(space)) for space in spaces],
        loc="outside lower center",
        ncols=min(4, len(spaces)),
    )
    return figure


def _stack(panel: Axes, values: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """Parts above 0 to the right, those below 0 to the left."""
    for side in (values.clip(lower=0), values.clip(upper=0)):
        left = np.zeros(len(values))
        for space, part in side.fillna(0).items():
            panel.barh(range(len(values)), part, left=left, height=0.7, color=colours[str(space)])
            left += part.to_numpy()
    panel.axvline(0, color="#999999", lw=0.7)
    panel.tick_params(axis="y", length=0)
