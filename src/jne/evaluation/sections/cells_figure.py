"""Measures of the cells of a grid over the image, by region, as small images (docs/features.md)."""

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jne.evaluation.thumbnails import CELL_COLOURS
from jne.plots.style import short, subplots
from jne.utils.spaces import cell_names

MAX_REGIONS = 8
_SIDE = 0.75  # inches of a panel


def draw_cells(table: pd.DataFrame, measures: Mapping[str, str], grid: int) -> Figure:
    """A row per measure, a column per region, the whole brain first; a panel is the image.

    table: columns `group`, `space` and the measures. measures: with their titles.
    """
    groups = list(table["group"].unique())[: MAX_REGIONS + 1]
    figure, axes = subplots(
        len(measures),
        len(groups),
        figsize=(2.2 + _SIDE * len(groups), 0.4 + 1.1 * _SIDE * len(measures)),
        squeeze=False,
        layout=ConstrainedLayoutEngine(w_pad=0.1),  # a smaller one cuts a name off
    )
    for panels, (name, title) in zip(axes, measures.items(), strict=True):
        by_cell = table.pivot(index="group", columns="space", values=name)
        values = by_cell.reindex(index=groups, columns=cell_names(grid)).to_numpy()
        low, high = min(0.0, np.nanmin(values)), np.nanmax(values)
        for panel, cells in zip(panels, values, strict=True):
            drawn = panel.imshow(
                cells.reshape(grid, grid), cmap=CELL_COLOURS, vmin=low, vmax=high or 1.0
            )
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        panels[0].set_ylabel(fill(title, 16), rotation=0, ha="right", va="center")
        figure.colorbar(drawn, ax=panels, aspect=8)
    for panel, group in zip(axes[0], groups, strict=True):
        panel.set_title("all voxels" if group == groups[0] else short(group))
    return figure
