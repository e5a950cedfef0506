"""Planted twins (`control=planted`): surrogate voxels whose nonlinear share is known.

    planted = linear + sqrt(L a / (1 - a)) nonlinear + noise

linear and noise are those of the voxel's linear twin, L the share of the variance that is linear,
and nonlinear what no linear fit to the features has of the encoder's own prediction, at unit
variance. The noise shrinks by as much variance as the nonlinear part adds: a voxel whose nonlinear
share is a, and whose linear power is L, has that noise. A second encoder, with the settings of the
first, is trained on voxels, linear twins and planted twins together. Its JNE at each planted share
says what would have been found, and, turned around, how nonlinear each voxel is
(`jne.analysis.planted_share`, docs/inference.md).

N stimuli, V voxels, V' trained voxels, K of them with twins.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.analysis.planted_share import MAX_NOISE_CONVERTED, largest_share, planted_share
from jne.data.datamodule import EncodingData, Twins
from jne.data.folds import cross_validation
from jne.encoders.ridge import RidgeCV
from jne.fitting.config import FitConfig
from jne.fitting.fit import Fitted, fit
from jne.fitting.readout import last_layer
from jne.measuring.config import JacobianConfig
from jne.measuring.nonlinearity import jne_of
from jne.nulls.twins import TwinParts, stored_twins
from jne.results.contents import planted_column

_NOTHING = 1e-5  # of the standard deviation of a response: rounding


def planted_columns(
    parts: TwinParts,
    first: Fitted,
    planted: list[float],
    measured: NDArray[np.int64],
    config: FitConfig,
    jacobian: JacobianConfig,
    folder: Path,
) -> dict[str, NDArray]:
    """Train the second encoder. Columns (V,) for the voxel table, NaN for voxels without twins:

    linear_power, the share of a voxel's variance that is linear; jne_planted_fit and
    jne_planted_0, JNE of the voxel and of its linear twin in this encoder; jne_planted_10 and so
    on, of the planted twins, by their shares in percent; planted_share, and the ends of its
    interval, planted_share_low and planted_share_high.

    first: the encoder that was trained on voxels and linear twins. measured: which of the V'
    trained voxels have a JNE; the others get none here. folder: where the deviations are kept that
    a restart continues from.
    """
    twins, power = planted_twins(parts, first, planted)
    data = parts.data.with_twins(twins)
    second = fit(data, config, parts.stages)
    chosen = np.flatnonzero(np.isin(twins.voxels, measured))  # of the K
    # The voxels themselves, then their twins, draw after draw
    of_draws = data.n_trained + len(twins.voxels) * np.arange(twins.n_draws)[:, None]
    outputs = np.concatenate([twins.voxels[chosen], (of_draws + chosen).ravel()])
    title = "Jacobians of planted twins"
    jne = jne_of([second.encoder], data, outputs, jacobian, folder, title)
    jne = jne.reshape(1 + twins.n_draws, len(chosen))
    power = power[chosen]
    levels = np.array([0, *planted])
    shares = np.minimum(levels[:, None], largest_share(power))
    estimate, low, high = planted_share(jne[0], power, shares, jne[1:])
    columns = {
        "linear_power": power,
        "jne_planted_fit": jne[0],
        **{planted_column(a): values for a, values in zip(levels, jne[1:], strict=True)},
        "planted_share": estimate,
        "planted_share_low": low,
        "planted_share_high": high,
    }
    return {name: data.all_voxels(v, twins.voxels[chosen]) for name, v in columns.items()}


def planted_twins(
    parts: TwinParts, first: Fitted, planted: list[float]
) -> tuple[Twins, NDArray[np.float64]]:
    """Linear twins, then twins of each planted share; and the linear power of the K voxels (K,)."""
    rows = parts.rows
    power = torch.empty(len(parts.voxels))
    # Not before a twin is to be made: it costs a ridge regression
    nonlinear_part = cache(partial(_NonlinearPart, parts.data, first.encoder, rows))

    def columns(block: slice) -> list[Tensor]:
        ((linear, noise),) = parts.parts(block, 1)
        of_linear, of_noise = linear[rows].var(dim=0), noise[rows].var(dim=0)
        power[block] = of_linear / (of_linear + of_noise)
        shape = nonlinear_part().residual(parts.voxels[block])
        made = [linear + noise]
        for a in planted:
            share = torch.from_numpy(np.minimum(largest_share(power[block].numpy()), a))
            added = of_linear * share / (1 - share)
            kept = ((of_noise - added) / of_noise).clamp(min=1 - MAX_NOISE_CONVERTED)
            made.append(linear + added.sqrt() * shape + kept.sqrt() * noise)
        return made

    about = {**parts.identity, "planted": planted, "fit": first.identity}
    n_draws, facts = 1 + len(planted), lambda: {"power": power.double().numpy()}
    twins, stored = stored_twins(parts, "planted twins", about, n_draws, columns, facts)
    return twins, stored["power"]


class _NonlinearPart:
    """The residual of the encoder's predictions after ridge regression on the features."""

    def __init__(self, data: EncodingData, encoder: nn.Module, rows: NDArray[np.int64]) -> None:
        self._readout, hidden = last_layer(encoder, data, np.arange(len(data.features)))
        features = data.features - data.features[rows].mean(dim=0)
        hidden = hidden - hidden[rows].mean(dim=0)
        ridge = RidgeCV(features[rows], cross_validation(data))
        self._hidden, self._rows = hidden - features @ ridge.fit(hidden[rows]).weights, rows

    def residual(self, voxels: NDArray[np.int64]) -> Tensor:
        """(N, v), of unit variance over the fitted stimuli; 0 where nothing is left."""
        residual = self._hidden @ self._readout.weight[voxels].detach().T
        spread = residual[self._rows].std(dim=0)
        return torch.where(spread > _NOTHING, residual / spread, torch.zeros(()))
