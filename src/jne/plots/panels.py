"""Panels that several figures share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from jne.plots.style import COLOURS, OTHER_COLOUR, short

_MANY = 400  # more points than this are drawn as a density
# Where a name stands from its point: the first that is free
_SIDES = ((1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1))
_DISTANCE = 5  # in points of 1/72 inch


def points(
    panel: Axes,
    x: NDArray,
    y: NDArray,
    limits: tuple[float, float],
    of_y: tuple[float, float] | None = None,
) -> None:
    """One point per pair of values (V,), or a density of many, on two equal axes.

    limits: of both; with `of_y`, the limits of y, the axes are not equal.
    """
    if len(x) > _MANY:
        extent = (*limits, *(of_y or limits))
        panel.hexbin(x, y, gridsize=40, bins="log", cmap="viridis", mincnt=1, extent=extent, lw=0.1)
    else:
        panel.plot(x, y, ".", ms=3, color="#0072B2", alpha=0.6, rasterized=True)
    panel.set(xlim=limits, ylim=of_y or limits, aspect="equal" if of_y is None else "auto")


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
    if not any((sample < 0).any() for sample in samples):
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


def name_points(
    panel: Axes, x: NDArray, y: NDArray, names: Sequence[str], colours: Sequence[str]
) -> None:
    """The name of each point beside it, where it hides least of the points and other names.

    The limits of the panel must be set: the places are those of its size now.
    """
    figure = panel.figure
    assert isinstance(figure, Figure)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    at = panel.transData.transform(np.column_stack([x, y]))
    half = 0.7 * _DISTANCE * figure.dpi / 72
    taken = [Bbox([centre - half, centre + half]) for centre in at]
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        text = panel.annotate(
            short(name, 20),
            (x[k], y[k]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=6.5,
            color=colour,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],  # on a line, too
        )
        text.set_in_layout(False)
        hidden = []
        for side in _SIDES:
            _put(text, side)
            extent = text.get_window_extent()
            outside = _area(extent) - _shared(extent, panel.bbox)
            others = sum(_shared(extent, other) for j, other in enumerate(taken) if j != k)
            hidden.append(others + 10 * outside)
        _put(text, _SIDES[int(np.argmin(hidden))])
        taken.append(text.get_window_extent())


def _put(text: Annotation, side: tuple[int, int]) -> None:
    """Put a name on one side of its point."""
    across, up = side
    near = _DISTANCE if 0 in side else 0.6 * _DISTANCE
    text.set_position((near * across, near * up))
    text.set_horizontalalignment(("right", "center", "left")[across + 1])
    text.set_verticalalignment(("top", "center_baseline", "bottom")[up + 1])


def _area(box: BboxBase) -> float:
    return float(box.width * box.height)


def _shared(one: BboxBase, other: BboxBase) -> float:
    """The area that two boxes share."""
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else _area(both)
