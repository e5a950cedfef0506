"""A measure of every voxel, by region."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jne.columns import axis_label, label
from jne.plots.panels import name_groups, violins
from jne.plots.style import TIER_COLOURS, drawing
from jne.roi import TIERS, ordered

MAX_ROIS = 50  # thousands of names take matplotlib minutes, and nobody can read them
_NULL = {"r2": "r2_ridge"}
"""What a column is compared with: its medians by region are drawn, where a table has it."""
_DASHED: Any = (0, (2, 1))
_AGAINST_ZERO = ("nonlinear_share", "validated_share", "nonlinear_z", "r2")


def plot_by_roi(run: Any, measure: str = "jne", ax: Axes | None = None) -> Axes:
    """Violins and points of a column of the voxel table by ROI, in the order of the hierarchy.

    A line is the median. Dashed lines are the medians of what the column is compared with, where
    the table has it: of R2 that of ridge regression; a thin line is at 0 where that is the null.

    Parameters
    ----------
    run : Results or DataFrame
        A run, or a voxel table with columns `roi` and `measure`; of more than 50 ROIs, those with
        the highest median JNE are drawn.
    measure : str
        A column (docs/columns.md).
    ax : Axes, optional
        By default those of a new figure.

    Returns
    -------
    Axes
    """
    voxels = voxels_of(run)
    measured = voxels.dropna(subset=[measure])
    rois, note = drawn_rois(measured)
    with drawing(ax, figsize=(max(3.2, 1.2 + 0.42 * len(rois)), 2.6)) as axes:
        draw_groups(axes, measured, "roi", rois, measure)
        name_groups(axes, rois)
        n = int(measured["roi"].isin(rois).sum()) if rois != [""] else len(measured)
        axes.set_title(f"{label(measure)} by ROI, n = {n} voxels{note}")
        _explain(axes, rois, _NULL.get(measure, "") if _NULL.get(measure) in voxels else "")
    return axes


def draw_groups(
    axes: Axes, voxels: pd.DataFrame, level: str, names: Sequence[str], measure: str
) -> None:
    """A violin for each of the named groups, and the null's level of each, if there is one.

    level: the column whose values are the names.
    """
    groups = [voxels[voxels[level] == name] if name else voxels for name in names]
    violins(axes, [group[measure] for group in groups], names)
    if (null := _NULL.get(measure)) in voxels:
        for k, group in enumerate(groups):
            median = group[null].median()
            if np.isfinite(median):
                axes.hlines(median, k - 0.4, k + 0.4, color="#555555", ls=_DASHED)
    if measure in _AGAINST_ZERO:
        axes.axhline(0, color="#999999", lw=0.7, zorder=0)
    axes.set_ylabel(axis_label(measure))


def voxels_of(run: Any) -> pd.DataFrame:
    """The voxel table of a run, or the table that is given."""
    table: pd.DataFrame = run if isinstance(run, pd.DataFrame) else run.voxels
    return table


def drawn_rois(voxels: pd.DataFrame) -> tuple[list[str], str]:
    """The ROIs that a figure shows, in order, and what it says where these are not all."""
    rois = ordered(voxels["roi"])
    if len(rois) <= MAX_ROIS:
        return rois or [""], ""
    named = voxels.loc[voxels["roi"] != "", ["roi", "jne"]]
    median = named.groupby("roi", observed=True)["jne"].median()
    strongest = [str(roi) for roi in median.nlargest(MAX_ROIS).index]
    return ordered(strongest), f", the {MAX_ROIS} of {len(rois)} ROIs with the highest median"


def _explain(axes: Axes, rois: Sequence[str], null: str) -> None:
    """The legend: tiers, the medians, the null."""
    handles = [
        Line2D([], [], marker="o", ls="", color=colour, label=tier)
        for tier, colour in TIER_COLOURS.items()
        if any(roi in rois for roi in TIERS[tier])
    ]
    handles.append(Line2D([], [], color="black", lw=1, label="median"))
    if null:
        handles.append(Line2D([], [], color="#555555", ls=_DASHED, label=f"median {label(null)}"))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))  # room for the legend
    axes.legend(handles=handles, ncols=len(handles), loc="upper left", fontsize=7, handlelength=1.2)
