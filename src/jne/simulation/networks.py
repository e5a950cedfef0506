"""Untrained networks with one output, random inputs, and the JNE of both together."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from jne.analysis.nonlinearity import jne, mean_deviation
from jne.config import Section
from jne.encoders import ACTIVATIONS, PLACEMENTS, ResidualEncoder
from jne.jacobian import jacobian_deviation

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
