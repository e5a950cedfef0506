"""The figure of the nonlinear share: by region and tier, and against JNE."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jne.plots.panels import name_points
from jne.plots.style import COLOURS, OTHER_COLOUR, short, subplots

ALL_VOXELS = "all voxels"
_ENDS = ["nonlinear_share_low", "nonlinear_share_high"]
_LIMITS = (-0.5, 1.25)  # of the axis at most: a region with hardly any signal may have any interval


def draw_shares(rois: pd.DataFrame, tiers: pd.DataFrame, whole: pd.DataFrame) -> Figure:
    """Regions from top to bottom, then tiers and all voxels; beside them, regions by their JNE.

    rois, tiers, whole: rows of the table `share`, by their names in the figure.
    """
    n_rows = len(rois) + len(tiers) + len(whole)
    figure, (left, right) = subplots(
        1,
        2,
        figsize=(7.4, max(2.9, 1.1 + 0.2 * n_rows)),
        width_ratios=[1, 1.15],
        layout="constrained",
    )
    limits = _limits(pd.concat([rois, tiers]))
    _by_region(left, [rois, tiers, whole], limits)
    for share in whole["nonlinear_share"].dropna():
        left.axvline(share, color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=0)
    _against_jne(right, rois, limits)
    return figure


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    low, high = rows[_ENDS[0]].min(), rows[_ENDS[1]].max()
    low, high = max(min(low, 0.0), _LIMITS[0]), min(max(high, 0.1), _LIMITS[1])
    margin = 0.04 * (high - low)
    return float(low - margin), float(high + margin)


def _by_region(panel: Axes, levels: Sequence[pd.DataFrame], limits: tuple[float, float]) -> None:
    """The levels one below the other, each with a mark of its own."""
    at: list[float] = []
    for rows, marker in zip(levels, "oDs", strict=True):
        top = at[-1] + 1.5 if at else 0.0
        where = [top + k for k in range(len(rows))]
        colours = _colours(list(rows.index))
        panel.hlines(where, rows[_ENDS[0]], rows[_ENDS[1]], colors=colours, lw=1.8, alpha=0.55)
        panel.scatter(rows["nonlinear_share"], where, s=26, c=colours, marker=marker, zorder=3)
        at += where
    names = [str(name) for rows in levels for name in rows.index]
    panel.set_yticks(at, [short(name, 22) for name in names])
    for label, colour in zip(panel.get_yticklabels(), _colours(names), strict=True):
        label.set_color(colour)
    panel.set(xlim=limits, ylim=(at[-1] + 0.6, -0.6), title="nonlinear share of the signal")
    panel.tick_params(axis="y", length=0)
    panel.axvline(0, color="#999999", lw=0.7, zorder=0)
    panel.grid(axis="y", color="#EEEEEE", lw=0.6)
    panel.set_axisbelow(True)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _against_jne(panel: Axes, rois: pd.DataFrame, limits: tuple[float, float]) -> None:
    rois = rois[rois["jne"].notna()]
    names, colours = list(map(str, rois.index)), _colours(list(rois.index))
    jne, share = rois["jne"].to_numpy(), rois["nonlinear_share"].to_numpy()
    panel.vlines(jne, rois[_ENDS[0]], rois[_ENDS[1]], colors=colours, lw=1.4, alpha=0.45)
    panel.scatter(jne, share, s=26, c=colours, zorder=3)
    panel.axhline(0, color="#999999", lw=0.7, zorder=0)
    most = float(jne.max()) if len(jne) else 1.0
    panel.set(
        xlim=(-0.05 * most, 1.15 * most),
        ylim=limits,
        xlabel="mean JNE",
        ylabel="nonlinear share",
        title="the same regions by their JNE",
    )
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    name_points(panel, jne, share, names, colours)


def _colours(names: Sequence[str]) -> list[str]:
    return [(COLOURS | {ALL_VOXELS: "#222222"}).get(name, OTHER_COLOUR) for name in names]
