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
from jne.training.config import TrainConfig
from jne.training.fit import fit
from jne.training.measure import jne_of
from jne.training.module import EncodingModule
from jne.training.readout import cross_validation, last_layer
from jne.training.twins import TwinParts, write_twins

_NOTHING = 1e-5  # of the standard deviation of a response: rounding


def _of_all(values: NDArray, data: EncodingData, trained: NDArray) -> NDArray[np.float64]:
    """Values of some trained voxels as (V,), NaN for the others."""
    column = np.full(len(data.voxel_status), np.nan)
    column[data.kept[trained]] = values
    return column


def _plant(
    data: EncodingData, encoder: nn.Module, config: TrainConfig, path: Path
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
