"""The R² maps of the linear and the nonlinear encoder: are they alike, and which is higher?"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis import hierarchy
from jne.analysis.prediction import holm
from jne.analysis.reliability import correlation
from jne.analysis.selectivity import WHOLE_BRAIN
from jne.evaluation.sections.base import Section, Tables, by_region
from jne.evaluation.voxels import SubjectData
from jne.plots.panels import limits_of
from jne.plots.scatter import plot_scatter
from jne.plots.style import short, subplots

_MAX_ROIS = 11  # with the whole brain, three rows of panels


class Comparison(Section):
    title = "Linear against nonlinear encoder"
    captions: Mapping[str, str] = {
        "r2_scatter": "R² of the nonlinear against the linear encoder, one point (or bin) per "
        "voxel. r is Pearson's correlation over voxels.",
    }
    regional: Mapping[str, int] = {"r2_scatter": _MAX_ROIS}
    headings: Mapping[str, str] = {
        "r2_linear": "R² linear",
        "r2_nonlinear": "R² nonlinear",
        "p": "p over voxels",
    }

    def tables(self, data: SubjectData) -> Tables:
        return {} if data.subject.linear is None else {"comparison": _comparison(data)}

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "R² measures how well responses are predicted, and two encoders can reach the same R² "
            "with different mappings: where the features are deep, a linear readout already "
            "predicts most of the response. JNE measures something else, how much the mapping "
            "itself changes from stimulus to stimulus. All scored voxels are compared, with "
            "Wilcoxon's signed-rank test (two-sided), which treats voxels as independent."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"r2_scatter": _r2_scatter(data)} if tables else {}

    def findings(self, data: SubjectData, tables: Tables) -> list[str]:
        if not tables:
            return []
        row = tables["comparison"].iloc[0]
        return [
            f"the R² maps of the linear and the nonlinear encoder correlate at r = {row.r:.2f}; "
            f"the R² of the nonlinear encoder is {'higher' if row.difference > 0 else 'lower'} by "
            f"{abs(row.difference):.3f} on average."
        ]

    def scalars(self, tables: Tables) -> dict[str, float]:
        if not tables:
            return {}
        table = tables["comparison"]
        whole = table[table["roi"] == WHOLE_BRAIN]
        return dict(zip("r2_map_r/" + whole["subject"], whole["r"], strict=True))


def _scored(data: SubjectData) -> pd.DataFrame:
    """All scored voxels: choosing those that one encoder predicts well would favour it."""
    return data.voxels.dropna(subset=["r2_linear", "r2_nonlinear"])


def _comparison(data: SubjectData) -> pd.DataFrame:
    rows = []
    for roi, chosen in by_region(_scored(data), data.rois):
        linear, nonlinear = chosen["r2_linear"].to_numpy(), chosen["r2_nonlinear"].to_numpy()
        difference, p = hierarchy.paired_difference(linear, nonlinear)
        rows.append(
            {
                "roi": roi,
                "n_voxels": len(chosen),
                "r": correlation(linear, nonlinear),
                "r2_linear": linear.mean() if len(chosen) else np.nan,
                "r2_nonlinear": nonlinear.mean() if len(chosen) else np.nan,
                "difference": difference,
                "p": p,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def _r2_scatter(data: SubjectData) -> Figure:
    scored = _scored(data)
    limits = limits_of(scored["r2_linear"], scored["r2_nonlinear"])
    regions = list(by_region(scored, data.shown_rois[:_MAX_ROIS]))
    columns = min(4, len(regions))
    rows = -(-len(regions) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(1.7 * columns + 0.3, 1.75 * rows + 0.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, (name, chosen) in zip(axes.flat, regions, strict=False):
        x, y = chosen["r2_linear"].to_numpy(), chosen["r2_nonlinear"].to_numpy()
        plot_scatter(x, y, ax=panel, limits=limits)
        region = "all voxels" if name == WHOLE_BRAIN else short(name, 14)
        panel.set_title(f"{region}\n{panel.get_title(loc='left')}", fontsize=7)
    for panel in axes.flat[len(regions) :]:
        panel.set_visible(False)
    figure.supxlabel("R², linear encoder", fontsize=8)
    figure.supylabel("R², nonlinear encoder", fontsize=8)
    return figure
