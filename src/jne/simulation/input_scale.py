"""Do the distribution and the scale of the inputs matter (Gao et al. 2025, A.7.2)?"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from jne.plots.style import subplots
from jne.simulation.base import Progress
from jne.simulation.labels import label
from jne.simulation.networks import Grid, Inputs, Network


class InputScale(Grid):
    """The placement grid of one network under other distributions and scales of the inputs."""

    network: Network
    inputs: list[Inputs] = Field(min_length=1)

    def run(self, progress: Progress) -> pd.DataFrame:
        return self.cells("inputs", [(str(i), self.network, i) for i in self.inputs], progress)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """The largest relative change of a mean JNE from its value under the first inputs."""
        wide = _mean_jne(table)
        reference = wide[str(self.inputs[0])]
        wide = wide[reference > 0]
        changes = wide.div(reference[reference > 0], axis=0).sub(1).abs().max()
        names = sorted(changes.index)
        return {f"largest_change/{name.replace(' ', '_')}": changes[name] for name in names}

    def figure(self, table: pd.DataFrame) -> Figure:
        """A heat map of mean JNE: one row per activation and placement, one column per inputs."""
        wide = _mean_jne(table)
        values = wide.to_numpy()
        rows = [f"{label(activation)}, {label(placement)}" for activation, placement in wide.index]
        columns = [str(name).replace(" ", "\n") for name in wide]
        size = (1.8 + 0.75 * len(columns), 1.2 + 0.24 * len(rows))
        figure, axes = subplots(figsize=size, layout="constrained")
        drawn = axes.imshow(values, cmap="viridis", aspect="auto", vmin=0)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(columns)), columns)
        middle = np.nanmax(values) / 2
        for (i, j), value in np.ndenumerate(values):
            colour = "black" if value > middle else "white"
            text = {"ha": "center", "va": "center", "fontsize": 6, "color": colour}
            axes.text(j, i, f"{value:.3f}", **text)
        axes.spines[:].set_visible(False)
        axes.set_title("Mean JNE by distribution and scale of the inputs")
        figure.colorbar(drawn, ax=axes, label="JNE", pad=0.02)
        return figure


def _mean_jne(table: pd.DataFrame) -> pd.DataFrame:
    """Mean JNE over draws: one row per activation and placement, one column per inputs."""
    cell = ["activation", "placement"]
    return table.pivot_table("jne", cell, "inputs", sort=False)
