"""Panels that several figures share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from jne.plots.style import COLOURS, OTHER_COLOUR, short

_MANY = 400  # more points than this are drawn as a density


def points(panel: Axes, x: NDArray, y: NDArray, limits: tuple[float, float]) -> None:
    """One point per pair of values (V,), or a density of many points, on two equal axes."""
    if len(x) > _MANY:
        extent = (*limits, *limits)
        panel.hexbin(x, y, gridsize=40, bins="log", cmap="viridis", mincnt=1, extent=extent, lw=0.1)
    else:
        panel.plot(x, y, ".", ms=3, color="#0072B2", alpha=0.6, rasterized=True)
    panel.set(xlim=limits, ylim=limits, aspect="equal")


def limits_of(*values: pd.Series) -> tuple[float, float]:
    """Limits of an axis that shows 0 and all finite values, with a margin of 3 %."""
    finite = pd.concat(values).dropna()
    if finite.empty:
        return 0.0, 1.0
    low, high = min(0.0, finite.min()), max(0.1, finite.max())
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def violins(panel: Axes, samples: Sequence[pd.Series], names: Sequence[str]) -> None:
    """A violin with points and median for each sample, in the colour of its ROI or tier."""
    rng = np.random.default_rng(0)  # only for the jitter of the points
    for position, (sample, name) in enumerate(zip(samples, names, strict=True)):
        values = sample.to_numpy()
        colour = COLOURS.get(name, OTHER_COLOUR)
        if len(values) > 2 and np.ptp(values) > 0:
            body: Any = panel.violinplot(values, [position], widths=0.85, showextrema=False)
            body["bodies"][0].set(facecolor=colour, alpha=0.3)
        subset = values if len(values) <= 300 else rng.choice(values, 300, replace=False)
        jitter = position + rng.uniform(-0.15, 0.15, len(subset))
        panel.plot(jitter, subset, ".", ms=2, color=colour, alpha=0.6, rasterized=True)
        if len(values):
            panel.hlines(np.median(values), position - 0.3, position + 0.3, color="black", lw=1)
    panel.set_ylim(bottom=0)


def name_groups(panel: Axes, names: Sequence[str]) -> None:
    """The names below the violins, in the colours of their tiers; an empty name is all voxels."""
    many = len(names) > 12
    panel.set_xticks(
        range(len(names)),
        [short(name) or "all voxels" for name in names],
        rotation=90 if many else 0,
    )
    for label in panel.get_xticklabels():
        label.set_color(COLOURS.get(label.get_text(), "black"))
