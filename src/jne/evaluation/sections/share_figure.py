"""The figure of a share: by region and tier, and against another measure of the same regions."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jne.columns import label
from jne.evaluation.sections.regions import rows
from jne.plots.panels import name_points
from jne.plots.style import COLOURS, OTHER_COLOUR, short, subplots

_ALL_VOXELS = "all voxels"
_LIMITS = (-0.5, 1.25)  # of the axis at most: a region with hardly any signal may have any interval


class Drawn(NamedTuple):
    """What the figure shows."""

    name: str
    """A column, whose interval is in NAME_low and NAME_high."""
    title: str
    against: str
    """The column of the other measure."""
    other: str
    """What that is called."""
    diagonal: bool = False
    """Whether both are shares, so that equal ones are on a line."""

    @property
    def ends(self) -> tuple[str, str]:
        return f"{self.name}_low", f"{self.name}_high"


def draw_shares(table: pd.DataFrame, shown_rois: Sequence[str], drawn: Drawn) -> Figure | None:
    """Regions from top to bottom, then tiers and all voxels; beside them, against the other.

    table: of a section, whose first row is that of all voxels. None where no region to draw has
    the share.
    """
    rois, tiers = (rows(table, level, drawn.name).set_index("group") for level in ("roi", "tier"))
    rois = rois.loc[[roi for roi in shown_rois if roi in rois.index]]
    if rois.empty:
        return None
    whole = table.iloc[:1].set_axis([_ALL_VOXELS])
    n_rows = len(rois) + len(tiers) + len(whole)
    figure, (left, right) = subplots(
        1,
        2,
        figsize=(7.4, max(2.9, 1.1 + 0.2 * n_rows)),
        width_ratios=[1, 1.15],
        layout="constrained",
    )
    limits = _limits(pd.concat([rois, tiers]), drawn)
    _by_region(left, [rois, tiers, whole], limits, drawn)
    for share in whole[drawn.name].dropna():
        left.axvline(share, color="#555555", lw=0.8, ls=(0, (4, 3)), zorder=0)
    _against(right, rois, limits, drawn)
    return figure


def _limits(rows: pd.DataFrame, drawn: Drawn) -> tuple[float, float]:
    low, high = rows[drawn.ends[0]].min(), rows[drawn.ends[1]].max()
    low, high = max(min(low, 0.0), _LIMITS[0]), min(max(high, 0.1), _LIMITS[1])
    margin = 0.04 * (high - low)
    return float(low - margin), float(high + margin)


def _by_region(
    panel: Axes, levels: Sequence[pd.DataFrame], limits: tuple[float, float], drawn: Drawn
) -> None:
    """The levels one below the other, each with a mark of its own."""
    at: list[float] = []
    for level, marker in zip(levels, "oDs", strict=True):
        top = at[-1] + 1.5 if at else 0.0
        where = [top + k for k in range(len(level))]
        colours = _colours(list(level.index))
        low, high = (level[name] for name in drawn.ends)
        panel.hlines(where, low, high, colors=colours, lw=1.8, alpha=0.55)
        panel.scatter(level[drawn.name], where, s=26, c=colours, marker=marker, zorder=3)
        at += where
    names = [str(name) for level in levels for name in level.index]
    panel.set_yticks(at, [short(name, 22) for name in names])
    for text, colour in zip(panel.get_yticklabels(), _colours(names), strict=True):
        text.set_color(colour)
    panel.set(xlim=limits, ylim=(at[-1] + 0.6, -0.6), title=drawn.title)
    panel.tick_params(axis="y", length=0)
    panel.axvline(0, color="#999999", lw=0.7, zorder=0)
    panel.grid(axis="y", color="#EEEEEE", lw=0.6)
    panel.set_axisbelow(True)
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _against(panel: Axes, rois: pd.DataFrame, limits: tuple[float, float], drawn: Drawn) -> None:
    rois = rois[rois[drawn.against].notna()]
    names, colours = list(map(str, rois.index)), _colours(list(rois.index))
    other, share = rois[drawn.against].to_numpy(), rois[drawn.name].to_numpy()
    low, high = (rois[name] for name in drawn.ends)
    panel.vlines(other, low, high, colors=colours, lw=1.4, alpha=0.45)
    panel.scatter(other, share, s=26, c=colours, zorder=3)
    panel.axhline(0, color="#999999", lw=0.7, zorder=0)
    most = (float(other.max()) if len(other) else 0.0) or 1.0
    left = min(float(other.min()), 0.0) if len(other) else 0.0
    panel.set(
        xlim=(left - 0.05 * (most - left), most + 0.15 * (most - left)),
        ylim=limits,
        xlabel=drawn.other,
        ylabel=label(drawn.name),
        title="the same regions",  # the axes say by what; a longer one is cut off
    )
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if drawn.diagonal:
        panel.axline((0, 0), slope=1, color="#999999", lw=0.7, ls=(0, (4, 3)), zorder=0)
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    name_points(panel, other, share, names, colours)


def _colours(names: Sequence[str]) -> list[str]:
    return [(COLOURS | {_ALL_VOXELS: "#222222"}).get(name, OTHER_COLOUR) for name in names]
