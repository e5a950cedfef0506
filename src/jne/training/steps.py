"""The steps from data to measured voxels that train.py, its shards and the calibration share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.data.datamodule import EncodingData
from jne.data.prepared import Source, prepare
from jne.fitting.fit import Fitted
from jne.fitting.folds import fit_folds
from jne.fitting.history import History
from jne.fitting.module import PredictingModule
from jne.fitting.trainer import make_trainer, quiet_lightning
from jne.measuring.callback import MeasureJNE
from jne.measuring.evidence import MeasuredEvidence
from jne.measuring.nonlinearity import (
    Compute,
    Nonlinearity,
    check_measurable,
    measure_nonlinearity,
)
from jne.measuring.scores import Scores, score_test
from jne.measuring.trajectory import trajectory_of
from jne.results.contents import voxel_table
from jne.stages import Stages
from jne.training.config import MethodConfig, TrainConfig


def load_data(source: Source, config: TrainConfig) -> EncodingData:
    """The data of a run of train.py, prepared now or before."""
    return EncodingData.cut(
        prepare(source, config.prepared),
        source.cutting,
        batch_size=config.trainer.batch_size,
        seed=config.seed,
        shuffle=config.control.kind == "shuffle",
        scale_features=source.scale_features,
    )


@dataclass(frozen=True)
class Outcome:
    """A trained encoder, or one of each fold, measured."""

    data: EncodingData
    """What it was trained on."""
    fits: Sequence[Fitted]
    """One for each of `data.parts`."""
    scores: Scores
    nonlinearity: Nonlinearity
    evidence: MeasuredEvidence | None

    @property
    def history(self) -> History:
        """Of all folds."""
        return History.of_folds([fitted.history for fitted in self.fits])

    def voxels(self, more: Mapping[str, NDArray] | None = None) -> pd.DataFrame:
        """The voxel table. more: columns (V',) of the trained voxels beside those of the scores."""
        data, history = self.data, self.history
        trained = {**self.scores.columns, **(more or {})}
        if history.readout_penalty is not None and history.readout_end is not None:
            trained["readout_penalty"] = history.readout_penalty
            trained["readout_penalty_end"] = history.readout_end
        if history.stack_linear is not None and history.stack_nonlinear is not None:
            trained["stack_linear"] = history.stack_linear
            trained["stack_nonlinear"] = history.stack_nonlinear
        table, columns = data.prepared.voxels, self.nonlinearity.columns
        if self.evidence is not None:
            trained |= self.evidence.columns
            trained |= self.evidence.calibrated(self.nonlinearity.jne[data.kept])
        return voxel_table(table, data.voxel_status, data.kept, trained, columns)

    def of_spaces(self, explained: Mapping[str, NDArray]) -> dict[str, dict[str, NDArray]]:
        """Columns (V,) of every feature space, and of their interaction.

        explained: columns (K, V'), of the spaces alone.
        """
        data = self.data
        columns = {space: {**of_space} for space, of_space in self.nonlinearity.spaces.items()}
        for k, space in enumerate(data.feature_spaces or ()):
            columns[space] |= {name: data.all_voxels(x[k]) for name, x in explained.items()}
        for component, x in ({} if self.evidence is None else self.evidence.spaces).items():
            of_component = {name: data.all_voxels(values) for name, values in x.items()}
            columns[component] = columns.get(component, {}) | of_component
        return columns


class Measure(Protocol):
    """What is done with the encoders once they have predicted the test stimuli."""

    def __call__(
        self, encoders: Sequence[nn.Module], data: EncodingData, scores: Scores
    ) -> Any: ...


def fit_and_test(
    data: EncodingData,
    config: MethodConfig,
    stages: Stages,
    measure: Measure,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[list[Fitted], Scores, Any]:
    """Train encoders, predict the test stimuli, and measure: what `measure` returns."""
    fits = fit_folds(
        data.parts,
        config,
        stages,
        first=_first_fold(config, len(data.parts)),
        checkpoint=checkpoint,
        trajectory=trajectory_of(data, config.jacobian, config.seed, on_epoch),
        on_epoch=on_epoch,
        check=partial(check_measurable, data=data.parts[0], settings=config.jacobian),
    )
    encoders = [fitted.encoder for fitted in fits]
    predicted: list[NDArray[np.float32]] = []
    scores: list[Scores] = []

    def compute(encoder: nn.Module, features: Tensor, predictions: Tensor) -> Any:
        # Lightning calls it, as a callback, once the test stimuli of a fold are predicted.
        predicted.append(predictions.numpy())
        if len(predicted) < len(encoders):
            return None
        of_all = np.asarray(data.in_order(predicted))
        scores.append(score_test(data, of_all, config.stats, config.seed))
        return measure(encoders, data, scores[0])

    for encoder, part in zip(encoders, data.parts, strict=True):
        of_fold = partial(_encoder, encoder)
        callback = MeasureJNE(lambda batch: batch.features, encoder=of_fold, compute=compute)
        with quiet_lightning():
            trainer = make_trainer(config.trainer, [callback])
            trainer.test(PredictingModule(encoder), part, verbose=False)
    return fits, scores[0], callback.measurement


def _encoder(encoder: nn.Module, _: object) -> nn.Module:
    """That whose predictions a LightningModule makes."""
    return encoder


def _first_fold(config: MethodConfig, n_folds: int) -> int:
    """The shards of a run begin with different folds."""
    if config.jacobian.share is None:
        return 0
    k, n_shards = config.jacobian.share
    return (k - 1) * n_folds // n_shards


def fit_and_measure(
    data: EncodingData,
    config: MethodConfig,
    stages: Stages,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    compute: Compute | None = None,
    evidence: Callable[..., MeasuredEvidence | None] | None = None,
) -> Outcome:
    """From data to measured voxels.

    folder: for the arrays (N, V), see `measure_nonlinearity`; so is `compute`. evidence:
    `measure_evidence`, but for its first three arguments.
    """

    def measure(encoders: Sequence[nn.Module], data: EncodingData, scores: Scores) -> Nonlinearity:
        settings, alpha = config.jacobian, config.stats.alpha
        return measure_nonlinearity(encoders, data, scores, settings, alpha, folder, compute)

    fits, scores, nonlinearity = fit_and_test(
        data, config, stages, measure, checkpoint=checkpoint, on_epoch=on_epoch
    )
    tested = None
    if evidence is not None:
        tested = evidence(fits, data, scores)
    return Outcome(data, fits, scores, nonlinearity, tested)
