"""Untrained networks with one output, random inputs, and the JNE of both together."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from jne.analysis.nonlinearity import jne, mean_deviation
from jne.config import Section
from jne.encoders import ACTIVATIONS, PLACEMENTS, ResidualEncoder
from jne.jacobian import jacobian_deviation
from jne.simulation.base import Progress, Study

INITIALISATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,  # PyTorch's for nn.Linear
    "xavier_uniform": nn.init.xavier_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
}


def _one_of(names: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"choose one of {', '.join(names)}")
        return name

    return AfterValidator(check)


Activation = Annotated[str, _one_of(ACTIVATIONS)]
Placement = Annotated[str, _one_of(PLACEMENTS)]
Initialisation = Annotated[str, _one_of(INITIALISATIONS)]


class Inputs(Section):
    """Random features: uniform on [-scale, scale], or normal with the same standard deviation."""

    distribution: Literal["uniform", "normal"]
    scale: float = Field(gt=0)

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:
        """(n, d) float32."""
        if self.distribution == "uniform":
            return (2 * torch.rand(n, d, generator=generator) - 1) * self.scale
        return torch.randn(n, d, generator=generator) * self.scale / 3**0.5

    def __str__(self) -> str:
        return f"{self.distribution} {self.scale:g}"


class Network(Section):
    """An untrained network with one output: its depth, width, first skip and initialisation."""

    n_hidden: int = Field(ge=1)
    width: int = Field(ge=1)
    skip_first: bool
    init: Initialisation

    def draw(self, n_features: int, seed: int) -> ResidualEncoder:
        """An encoder whose weights depend on the seed alone; torch's global generator stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = ResidualEncoder(
                n_features,
                1,
                hidden_width=self.width,
                n_hidden=self.n_hidden,
                skip_first=self.skip_first,
            )
            initialise = INITIALISATIONS[self.init]
            if initialise is not None:
                for layer in (*encoder.hidden, encoder.readout):
                    initialise(layer.weight)
        return encoder.eval()

    def __str__(self) -> str:
        skip = "" if self.skip_first else ", no first skip"
        init = "" if self.init == "default" else f", {self.init}"
        return f"{self.n_hidden} x {self.width}{skip}{init}"


def derived_seed(*parts: int) -> int:
    """A seed for one random stream, from the study's seed and the numbers of the stream."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def draw_cells(
    network: Network,
    inputs: Inputs,
    activations: Sequence[str],
    placements: Sequence[str | Sequence[int]],
    *,
    n_features: int,
    n_stimuli: int,
    seed: int,
    draw: int,
) -> list[dict[str, Any]]:
    """JNE and mean deviation at one draw of weights and inputs, by activation and placement.

    The weights and the inputs of a draw are the same for all activations and placements. Returns
    one dict per cell: activation, placement, draw, jne, mean_deviation.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, draw, 0))
    x = inputs.draw(n_stimuli, n_features, generator)
    weights = network.draw(n_features, derived_seed(seed, draw, 1))
    memo: dict[tuple[str, ...], Tensor] = {}  # what the cells share is computed once
    cells = []
    for activation in activations:
        for placement in placements:
            encoder = weights.with_activation(activation, placement)
            deviation = jacobian_deviation(encoder, x, memo=memo)
            cells.append(
                {
                    "activation": activation,
                    "placement": placement,
                    "draw": draw,
                    "jne": jne(deviation)[0],
                    "mean_deviation": mean_deviation(deviation)[0],
                }
            )
    return cells


class Grid(Study):
    """A study of every activation and placement in several cases, over draws of the weights."""

    activations: list[Activation] = Field(min_length=1)
    placements: list[Placement] = Field(min_length=1)
    n_features: int = Field(ge=1)
    n_stimuli: int = Field(ge=3)
    n_draws: int = Field(ge=1)
    seed: int = Field(ge=0)

    def cells(
        self, column: str, cases: Sequence[tuple[str, Network, Inputs]], progress: Progress
    ) -> pd.DataFrame:
        """One row per draw and cell. column: that of the names of the cases."""
        rows = []
        for k, (case, network, inputs) in enumerate(cases):
            for draw in range(self.n_draws):
                cells = draw_cells(
                    network,
                    inputs,
                    self.activations,
                    self.placements,
                    n_features=self.n_features,
                    n_stimuli=self.n_stimuli,
                    seed=self.seed,
                    draw=draw,
                )
                rows += [{column: case, **cell} for cell in cells]
                progress((k * self.n_draws + draw + 1) / (len(cases) * self.n_draws))
        return pd.DataFrame(rows)
