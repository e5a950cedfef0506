"""The paper's simulations (3.1, A.5-A.7) and one more, with the package's own encoder and metrics.

Each study is a class whose fields are its config keys. `run` gives its table, `summary` the
scalars that answer its question.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from jne.analysis.nonlinearity import jne, mean_deviation
from jne.encoders import ACTIVATIONS, PLACEMENTS, ResidualEncoder
from jne.jacobian import jacobian_deviation
from jne.simulation.base import Progress, Study

Activation = Literal[tuple(ACTIVATIONS)]
INITIALISATIONS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "default": None,  # PyTorch's for nn.Linear
    "xavier_uniform": nn.init.xavier_uniform_,
    "kaiming_normal": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
}


# --- (a) activation curves (A.5) ----------------------------------------------------------------


class ActivationCurves(Study):
    """JNE of a single activation in a small window around each centre, along its input.

    To first order, for a smooth phi, JNE(x) = |phi''(x)| window / sqrt(12); a piecewise linear one
    has 0 everywhere but at its kink.
    """

    activations: list[Activation] = Field(min_length=1)
    start: float
    stop: float
    step: float = Field(gt=0)
    window: float = Field(gt=0)
    n_points: int = Field(ge=2)

    @model_validator(mode="after")
    def _not_empty(self) -> "ActivationCurves":
        if not self.start < self.stop:
            raise ValueError(
                f"start={self.start} to stop={self.stop} is a range with nothing in it"
            )
        return self

    def run(self, progress: Progress) -> pd.DataFrame:
        n_steps = round((self.stop - self.start) / self.step)
        centres = self.start + self.step * np.arange(n_steps + 1)
        centres[np.abs(centres) < self.step * 1e-6] = 0  # the kink itself, not beside it
        offsets = torch.linspace(-self.window, self.window, self.n_points, dtype=torch.double)
        tables = []
        for k, activation in enumerate(self.activations):
            encoder = _identity_encoder(activation)
            curve = np.empty(len(centres))
            for i, centre in enumerate(centres):
                curve[i] = jne(jacobian_deviation(encoder, (centre + offsets)[:, None]))[0]
                if i % 50 == 0:
                    progress((k + i / len(centres)) / len(self.activations))
            response, first, second = _derivatives(activation, centres)
            tables.append(
                pd.DataFrame(
                    {
                        "activation": activation,
                        "x": centres,
                        "jne": curve,
                        "expected": np.abs(second) * self.window / np.sqrt(12),
                        "response": response,
                        "first_derivative": first,
                        "second_derivative": second,
                    }
                )
            )
        progress(1.0)
        return pd.concat(tables, ignore_index=True)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        metrics = {}
        for activation, curve in table.groupby("activation", sort=False):
            curved = curve[curve["second_derivative"].abs() > 0.01]
            if len(curved):
                error = (curved["jne"] / curved["expected"] - 1).abs().max()
                metrics[f"relative_error/{activation}"] = error
            else:
                away = curve[curve["x"].abs() > self.window]
                metrics[f"jne_away_from_0/{activation}"] = away["jne"].max()
        return metrics


def _identity_encoder(activation: str) -> ResidualEncoder:
    """y = phi(x), whose Jacobian is phi'(x)."""
    encoder = ResidualEncoder(1, 1, hidden_width=1, n_hidden=1, activation=activation, bias=False)
    for parameter in encoder.parameters():
        nn.init.ones_(parameter)
    return encoder.double()


def _derivatives(activation: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi, phi' and phi'' at x, by autograd."""
    argument = torch.as_tensor(x, dtype=torch.double).requires_grad_()
    response = ACTIVATIONS[activation]()(argument)
    (first,) = torch.autograd.grad(response.sum(), argument, create_graph=True)
    second = torch.zeros_like(first)
    if first.requires_grad:
        (found,) = torch.autograd.grad(first.sum(), argument, allow_unused=True)
        second = second if found is None else found
    return response.detach().numpy(), first.detach().numpy(), second.numpy()


# --- (b) placement grid (A.6) -------------------------------------------------------------------


class Inputs(BaseModel):
    """Random features: uniform on [-scale, scale], or normal with the same standard deviation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distribution: Literal["uniform", "normal"]
    scale: float = Field(gt=0)

    def draw(self, n: int, d: int, generator: torch.Generator) -> Tensor:  # (n, d)
        if self.distribution == "uniform":
            return (2 * torch.rand(n, d, generator=generator) - 1) * self.scale
        return torch.randn(n, d, generator=generator) * self.scale / 3**0.5

    def __str__(self) -> str:
        return f"{self.distribution} {self.scale:g}"


class Network(BaseModel):
    """An untrained network with one output: its depth, width, first skip and initialisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_hidden: int = Field(ge=1)
    width: int = Field(ge=1)
    skip_first: bool
    init: Literal[tuple(INITIALISATIONS)]

    def draw(self, n_features: int, seed: int) -> ResidualEncoder:
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


class PlacementGrid(Study):
    """JNE of untrained networks, by activation and where it acts (A.6).

    The weights of a draw are the same for all activations and placements.
    """

    activations: list[Activation] = Field(min_length=1)
    placements: list[Literal[PLACEMENTS]] = Field(min_length=1)
    networks: list[Network] = Field(min_length=1)
    inputs: Inputs
    n_features: int = Field(ge=1)
    n_stimuli: int = Field(ge=3)
    n_draws: int = Field(ge=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _networks_can_be_built(self) -> "PlacementGrid":
        for network in self.networks:
            encoder = network.draw(self.n_features, 0)
            for placement in self.placements:
                encoder.with_activation(self.activations[0], placement)
        return self

    def run(self, progress: Progress) -> pd.DataFrame:
        rows = []
        total = len(self.networks) * self.n_draws
        for k, network in enumerate(self.networks):
            for draw in range(self.n_draws):
                cells = draw_cells(
                    network, self.inputs, self, draw, self.activations, self.placements
                )
                rows += [{"network": str(network), **cell} for cell in cells]
                progress((k * self.n_draws + draw + 1) / total)
        return pd.DataFrame(rows)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        first = table[table["network"] == table["network"].iloc[0]]
        means = first.groupby(["activation", "placement"])["jne"].mean()
        metrics = {f"jne/{a}_{p}": value for (a, p), value in means.items()}
        if set(PLACEMENTS) <= set(self.placements):
            for activation, cells in first.groupby("activation", sort=False):
                wide = cells.pivot(index="draw", columns="placement", values="jne")
                ordered = (wide["none"] == 0) & (wide["loc1"] > 0)
                ordered &= (wide["loc1"] < wide["loc2"]) & (wide["loc2"] < wide["both"])
                metrics[f"draws_in_order/{activation}"] = float(ordered.sum())
        return metrics


def draw_cells(
    network: Network,
    inputs: Inputs,
    sizes: "PlacementGrid | InputScale | Depth",
    draw: int,
    activations: Sequence[str],
    placements: Sequence[str | Sequence[int]],
) -> list[dict]:
    """JNE and mean deviation of one draw of the weights, for every activation and placement."""
    generator = torch.Generator().manual_seed(_seed(sizes.seed, draw, 0))
    x = inputs.draw(sizes.n_stimuli, sizes.n_features, generator)
    encoder = network.draw(sizes.n_features, _seed(sizes.seed, draw, 1))
    memo: dict = {}  # what the placements share is computed once
    cells = []
    for activation in activations:
        for placement in placements:
            cell = encoder.with_activation(activation, placement)
            deviation = jacobian_deviation(cell, x, memo=memo)
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


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


# --- (c) sample size (A.7.1) --------------------------------------------------------------------


class SampleSize(Study):
    """How many samples JNE needs to follow a known nonlinearity, |sin t|."""

    sizes: list[Annotated[int, Field(ge=2)]] = Field(min_length=1)
    n_points: int = Field(ge=3)
    n_features: int = Field(ge=1)
    seed: int = Field(ge=0)

    def run(self, progress: Progress) -> pd.DataFrame:
        generator = torch.Generator().manual_seed(_seed(self.seed))
        points = np.linspace(0, 2 * np.pi, self.n_points)
        done, total = 0, sum(self.sizes) * self.n_points
        tables = []
        for n in self.sizes:
            curve = np.empty(self.n_points)
            for k, t in enumerate(points):
                jacobians = torch.randn(n, self.n_features, generator=generator) * abs(np.sin(t))
                deviation = (jacobians - jacobians.mean(dim=0)).abs().sum(dim=1)
                curve[k] = jne(deviation[:, None].numpy())[0]
                done += n
                progress(done / total)
            tables.append(pd.DataFrame({"n_stimuli": n, "t": points, "jne": curve}))
        return pd.concat(tables, ignore_index=True)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        return {
            f"r/{n:04d}": np.corrcoef(curve["jne"], np.abs(np.sin(curve["t"])))[0, 1]
            for n, curve in table.groupby("n_stimuli")
        }


# --- (d) input distribution and scale (A.7.2) ---------------------------------------------------


class InputScale(Study):
    """The placement grid under other distributions and scales of the inputs."""

    activations: list[Activation] = Field(min_length=1)
    placements: list[Literal[PLACEMENTS]] = Field(min_length=1)
    network: Network
    inputs: list[Inputs] = Field(min_length=1)
    n_features: int = Field(ge=1)
    n_stimuli: int = Field(ge=3)
    n_draws: int = Field(ge=1)
    seed: int = Field(ge=0)

    def run(self, progress: Progress) -> pd.DataFrame:
        rows = []
        for k, inputs in enumerate(self.inputs):
            for draw in range(self.n_draws):
                cells = draw_cells(
                    self.network, inputs, self, draw, self.activations, self.placements
                )
                rows += [{"inputs": str(inputs), **cell} for cell in cells]
                progress((k * self.n_draws + draw + 1) / (len(self.inputs) * self.n_draws))
        return pd.DataFrame(rows)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        """The largest relative change of a mean JNE against the first of the inputs."""
        means = table.groupby(["inputs", "activation", "placement"])["jne"].mean().unstack("inputs")
        reference = means[str(self.inputs[0])]
        means = means[reference > 0]
        changes = means.div(reference[reference > 0], axis=0).sub(1).abs().max()
        return {f"largest_change/{name.replace(' ', '_')}": c for name, c in changes.items()}


# --- further than the paper: depth --------------------------------------------------------------


class Depth(Study):
    """JNE against the number of hidden layers, and of those with an activation, first to last."""

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

    @property
    def n_features(self) -> int:
        """As many as hidden units: the first layer has a skip connection too."""
        return self.width

    def run(self, progress: Progress) -> pd.DataFrame:
        rows = []
        total = sum(depth**2 for depth in self.depths) * self.n_draws
        done = 0
        for depth in self.depths:
            network = Network(n_hidden=depth, width=self.width, skip_first=True, init="default")
            counts = {count: list(range(1, count + 1)) for count in range(1, depth + 1)}
            for draw in range(self.n_draws):
                cells = draw_cells(
                    network, self.inputs, self, draw, self.activations, counts.values()
                )
                for cell in cells:
                    cell["n_activated"] = len(cell.pop("placement"))
                    rows.append({"n_hidden": depth, **cell})
                done += depth**2
                progress(done / total)
        return pd.DataFrame(rows)

    def summary(self, table: pd.DataFrame) -> dict[str, float]:
        full = table[table["n_hidden"] == table["n_activated"]]
        means = full.groupby(["activation", "n_hidden"])["jne"].mean()
        return {f"jne/{activation}_{depth}": value for (activation, depth), value in means.items()}
