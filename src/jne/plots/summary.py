"""Each region's nonlinearity, and how well it is predicted, in one figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jne.analysis.inference import share_interval
from jne.columns import axis_label
from jne.plots.regions import drawn_rois
from jne.plots.style import COLOURS, OTHER_COLOUR, STYLE, drawing, short, subplots

_WHOLE, _RATE = "all", 0.1
PREDICTORS = {
    "noise_ceiling": ("noise ceiling", "|", "#444444"),
    "r2_ridge": ("ridge", "s", "#999999"),
    "r2_linear": ("linear encoder", "D", "#CC79A7"),
    "r2_nonlinear": ("nonlinear encoder", "o", "#0072B2"),
}
"""Column of the voxel table: its name in the figure, its marker and colour."""
SHARES = {
    "nonlinear_share": ("nonlinear share: how much there is", True),
    "validated_share": ("validated share: how much the encoder has found", False),
}
"""Column of the table: its name in the figure, and whether its marks are filled."""


def plot_summary(run: Any, axes: Any = None) -> Any:
    """Nonlinearity, the share of nonlinear voxels and mean R2, a row per region.

    Nonlinearity: of the signal, the nonlinear share (filled), and of what is predicted, the share
    that the encoder has found (validated share, open), with 95 % intervals over stimuli; in a run
    without either, median and quartiles of JNE over voxels.
    Nonlinear voxels: at a false discovery rate of 10 %, with Wilson's 95 % interval.

    Parameters
    ----------
    run : Results
    axes : (2,) or (3,) array of Axes, optional
        Three where the run has evidence, else two; by default those of a new figure.

    Returns
    -------
    array of Axes
    """
    table, note = _of_run(run)
    names, called = list(table.index), "share" in table
    with drawing(axes, 3 if called else 2, **_layout(names, called)) as panels:
        _draw(panels, [table], table, names)
        n = f"n = {len(run.voxels)} voxels, {len(run.stimuli)} test stimuli{note}"
        panels[-1].set_xlabel(n)
    return panels


def run_figure(run: Any) -> Figure:
    """The same as a figure, without pyplot."""
    with matplotlib.rc_context(STYLE):
        table, _ = _of_run(run)
        layout = _layout(list(table.index), "share" in table)
        n_panels = len(layout["width_ratios"])
        figure, axes = subplots(1, n_panels, layout="constrained", **layout)
        plot_summary(run, axes)
    return figure


def _of_run(run: Any) -> tuple[pd.DataFrame, str]:
    """What is drawn of each region, of the run's regions and voxels; and which these are."""
    rois, note = drawn_rois(run.voxels)
    names = [*filter(None, rois), _WHOLE]
    table = run.regions.set_index("roi").reindex(names)
    table = table.rename(columns={"r2": "r2_nonlinear"}).drop(columns="jne")
    for name in names:
        voxels = run.voxels if name == _WHOLE else run.voxels[run.voxels["roi"] == name]
        quartiles = voxels["jne"].quantile([0.25, 0.5, 0.75])
        table.loc[name, ["jne_q25", "jne", "jne_q75"]] = quartiles.to_list()
        if "noise_ceiling" in voxels:
            table.loc[name, "noise_ceiling"] = voxels["noise_ceiling"].mean()
        if "nonlinear_p_fdr" in voxels:
            q = voxels["nonlinear_p_fdr"]
            interval = share_interval(int((q <= _RATE).sum()), int(q.count()))
            table.loc[name, ["share", "share_low", "share_high"]] = interval
    return table, note


def summary_figure(
    tables: Sequence[pd.DataFrame],
    rois: Sequence[str],
    note: str,
    across: pd.DataFrame | None = None,
) -> Figure:
    """The same of one subject's table, or of several.

    tables: a row per region with its `roi`. across: the rows over all subjects, where there are
    several tables.
    """
    names = list(rois) or [_WHOLE]
    each = [table.set_index("roi").reindex(names) for table in tables]
    means = each[0] if across is None else across.set_index("roi").reindex(names)
    called = all("share" in table for table in each)
    figure, axes = subplots(1, 3 if called else 2, layout="constrained", **_layout(names, called))
    _draw(axes, each, means, names)
    if note:
        figure.supxlabel(note, fontsize=7, color="#555555")
    return figure


def _layout(names: Sequence[str], called: bool) -> dict[str, Any]:
    return {
        "figsize": (7.4, 0.95 + 0.23 * len(names)),
        "width_ratios": [1.5, 1.0, 1.5] if called else [1, 1],
        "sharey": True,
    }


def _draw(
    axes: Any, each: Sequence[pd.DataFrame], means: pd.DataFrame, names: Sequence[str]
) -> None:
    """Regions from top to bottom; nonlinearity, share of nonlinear voxels and R2 side by side."""
    colours = [COLOURS.get(name, OTHER_COLOUR) for name in names]
    strength, prediction = axes[0], axes[-1]
    _nonlinearity(strength, each, means, colours)
    if len(axes) > 2:
        _marks(axes[1], each, means, "share", colours, ("share_low", "share_high"))
        axes[1].set(title="nonlinear voxels", xlim=(-0.03, 1.03))
        axes[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    for column, (predictor, marker, colour) in PREDICTORS.items():
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
    labels = ["all voxels" if name == _WHOLE else short(name) for name in names]
    strength.set_yticks(range(len(names)), labels)
    for text, colour in zip(strength.get_yticklabels(), colours, strict=True):
        text.set_color(colour)
    strength.set_ylim(len(names) - 0.5, -0.5)
    for panel in axes:
        panel.grid(axis="y", color="#E5E5E5", lw=0.6)
        panel.set_axisbelow(True)


def _ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _nonlinearity(
    panel: Axes, each: Sequence[pd.DataFrame], means: pd.DataFrame, colours: Sequence[str]
) -> None:
    """The shares, filled and open, one above the other; without any, JNE."""
    present = {
        name: [table for table in each if name in table and table[name].notna().any()]
        for name in SHARES
    }
    present = {name: tables for name, tables in present.items() if tables}
    if not present:
        _marks(panel, each, means, "jne", colours, ("jne_q25", "jne_q75"))
        panel.set(title="JNE", xlabel=axis_label("jne").partition("\n")[2].strip("()"))
        panel.set_xlim(left=0)
        return
    rows_apart = (-0.16, 0.16) if len(present) > 1 else (0.0,)
    for (name, tables), down in zip(present.items(), rows_apart, strict=True):
        meaning, filled = SHARES[name]
        _marks(panel, tables, means, name, colours, _ends(name)[1:], down=down, filled=filled)
        face = "#444444" if filled else "white"
        panel.plot([], [], "o", ms=4.5, mec="#444444", mfc=face, ls="none", label=meaning)
    low, high = _limits(
        [table[list(_ends(name))] for name, tables in present.items() for table in tables]
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
