"""Figures of the simulations, drawn from their tables alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jne.plots.style import STYLE, save, subplots
from jne.simulation.base import Study
from jne.simulation.studies import ActivationCurves, Depth, InputScale, PlacementGrid, SampleSize

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito
_NAMES = {
    "relu": "ReLU",
    "leaky_relu": "Leaky ReLU",
    "gelu": "GELU",
    "swish": "Swish",
    "tanh": "tanh",
    "none": "none",
    "loc1": "Loc1",
    "loc2": "Loc2",
    "both": "both",
}


def draw(name: str, study: Study, table: pd.DataFrame, folder: Path) -> Path:
    """The figure of a study, written into `folder`; its path."""
    drawers = {
        ActivationCurves: activation_curves,
        PlacementGrid: placement_grid,
        SampleSize: sample_size,
        InputScale: input_scale,
        Depth: depth,
    }
    path = folder / f"{name}.png"
    with matplotlib.rc_context(STYLE):
        return save(drawers[type(study)](table), path)


def _name(word: str) -> str:
    return _NAMES.get(word, word)


def activation_curves(table: pd.DataFrame) -> Figure:
    """A row a quantity, a column an activation: phi, phi', phi'', and JNE over its closed form."""
    activations = table["activation"].unique()
    rows = ("response", "first_derivative", "second_derivative")
    figure, axes = subplots(
        4,
        len(activations),
        figsize=(1.0 + 1.75 * len(activations), 6.2),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for column, activation in enumerate(activations):
        curve = table[table["activation"] == activation]
        for row, quantity in enumerate(rows):
            axes[row, column].plot(curve["x"], curve[quantity], color=_COLOURS[0])
        bottom = axes[3, column]
        closed_form = {"color": "#BBBBBB", "lw": 4, "label": "|φ″| d / √12", "zorder": 1}
        bottom.plot(curve["x"], 1000 * curve["expected"], **closed_form)
        bottom.plot(curve["x"], 1000 * curve["jne"], color=_COLOURS[1], lw=1, label="JNE")
        bottom.set_xlabel("x")
        axes[0, column].set_title(_name(activation))
    for row, label in enumerate(("φ(x)", "φ′(x)", "φ″(x)", "1000 JNE(x)")):
        axes[row, 0].set_ylabel(label)
    for axis in axes[2]:  # a second derivative of zero is a line, not noise about it
        if np.ptp(axis.lines[0].get_ydata()) == 0:
            axis.set_ylim(-1, 1)
    axes[3, 0].legend(fontsize=6, loc="upper left", bbox_to_anchor=(-0.02, 1.05), handlelength=1)
    return figure


def placement_grid(table: pd.DataFrame) -> Figure:
    """Violins over the draws of the weights with their mean: rows networks, columns activations."""
    networks = table["network"].unique()
    activations = table["activation"].unique()
    placements = list(table["placement"].unique())
    figure, axes = subplots(
        len(networks),
        len(activations),
        figsize=(1.0 + 1.6 * len(activations), 0.5 + 2.2 * len(networks)),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, network in zip(axes, networks, strict=True):
        for panel, activation in zip(row, activations, strict=True):
            cells = table[(table["network"] == network) & (table["activation"] == activation)]
            for position, placement in enumerate(placements):
                values = cells.loc[cells["placement"] == placement, "jne"].to_numpy()
                colour = _COLOURS[position % len(_COLOURS)]
                if len(values) > 2 and np.ptp(values) > 0:
                    violin = panel.violinplot(values, [position], widths=0.8, showextrema=False)
                    violin["bodies"][0].set(facecolor=colour, alpha=0.45)
                ends = (position - 0.3, position + 0.3)
                panel.hlines(np.mean(values), *ends, color="black", lw=1.5, clip_on=False, zorder=5)
            panel.set_xticks(range(len(placements)), [_name(p) for p in placements])
            panel.set_title(_name(activation))
        row[0].set_ylabel("JNE" if len(networks) == 1 else f"JNE\n{network}")
        row[0].set_ylim(bottom=0)
    return figure


def sample_size(table: pd.DataFrame) -> Figure:
    figure, (left, right) = subplots(
        1, 2, figsize=(6.8, 2.6), width_ratios=(3, 2), layout="constrained"
    )
    sizes = sorted(table["n_stimuli"].unique())
    for colour, n in zip(_COLOURS, (sizes[0], sizes[len(sizes) // 2], sizes[-1]), strict=False):
        curve = table[table["n_stimuli"] == n]
        left.plot(curve["t"], curve["jne"], color=colour, lw=0.8, label=f"N = {n}")
    left.set(xlabel="t", ylabel="JNE", title="JNE of random Jacobians times |sin t|")
    left.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, -0.22))
    r = [
        np.corrcoef(curve["jne"], np.abs(np.sin(curve["t"])))[0, 1]
        for _, curve in table.groupby("n_stimuli")
    ]
    right.semilogx(sizes, r, "o-", color=_COLOURS[0], ms=4)
    right.axhline(0.99, color="#999999", lw=0.8, ls="--")
    right.annotate("0.99", (sizes[0], 0.99), xytext=(0, 2), textcoords="offset points", fontsize=7)
    right.set(xlabel="samples N", ylabel="Pearson r with |sin t|", title="How many are enough")
    return figure


def input_scale(table: pd.DataFrame) -> Figure:
    means = table.groupby(["activation", "placement", "inputs"], sort=False)["jne"].mean()
    means = means.unstack("inputs")
    means = means[[name for name in table["inputs"].unique()]]
    return _heat_map(
        means,
        [f"{_name(a)}, {_name(p)}" for a, p in means.index],
        list(means.columns),
        "Mean JNE by distribution and scale of the inputs",
    )


def depth(table: pd.DataFrame) -> Figure:
    activations = table["activation"].unique()
    figure, axes = subplots(
        1,
        len(activations),
        figsize=(1.2 + 1.9 * len(activations), 2.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    means = table.groupby(["activation", "n_hidden", "n_activated"])["jne"].mean()
    depths = sorted(table["n_hidden"].unique())
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(depths)))
    for panel, activation in zip(axes[0], activations, strict=True):
        for colour, n_hidden in zip(colours, depths, strict=True):
            curve = means[activation][n_hidden]
            panel.plot(curve.index, curve, "o-", ms=3, lw=1, color=colour, label=n_hidden)
        panel.set(title=_name(activation), xlabel="activated layers", xticks=depths)
    axes[0, 0].set_ylabel("mean JNE")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, -1].legend(title="hidden layers", bbox_to_anchor=(1.02, 1), loc="upper left")
    return figure


def _heat_map(values: pd.DataFrame, rows: list[str], columns: list[str], title: str) -> Figure:
    size = (1.8 + 0.75 * len(columns), 1.2 + 0.24 * len(rows))
    figure, axes = subplots(figsize=size, layout="constrained")
    drawn = axes.imshow(values, cmap="viridis", aspect="auto", vmin=0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), [name.replace(" ", "\n") for name in columns])
    middle = np.nanmax(values.to_numpy()) / 2
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        colour = "black" if value > middle else "white"
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=6, color=colour)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    figure.colorbar(drawn, ax=axes, label="JNE", pad=0.02)
    return figure
