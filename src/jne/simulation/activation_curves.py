"""JNE of one activation along its input, against its second derivative (Gao et al. 2025, A.5)."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from jne.analysis.nonlinearity import jne
from jne.encoders import ACTIVATIONS, ResidualEncoder
from jne.jacobian import jacobian_deviation
from jne.plots.style import subplots
from jne.simulation.base import Progress, Study
from jne.simulation.labels import COLOURS, label
from jne.simulation.networks import Activation


class ActivationCurves(Study):
    """JNE of a single activation phi in a small window around each centre x.

    To first order, JNE(x) = |phi''(x)| window / sqrt(12) for a smooth phi. A piecewise linear phi
    has JNE 0 everywhere but at its kink.
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
            raise ValueError(f"start={self.start} must be below stop={self.stop}")
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
        """Of a smooth activation the largest relative error; of the others JNE off the kink."""
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

    def figure(self, table: pd.DataFrame) -> Figure:
        """One column per activation; rows phi, phi', phi'', and JNE over its closed form."""
        activations = table["activation"].unique()
        quantities = ("response", "first_derivative", "second_derivative")
        figure, axes = subplots(
            4,
            len(activations),
            figsize=(1.0 + 1.75 * len(activations), 6.2),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for column, activation in enumerate(activations):
            curve = table[table["activation"] == activation]
            for row, quantity in enumerate(quantities):
                axes[row, column].plot(curve["x"], curve[quantity], color=COLOURS[0])
            bottom = axes[3, column]
            closed_form = {"color": "#BBBBBB", "lw": 4, "label": "|φ″| d / √12", "zorder": 1}
            bottom.plot(curve["x"], 1000 * curve["expected"], **closed_form)
            bottom.plot(curve["x"], 1000 * curve["jne"], color=COLOURS[1], lw=1, label="JNE")
            bottom.set_xlabel("x")
            axes[0, column].set_title(label(activation))
        for row, text in enumerate(("φ(x)", "φ′(x)", "φ″(x)", "1000 JNE(x)")):
            axes[row, 0].set_ylabel(text)
        for panel in axes[2]:  # draw a second derivative of zero as a line, not as noise around it
            if np.ptp(panel.lines[0].get_ydata()) == 0:
                panel.set_ylim(-1, 1)
        legend = {"fontsize": 6, "loc": "upper left", "handlelength": 1}
        axes[3, 0].legend(bbox_to_anchor=(-0.02, 1.05), **legend)
        return figure


def _identity_encoder(activation: str) -> ResidualEncoder:
    """y = phi(x), whose Jacobian is phi'(x)."""
    encoder = ResidualEncoder(1, 1, hidden_width=1, n_hidden=1, activation=activation, bias=False)
    for parameter in encoder.parameters():
        nn.init.ones_(parameter)
    return encoder.double()


def _derivatives(
    activation: str, x: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """phi, phi' and phi'' at x, by autograd; each of the shape of x."""
    argument = torch.as_tensor(x, dtype=torch.double).requires_grad_()
    response = ACTIVATIONS[activation]()(argument)
    (first,) = torch.autograd.grad(response.sum(), argument, create_graph=True)
    second = torch.zeros_like(first)
    if first.requires_grad:
        (derivative,) = torch.autograd.grad(first.sum(), argument, allow_unused=True)
        second = second if derivative is None else derivative
    return response.detach().numpy(), first.detach().numpy(), second.numpy()
