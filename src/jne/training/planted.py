"""Planted twins (`control=planted`): made-up voxels whose nonlinear share is known.

    planted = linear + sqrt(L a / (1 - a)) nonlinear + noise

linear and noise are those of the voxel's linear twin, L the share of the variance that is linear,
and nonlinear what no linear fit to the features has of the encoder's own prediction, at unit
variance. The noise shrinks by as much variance as the nonlinear part adds: a voxel whose nonlinear
share is a, and whose linear power is L, has that noise. A second encoder, with the settings of the
first, is trained on voxels, linear twins and planted twins together. Its JNE at each planted share
says what would have been found, and, turned around, how nonlinear each voxel is
(`jne.analysis.nonlinear_share`, docs/inference.md).

N stimuli, V voxels, V' trained voxels, K of them with twins.
"""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.analysis.nonlinear_share import MOST_OF_NOISE, largest_share, nonlinear_share
from jne.data.datamodule import EncodingData, Twins
from jne.encoders.ridge import RidgeCV
from jne.results.contents import planted_column
from jne.training.config import FitConfig
from jne.training.fit import fit
from jne.training.measure import jne_of
from jne.training.module import EncodingModule
from jne.training.readout import cross_validation, last_layer
from jne.training.twins import TwinParts, write_twins

_NOTHING = 1e-5  # of the standard deviation of a response: rounding


def planted_columns(
    config: FitConfig,
    data: EncodingData,
    encoder: nn.Module,
    measured: NDArray[np.int64],
    folder: Path,
) -> dict[str, NDArray]:
    """Train the second encoder. Columns (V,) for the voxel table, NaN for voxels without twins:

    linear_power, the share of a voxel's variance that is linear; jne_beside_planted and
    jne_planted_0, JNE of the voxel and of its linear twin in this encoder; jne_planted_10 and so
    on, of the planted twins, by their shares in percent; nonlinear_share, and the ends of its
    interval, nonlinear_share_low and nonlinear_share_high.

    data, encoder: of the first training, with twins. measured: which of the V' trained voxels have
    a JNE; the others get none here. `folder` holds what a restart continues from.
    """
    assert data.twins is not None
    second = EncodingData(data.prepared, batch_size=data.batch_size, seed=data.seed)
    twins, power = _plant(second, encoder, config, folder / "planted.npy")
    second.add_twins(twins)
    pl.seed_everything(config.seed, verbose=False)
    module = EncodingModule(second.n_features, second.n_outputs, config.encoder, config.optimizer)
    save_to = folder / "planted.ckpt"
    fit(module, second, config.trainer, readout=config.readout, save_to=save_to)
    asked = np.flatnonzero(np.isin(twins.voxels, measured))  # of the K
    # The voxels themselves, then their twins, draw after draw
    of_draws = second.n_trained + len(twins.voxels) * np.arange(twins.n_draws)[:, None]
    outputs = np.concatenate([twins.voxels[asked], (of_draws + asked).ravel()])
    title = "Jacobians of planted twins"
    jne = jne_of(module.encoder, second, outputs, config.jacobian, folder, title)
    jne = jne.reshape(1 + twins.n_draws, len(asked))
    power = power[asked]
    levels = np.array([0, *config.control.planted])
    shares = np.minimum(levels[:, None], largest_share(power))
    estimate, low, high = nonlinear_share(jne[0], power, shares, jne[1:])
    columns = {
        "linear_power": power,
        "jne_beside_planted": jne[0],
        **{planted_column(a): values for a, values in zip(levels, jne[1:], strict=True)},
        "nonlinear_share": estimate,
        "nonlinear_share_low": low,
        "nonlinear_share_high": high,
    }
    return {name: _of_all(values, data, twins.voxels[asked]) for name, values in columns.items()}


def _of_all(values: NDArray, data: EncodingData, trained: NDArray) -> NDArray[np.float64]:
    """Values of some trained voxels as (V,), NaN for the others."""
    column = np.full(len(data.voxel_status), np.nan)
    column[data.kept[trained]] = values
    return column


def _plant(
    data: EncodingData, encoder: nn.Module, config: FitConfig, path: Path
) -> tuple[Twins, NDArray[np.float64]]:
    """Linear twins, then twins of each planted share; and the linear power of the K voxels (K,)."""
    control = config.control.model_copy(update={"draws": 1})
    parts = TwinParts(data, control, config.seed)
    nonlinear = _NonlinearPart(data, encoder, parts.rows)
    power = torch.empty(len(parts.voxels))
    rows = parts.rows

    def columns(block: slice) -> list[Tensor]:
        ((linear, noise),) = parts.of(block)
        of_linear, of_noise = linear[rows].var(dim=0), noise[rows].var(dim=0)
        power[block] = of_linear / (of_linear + of_noise)
        shape = nonlinear.of(parts.voxels[block])
        made = [linear + noise]
        for a in control.planted:
            share = torch.from_numpy(np.minimum(largest_share(power[block].numpy()), a))
            added = of_linear * share / (1 - share)
            kept = ((of_noise - added) / of_noise).clamp(min=1 - MOST_OF_NOISE)
            made.append(linear + added.sqrt() * shape + kept.sqrt() * noise)
        return made

    n_draws = 1 + len(control.planted)
    twins = write_twins(data, parts.voxels, n_draws, columns, path, "planted twins")
    return twins, power.double().numpy()


class _NonlinearPart:
    """What ridge regression on the features leaves of an encoder's predictions."""

    def __init__(self, data: EncodingData, encoder: nn.Module, rows: NDArray[np.int64]) -> None:
        self._readout, hidden = last_layer(encoder, data, np.arange(len(data.features)))
        features = data.features - data.features[rows].mean(dim=0)
        hidden = hidden - hidden[rows].mean(dim=0)
        ridge = RidgeCV(features[rows], cross_validation(data))
        self._left, self._rows = hidden - features @ ridge.fit(hidden[rows]).weights, rows

    def of(self, voxels: NDArray[np.int64]) -> Tensor:
        """(N, v), of unit variance over the fitted stimuli; 0 where nothing is left."""
        left = self._left @ self._readout.weight[voxels].detach().T
        spread = left[self._rows].std(dim=0)
        return torch.where(spread > _NOTHING, left / spread, torch.zeros(()))
