"""JNE against depth and the number of activated layers. Not in the paper."""

from collections.abc import Sequence
from typing import Annotated

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, field_validator

from jne.plots.style import subplots
from jne.simulation.base import Progress, Study
from jne.simulation.labels import label
from jne.simulation.networks import Activation, Inputs, Network, draw_cells


class Depth(Study):
    """JNE by the number of hidden layers and by how many of them, from the first, are activated."""

    activations: list[Activation] = Field(min_length=1)
    depths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    width: int = Field(ge=1)
    inputs: Inputs
    n_stimuli: int = Field(ge=3)
    n_draws: int = Field(ge=1)
    seed: int = Field(ge=0)

    @field_validator("depths")
    @classmethod
    def _increasing(cls, depths: list[int]) -> list[int]:
        return sorted(set(depths))

    def run(self, progress: Progress) -> pd.DataFrame:
        rows = []
        total = sum(depth**2 for depth in self.depths) * self.n_draws
        done = 0
        for depth in self.depths:
            network = Network(n_hidden=depth, width=self.width, skip_first=True, init="default")
            activated: list[Sequence[int]] = [range(1, n + 1) for n in range(1, depth + 1)]
            for draw in range(self.n_draws):
                cells = draw_cells(
                    network,
                    self.inputs,
                    self.activations,
                    activated,
                    n_features=self.width,  # so that the first layer has a skip connection too
                    n_stimuli=self.n_stimuli,
                    seed=self.seed,
                    draw=draw,
                )
                for cell in cells:
                    cell["n_activated"] = len(cell.pop("placement"))
                    rows.append({"n_hidden": depth, **cell})
                done += depth**2
                progress(done / total)
        return pd.DataFrame(rows)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Mean JNE where all layers are activated."""
        full = table[table["n_hidden"] == table["n_activated"]]
        means = full.groupby(["activation", "n_hidden"], as_index=False)["jne"].mean()
        return {f"jne/{row.activation}_{row.n_hidden}": row.jne for row in means.itertuples()}

    def figure(self, table: pd.DataFrame) -> Figure:
        """Mean JNE by the number of activated layers: a panel per activation, a line per depth."""
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
            panel.set(title=label(activation), xlabel="activated layers", xticks=depths)
        axes[0, 0].set_ylabel("mean JNE")
        axes[0, 0].set_ylim(bottom=0)
        axes[0, -1].legend(title="hidden layers", bbox_to_anchor=(1.02, 1), loc="upper left")
        return figure
