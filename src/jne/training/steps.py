"""The steps from data to measured voxels that train.py, its shards and the calibration share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.data.datamodule import EncodingData
from jne.data.prepared import Source, prepare
from jne.fitting.fit import Fitted, fit, make_trainer, quiet_lightning
from jne.fitting.module import PredictingModule
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
from jne.nulls.planted import planted_columns
from jne.nulls.twins import TwinParts
from jne.results.contents import voxel_table
from jne.stages import Stages
from jne.training.config import MethodConfig, TrainConfig


def load_data(source: Source, config: TrainConfig) -> EncodingData:
    """The data of a run of train.py, prepared now or before."""
    return EncodingData(
        prepare(source, config.prepared),
        batch_size=config.trainer.batch_size,
        seed=config.seed,
        shuffle=config.control.kind == "shuffle",
    )


@dataclass(frozen=True)
class Outcome:
    """A trained encoder, measured."""

    data: EncodingData
    """What it was trained on, with twins if there are any."""
    fitted: Fitted
    scores: Scores
    nonlinearity: Nonlinearity
    evidence: MeasuredEvidence | None

    def voxels(self, more: Mapping[str, NDArray] | None = None) -> pd.DataFrame:
        """The voxel table. more: columns (V',) of the trained voxels beside those of the scores."""
        data, history = self.data, self.fitted.history
        trained = {**self.scores.columns, **(more or {})}
        if history.readout_penalty is not None and history.readout_end is not None:
            trained["readout_penalty"] = history.readout_penalty[: data.n_trained]  # no twins
            trained["readout_penalty_end"] = history.readout_end[: data.n_trained]
        if history.stack_linear is not None and history.stack_nonlinear is not None:
            trained["stack_linear"] = history.stack_linear[: data.n_trained]
            trained["stack_nonlinear"] = history.stack_nonlinear[: data.n_trained]
        table, columns = data.prepared.voxels, self.nonlinearity.columns
        if self.evidence is not None:
            trained |= self.evidence.columns
            trained |= self.evidence.calibrated(self.nonlinearity.jne[data.kept])
        return voxel_table(table, data.voxel_status, data.kept, trained, columns)


class Measure(Protocol):
    """What is done with the encoder once it has predicted the test stimuli."""

    def __call__(self, encoder: nn.Module, data: EncodingData, scores: Scores) -> Any: ...


def fit_and_test(
    targets: "Targets",
    config: MethodConfig,
    stages: Stages,
    measure: Measure,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> tuple[Fitted, Scores, Any]:
    """Train an encoder, predict the test stimuli, and measure: what `measure` returns."""
    data = targets.data
    fitted = fit(
        data,
        config,
        stages,
        checkpoint=checkpoint,
        trajectory=trajectory_of(data, config.jacobian, config.seed, on_epoch),
        on_epoch=on_epoch,
        check=partial(check_measurable, data=data, settings=config.jacobian),
    )
    scores: list[Scores] = []

    def compute(encoder: nn.Module, features: Tensor, predictions: Tensor) -> Any:
        # Lightning calls it, as a callback, once the test stimuli are predicted.
        scores.append(score_test(data, predictions.numpy(), config.stats, config.seed))
        return measure(encoder, data, scores[0])

    callback = MeasureJNE(
        lambda batch: batch.features, encoder=lambda module: fitted.encoder, compute=compute
    )
    with quiet_lightning():
        trainer = make_trainer(config.trainer, [callback])
        trainer.test(PredictingModule(fitted.encoder), data, verbose=False)
    return fitted, scores[0], callback.measurement


@dataclass(frozen=True)
class Targets:
    """What an encoder is trained on: data, with linear twins where the config asks for them."""

    data: EncodingData
    twins: TwinParts | None

    @classmethod
    def from_config(cls, data: EncodingData, config: MethodConfig, stages: Stages) -> "Targets":
        """data: without twins."""
        if config.control.kind != "twins":
            return cls(data, None)
        parts = TwinParts(data, config.control, config.seed, stages)
        return cls(data.with_twins(parts.twins()), parts)


def fit_and_measure(
    data: EncodingData,
    config: MethodConfig,
    stages: Stages,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    compute: Compute | None = None,
    evidence: Callable[..., MeasuredEvidence] | None = None,
) -> Outcome:
    """From data without twins to measured voxels.

    folder: for the arrays (N, V), see `measure_nonlinearity`; so is `compute`. evidence:
    `measure_evidence`, but for its first three arguments.
    """
    targets = Targets.from_config(data, config, stages)

    def measure(encoder: nn.Module, data: EncodingData, scores: Scores) -> Nonlinearity:
        settings, alpha = config.jacobian, config.stats.alpha
        return measure_nonlinearity(encoder, data, scores, settings, alpha, folder, compute)

    fitted, scores, nonlinearity = fit_and_test(
        targets, config, stages, measure, checkpoint=checkpoint, on_epoch=on_epoch
    )
    tested = None if evidence is None else evidence(fitted.encoder, targets.data, scores)
    if config.control.planted:
        assert targets.twins is not None
        planted = planted_columns(
            targets.twins,
            fitted,
            config.control.planted,
            nonlinearity.measured(data),
            config,
            config.jacobian,
            folder,
        )
        nonlinearity = nonlinearity.with_columns(planted)
    return Outcome(targets.data, fitted, scores, nonlinearity, tested)
