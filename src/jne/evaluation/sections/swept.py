"""Runs that differ in one config key: JNE and R² by layer, activation, placement or encoder."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.selectivity import WHOLE_BRAIN
from jne.columns import baselines
from jne.evaluation.sections.base import Section, Tables, by_region
from jne.evaluation.voxels import SubjectData
from jne.plots.style import COLOURS, OTHER_COLOUR, short, subplots

_MAX_PANELS = 11  # ROIs, beside the whole brain
_MAX_COLUMNS = 6


class Swept(Section):
    title = "Runs that differ in one key"
    captions: Mapping[str, str] = {
        "swept": "Above: median JNE and its quartiles. Below: mean R² on the test stimuli; the "
        "dashed line is ridge regression. One pair of panels per region, the same voxels "
        "in every run.",
        "swept_group": "The same for all subjects: a thin line per subject, a thick one for their "
        "mean.",
    }
    regional: Mapping[str, int] = {"swept": _MAX_PANELS}
    headings: Mapping[str, str] = {
        "jne": "median JNE",
        "jne_q25": "quartiles from",
        "jne_q75": "to",
        "r2": "mean R²",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {"swept": _by_value(data)} if data.subject.variations else {}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        return {f"By {data.subject.by}": tables["swept"]} if tables else {}

    def text(self, data: SubjectData, tables: Tables) -> str:
        if not tables:
            return ""
        return (
            f"The runs differ in {data.subject.by} alone. The voxels are those that are analysed "
            f"in the rest of this report, which is on the run with the lowest validation loss."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not tables:
            return {}
        return {"swept": _figure([tables["swept"]], data.shown_rois[:_MAX_PANELS], data.subject.by)}

    def figures_across(self, subjects: Sequence[SubjectData], tables: Tables) -> dict[str, Figure]:
        if "swept" not in tables:
            return {}
        table = tables["swept"]
        each = [table[table["subject"] == data.name] for data in subjects]
        rois = list(dict.fromkeys(roi for data in subjects for roi in data.shown_rois))
        nonempty = [rows for rows in each if len(rows)]
        by = subjects[0].subject.by
        return {"swept_group": _figure(nonempty, rois[:_MAX_PANELS], by)}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        whole = tables["swept"].query("roi == @WHOLE_BRAIN").set_index("value")
        most, best = str(whole["jne"].idxmax()), str(whole["r2"].idxmax())
        return [
            f"by {data.subject.by}: median JNE is highest with {most} ({whole['jne'][most]:.2f}), "
            f"mean R² with {best} ({whole['r2'][best]:.3f})."
        ]


def _by_value(data: SubjectData) -> pd.DataFrame:
    rows = []
    for value, run in data.subject.variations.items():
        voxels = run.voxels.assign(roi=data.voxels["roi"])[data.voxels["analysed"].to_numpy()]
        for roi, chosen in by_region(voxels, data.rois):
            low, middle, high = chosen["jne"].quantile([0.25, 0.5, 0.75])
            rows.append(
                {
                    "value": value,
                    "roi": roi,
                    "n_voxels": len(chosen),
                    "jne": middle,
                    "jne_q25": low,
                    "jne_q75": high,
                    "r2": chosen["r2"].mean(),
                    **{name: chosen[name].mean() for name in baselines(chosen)},
                }
            )
    return pd.DataFrame(rows)


def _figure(each: Sequence[pd.DataFrame], rois: Sequence[str], by: str) -> Figure:
    """Two panels per region, JNE above R², with the values of the key from left to right."""
    names = [WHOLE_BRAIN, *rois]
    values = list(dict.fromkeys(value for table in each for value in table["value"]))
    columns = min(_MAX_COLUMNS, len(names))
    blocks = -(-len(names) // columns)
    figure, axes = subplots(
        2 * blocks,
        columns,
        figsize=(1.45 * columns + 0.5, 2.6 * blocks + 0.3),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    x = np.arange(len(values))
    for position, name in enumerate(names):
        row, column = divmod(position, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        colour = COLOURS.get(name, OTHER_COLOUR)
        of_region = [
            table[table["roi"] == name].set_index("value").reindex(values) for table in each
        ]
        for panel, measure in ((above, "jne"), (below, "r2")):
            if len(of_region) > 1:
                for table in of_region:
                    panel.plot(x, table[measure], color=colour, lw=0.6, alpha=0.6)
            mean = pd.concat([table[measure] for table in of_region], axis=1).mean(axis=1)
            panel.plot(x, mean, ".-", color=colour, lw=1.4, ms=5)
        if len(of_region) == 1:
            (table,) = of_region
            above.fill_between(x, table["jne_q25"], table["jne_q75"], color=colour, alpha=0.2, lw=0)
        if all("r2_ridge" in table for table in of_region):
            ridge = pd.concat([table["r2_ridge"] for table in of_region], axis=1).mean(axis=1)
            below.plot(x, ridge, "--", color="#777777", lw=1)
        above.set_title("all voxels" if name == WHOLE_BRAIN else short(name, 16), fontsize=8)
        above.set_ylim(bottom=0)
        below.set_xticks(x, [short(str(value), 12) for value in values], rotation=90)
        below.tick_params(labelbottom=True)
        if column == 0:
            above.set_ylabel("JNE")
            below.set_ylabel("R²")
    for position in range(len(names), blocks * columns):
        row, column = divmod(position, columns)
        axes[2 * row, column].set_visible(False)
        axes[2 * row + 1, column].set_visible(False)
    figure.supxlabel(by, fontsize=8)
    return figure
