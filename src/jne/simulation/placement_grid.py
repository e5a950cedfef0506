"""JNE of untrained networks, by activation and where it acts (Gao et al. 2025, A.6)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from jne.encoders import PLACEMENTS
from jne.plots.style import subplots
from jne.simulation.base import Progress
from jne.simulation.labels import COLOURS, label
from jne.simulation.networks import Grid, Inputs, Network


class PlacementGrid(Grid):
    """JNE of every network, activation and placement, over draws of the weights."""

    networks: list[Network] = Field(min_length=1)
    inputs: Inputs

    @model_validator(mode="after")
    def _networks_can_be_built(self) -> "PlacementGrid":
        for network in self.networks:
            encoder = network.draw(self.n_features, 0)
            for placement in self.placements:
                encoder.with_activation(self.activations[0], placement)
        return self

    def run(self, progress: Progress) -> pd.DataFrame:
        return self.cells("network", [(str(n), n, self.inputs) for n in self.networks], progress)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """Mean JNE of the first network; in how many draws none = 0 < Loc1 < Loc2 < both."""
        first = table[table["network"] == table["network"].iloc[0]]
        means = first.groupby(["activation", "placement"], as_index=False)["jne"].mean()
        metrics = {f"jne/{row.activation}_{row.placement}": row.jne for row in means.itertuples()}
        if set(PLACEMENTS) <= set(self.placements):
            for activation, cells in first.groupby("activation", sort=False):
                wide = cells.pivot(index="draw", columns="placement", values="jne")
                ordered = (wide["none"] == 0) & (wide["loc1"] > 0)
                ordered &= (wide["loc1"] < wide["loc2"]) & (wide["loc2"] < wide["both"])
                metrics[f"draws_in_order/{activation}"] = float(ordered.sum())
        return metrics

    def figure(self, table: pd.DataFrame) -> Figure:
        """Violins over the draws with their means: a row per network, a column per activation."""
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
                    if len(values) > 2 and np.ptp(values) > 0:
                        violin = panel.violinplot(values, [position], widths=0.8, showextrema=False)
                        colour = COLOURS[position % len(COLOURS)]
                        violin["bodies"][0].set(facecolor=colour, alpha=0.45)
                    ends = (position - 0.3, position + 0.3)
                    line = {"color": "black", "lw": 1.5, "clip_on": False, "zorder": 5}
                    panel.hlines(np.mean(values), *ends, **line)
                panel.set_xticks(range(len(placements)), [label(p) for p in placements])
                panel.set_title(label(activation))
            row[0].set_ylabel("JNE" if len(networks) == 1 else f"JNE\n{network}")
            row[0].set_ylim(bottom=0)
        return figure
