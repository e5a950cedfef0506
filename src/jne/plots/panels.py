"""Panels that several figures share."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from jne.plots.style import COLOURS, OTHER_COLOUR


def violins(panel: Axes, samples: list[pd.Series], names: list[str]) -> None:
    """A violin with its points and median for each sample, in the colour of its ROI or tier."""
    rng = np.random.default_rng(0)  # of the points' sideways jitter only
    for position, (sample, name) in enumerate(zip(samples, names, strict=True)):
        values = sample.to_numpy()
        colour = COLOURS.get(name, OTHER_COLOUR)
        if len(values) > 2 and np.ptp(values) > 0:
            body = panel.violinplot(values, [position], widths=0.85, showextrema=False)
            body["bodies"][0].set(facecolor=colour, alpha=0.3)
        shown = values if len(values) <= 300 else rng.choice(values, 300, replace=False)
        jitter = position + rng.uniform(-0.15, 0.15, len(shown))
        panel.plot(jitter, shown, ".", ms=2, color=colour, alpha=0.6, rasterized=True)
        if len(values):
            panel.hlines(np.median(values), position - 0.3, position + 0.3, color="black", lw=1)
    panel.set_ylim(bottom=0)


def name_groups(panel: Axes, names: list[str]) -> None:
    """The names below the violins, in the colours of their tiers."""
    many = len(names) > 12
    panel.set_xticks(
        range(len(names)),
        [name or "all voxels" for name in names],
        rotation=90 if many else 0,
    )
    for label in panel.get_xticklabels():
        label.set_color(COLOURS.get(label.get_text(), "black"))
