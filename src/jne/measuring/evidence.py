"""What unseen responses say of the nonlinear part of an encoder's predictions. docs/evidence.md

The test stimuli are unseen. The linear approximation of the encoder is that over the stimuli it was
fitted to, which needs no responses.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from jne.analysis.contrast import quantile
from jne.analysis.evidence import (
    STIMULI_PER_FEATURE,
    Columns,
    Evidence,
    evidence_of,
)
from jne.analysis.evidence_spaces import SpaceEvidence, space_evidence_of
from jne.analysis.evidence_sums import MIN_STIMULI
from jne.analysis.linear_part import LinearPart
from jne.data.datamodule import EncodingData, StandardisedData
from jne.data.folds import cross_validation
from jne.encoders.ridge import RidgeCV, Splits
from jne.errors import InputError
from jne.fitting.fit import Fitted
from jne.fitting.history import History
from jne.fitting.readout import last_layer
from jne.measuring.nonlinearity import feature_spaces
from jne.measuring.scores import Scores
from jne.results.evidence import ALL, RegionEvidence
from jne.utils.files import atomic_array
from jne.utils.progress import say

KEPT = "evidence.npy"
_STIMULI_AT_ONCE = 2048


class EvidenceConfig(BaseModel):
    """conf/train.yaml, `evidence`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: bool
    """Whether the product of each test stimulus and voxel is kept, in evidence.npy."""


@dataclass(frozen=True)
class MeasuredEvidence:
    """Of V' trained voxels."""

    columns: dict[str, NDArray]
    """(V',) each, by their names in `jne.columns`."""
    regions: RegionEvidence
    spaces: dict[str, dict[str, NDArray]] = field(default_factory=dict)
    """Of every feature space, and of their interaction: columns (V',)."""
    nonlinear_in: NDArray[np.str_] | None = None
    """(V',), with several spaces: which of these a voxel is nonlinear in, or `linear`."""

    def calibrated(self, jne: NDArray) -> dict[str, NDArray[np.float64]]:
        """Columns (V',): JNE (V',) times the slope of its nonlinear part, with the interval."""
        slope, error = self.columns["nonlinear_slope"], self.columns["nonlinear_slope_error"]
        z95 = quantile()
        ends = {"": 0.0, "_low": -z95, "_high": z95}
        linear = np.isfinite(self.columns["r2_linear_part"]) & ~np.isfinite(slope)
        linear &= np.isfinite(jne)  # a voxel whose Jacobians were not computed stays NaN
        return {
            f"jne_calibrated{name}": np.where(linear, 0, np.maximum(slope + z * error, 0) * jne)
            for name, z in ends.items()
        }


def measure_evidence(
    fits: Sequence[Fitted],
    data: EncodingData,
    scores: Scores,
    linear: Sequence[Columns],
    settings: EvidenceConfig,
    folder: Path,
) -> MeasuredEvidence | None:
    """Evidence of the trained voxels, of their ROIs and of all; None of too few test stimuli.

    fits: of each of `data.parts`. linear: predictions of the test stimuli (n, V') by ridge and
    by least-squares regression.
    folder: for evidence.npy.
    """
    groups, crossed = data.test_clusters, None
    n_independent = len(scores.responses) if groups is None else int(groups.max()) + 1
    if n_independent < MIN_STIMULI:
        what = "test stimuli" if groups is None else "groups of test stimuli"
        say(
            f"{n_independent} {what} are too few to test the nonlinear part of the prediction on: "
            f"{MIN_STIMULI} are needed, and there is no evidence (docs/evidence.md)",
            style="yellow",
            soft_wrap=True,
        )
        return None
    rois = data.prepared.voxels["roi"].fillna("").astype(str).to_numpy()[data.kept]
    names, sets = np.unique(rois, return_inverse=True)
    encoders = [fitted.encoder for fitted in fits]
    spaces = feature_spaces(data)
    if n_independent < MIN_STIMULI + len(spaces):
        spaces = {}
    of_parts = [
        _nonlinear(encoder, part, _held(part, spaces))
        for encoder, part in zip(encoders, data.parts, strict=True)
    ]
    nonlinear, *components = (
        data.in_order(folds, centred=True) for folds in zip(*of_parts, strict=True)
    )
    shape = scores.predictions.shape
    inputs = scores.responses, scores.predictions, nonlinear, linear, sets, len(names)
    if len(data.parts) > 1:
        crossed = _noise([fitted.history for fitted in fits], scores)
    if settings.keep:
        kept = np.empty(shape, dtype=np.float32)
        voxels, sums = evidence_of(*inputs, kept, groups=groups, crossed=crossed)
        with atomic_array(folder / KEPT, (shape[0], len(data.voxel_status)), np.float32) as file:
            file[:] = data.all_voxels(kept)
    else:
        voxels, sums = evidence_of(*inputs, groups=groups, crossed=crossed)
    regions = RegionEvidence([*map(str, names), ALL], sums)
    of_spaces, nonlinear_in = {}, None
    if spaces:
        arrays = scores.responses, scores.predictions, components, linear
        split_evidence = space_evidence_of(
            *arrays, spaces, shape[1], groups=groups, crossed=crossed
        )
        of_spaces, nonlinear_in = _space_columns(split_evidence), split_evidence.assigned()
    return MeasuredEvidence(_columns(voxels), regions, of_spaces, nonlinear_in)


def _noise(histories: Sequence[History], scores: Scores) -> NDArray[np.float64]:
    """(V',), of the variance of the nonlinear part, what is noise of the responses."""
    power = History.of_folds(histories).nonlinear_noise
    n_voxels = scores.responses.shape[1]
    if power is None:
        return np.full(n_voxels, np.inf)
    error = np.square(scores.responses - scores.predictions).mean(axis=0, dtype=np.float64)
    return np.asarray(error * power[:n_voxels])


def _columns(evidence: Evidence) -> dict[str, NDArray[np.float64]]:
    """By their names in `jne.columns`."""
    return {
        "nonlinear_z": evidence.z,
        "nonlinear_p": evidence.p,
        "nonlinear_p_fdr": evidence.p_fdr,
        "nonlinear_slope": evidence.slope,
        "nonlinear_slope_error": evidence.slope_error,
        "r2_nonlinear_part": evidence.r2_nonlinear,
        "r2_linear_part": evidence.r2_linear,
        "validated_share": evidence.share,
        "validated_share_low": evidence.low,
        "validated_share_high": evidence.high,
    }


def _space_columns(evidence: SpaceEvidence) -> dict[str, dict[str, NDArray]]:
    columns = {
        "nonlinear_z": evidence.z,
        "nonlinear_p": evidence.p,
        "nonlinear_p_fdr": evidence.p_fdr,
        "nonlinear_slope": evidence.slope,
        "nonlinear_slope_error": evidence.slope_error,
        "r2_nonlinear_part": evidence.r2,
        "validated_share": evidence.share,
    }
    return {
        component: {name: values[:, k] for name, values in columns.items()}
        for k, component in enumerate(evidence.components)
    }


class _Readout:
    """What a readout (V, H) makes of inputs (n, H), computed for some voxels at a time."""

    def __init__(self, inputs: Tensor, weight: Tensor) -> None:
        self._inputs, self._weight = inputs.float(), weight.detach()

    def __getitem__(self, rows_columns: tuple[slice, NDArray[np.int64]]) -> NDArray[np.float32]:
        rows, voxels = rows_columns
        return (self._inputs[rows] @ self._weight[torch.from_numpy(voxels)].T).numpy()


def nonlinear_part(encoder: nn.Module, data: StandardisedData) -> Columns:
    """What is not linear in an encoder's predictions of the test stimuli, (n, V')."""
    return _nonlinear(encoder, data, [])[0]


def space_parts(
    encoder: nn.Module, data: StandardisedData, spaces: Mapping[str, slice]
) -> list[Columns]:
    """The components of `nonlinear_part`, (n, V') each: of every space, then their interaction.

    To see what is nonlinear in one space, the features of the others are held at 0, their mean.
    """
    return _nonlinear(encoder, data, _held(data, spaces))[1:]


def _held(data: StandardisedData, spaces: Mapping[str, slice]) -> list[StandardisedData]:
    """Of every space, the data with the features of the others at 0."""
    held = []
    for columns in spaces.values():
        alone = copy(data)
        alone.features = torch.zeros_like(data.features)
        alone.features[:, columns] = data.features[:, columns]
        held.append(alone)
    return held


def _nonlinear(
    encoder: nn.Module, data: StandardisedData, held: Sequence[StandardisedData]
) -> list[Columns]:
    """What is not linear at the test stimuli; with `held`, then that of each, and then the rest.

    Of an encoder that ends in a linear layer, the inputs of that are approximated: they are fewer.
    """
    fitted = np.concatenate([data.rows["train"], data.rows["val"]])
    rows = np.concatenate([fitted, data.rows["test"]])
    outputs = [_outputs(encoder, inputs, rows) for inputs in (data, *held)]
    weight = outputs[0][1]
    features = data.features[fitted], data.features[data.rows["test"]]
    values = torch.cat([values for values, _ in outputs], dim=1)
    whole, *parts = _not_linear(*features, values, cross_validation(data)).chunk(
        len(outputs), dim=1
    )
    parts = [whole, *parts, whole - sum(parts)] if held else [whole]
    if weight is None:
        return [part.float().numpy() for part in parts]
    return [_Readout(part, weight) for part in parts]


def _outputs(
    encoder: nn.Module, data: StandardisedData, rows: NDArray[np.int64]
) -> tuple[Tensor, Tensor | None]:
    """What enters the encoder's readout (n, H), and its weight; else the predictions, and None."""
    try:
        readout, values = last_layer(encoder, data, rows)
    except InputError:
        with torch.no_grad():
            outputs = [encoder(block) for block in data.features[rows].split(_STIMULI_AT_ONCE)]
        return torch.cat(outputs), None
    return values, readout.weight


def _not_linear(features: Tensor, at: Tensor, values: Tensor, splits: Splits) -> Tensor:
    """What is not linear in functions of the features (N, D) at others (n, D): (n, H) float64.

    values: (N + n, H). splits: for a ridge regression where stimuli are few.
    """
    n = len(features)
    if n >= STIMULI_PER_FEATURE * features.shape[1]:
        return LinearPart(features, at).remove(values[:n], values[n:])
    centre, offset = features.mean(dim=0), values[:n].mean(dim=0)
    weights = RidgeCV(features - centre, splits).fit(values[:n] - offset).weights
    return (values[n:] - offset - (at - centre) @ weights).double()
