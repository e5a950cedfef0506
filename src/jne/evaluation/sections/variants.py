"""JNE against its variants and the mean deviation: does the choice of measure matter?"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.analysis.reliability import correlation
from jne.columns import label
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.voxels import SubjectData
from jne.plots.style import subplots


class Variants(Section):
    title = "Does the choice of measure matter?"
    docs = "metrics.md"
    captions: Mapping[str, str] = {
        "variants": "Pearson's r over voxels between JNE, its variants and the mean deviation.",
    }

    def tables(self, data: SubjectData) -> Tables:
        """Pearson's r over voxels of every pair of measures (Gao et al. 2025, Table 4)."""
        rows = [
            {
                "first": first,
                "second": second,
                "n_voxels": len(data.analysed),
                "r": correlation(data.analysed[first].to_numpy(), data.analysed[second].to_numpy()),
            }
            for first, second in combinations(data.measures, 2)
        ]
        return {"variants": pd.DataFrame(rows)}

    def page_tables(self, data: SubjectData, tables: Tables) -> Tables:
        return {}  # the figure shows every number

    def text(self, data: SubjectData, tables: Tables) -> str:
        return (
            "JNE is the standard deviation over stimuli of how far the Jacobians lie from their "
            "mean; the mean deviation is the mean of these distances. The z-score variants remove "
            "the response gain of a voxel."
        )

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        return {"variants": _correlations(tables["variants"])}

    def caveats(self, subjects: Sequence[SubjectData], tables: Tables) -> list[str]:
        return [
            "JNE grows with the response gain: a voxel that is predicted better has larger "
            "Jacobians. The z-score variants, and R² beside JNE, show whether this explains a "
            "difference.",
            "JNE is 0 for a unit that switches between two linear mappings with equal odds, but "
            "its mean deviation is not. Read the two together.",
        ]


def _correlations(table: pd.DataFrame) -> Figure:
    names = list(dict.fromkeys([*table["first"], *table["second"]]))
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for first, second, r in zip(table["first"], table["second"], table["r"], strict=True):
        matrix.loc[first, second] = matrix.loc[second, first] = r
    figure, axes = subplots(
        figsize=(1.9 + 0.5 * len(names), 0.9 + 0.36 * len(names)), layout="constrained"
    )
    image = axes.imshow(matrix, cmap="viridis", vmin=min(0.0, matrix.min().min()), vmax=1)
    middle = (image.norm.vmin + 1) / 2
    for (i, j), value in np.ndenumerate(matrix.to_numpy()):
        colour = "black" if value > middle else "white"
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    labels = [label(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), labels)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="Pearson r over voxels", pad=0.02)
    return figure
