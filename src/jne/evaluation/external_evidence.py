"""Does the nonlinear part of the predictions exist in the responses of an external test set?

By the method of the run's own test stimuli (docs/evidence.md): the linear part of the encoder is
that over the stimuli that it was fitted to, and beside it stand ridge and least-squares regression
on the same stimuli. N external stimuli, n of the run's own test, V' trained voxels, v of them
measured in the external test set.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.analysis.evidence import Columns, Evidence, evidence_of
from jne.analysis.evidence_sums import MIN_STIMULI
from jne.analysis.prediction import r2_score
from jne.data.contents import contents_of
from jne.data.datamodule import EncodingData
from jne.data.folds import Cutting
from jne.data.prepared import load
from jne.errors import InputError
from jne.evaluation.same_data import contents, value_of
from jne.fitting.baseline import external_predictions, linear_predictions
from jne.measuring.evidence import nonlinear_part
from jne.results import Results
from jne.results.evidence import ALL, RegionEvidence
from jne.stages import Stages
from jne.utils.progress import say


@dataclass(frozen=True)
class ExternalEvidence:
    """What the responses say, and ridge regression in and out of distribution."""

    rois: list[str]
    """The ROI of each of the v voxels."""
    measured: NDArray[np.int64]
    """(v,), their numbers among the trained voxels."""
    responses: NDArray[np.float32]
    """(N, V')"""
    predictions: NDArray[np.float32]
    """(N, V')"""
    nonlinear: Columns
    """(N, V'), what is not linear in the predictions."""
    ridge: NDArray[np.float32]
    """(N, V'), predictions of ridge regression."""
    least: NDArray[np.float32]
    """(N, V'), of least squares."""
    ridge_in: NDArray[np.float32]
    """(n, V'), predictions of the run's own test stimuli by ridge regression."""
    clusters: NDArray[np.int64] | None
    """(N,) what may share noise among the stimuli; None where nothing does."""

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """(v,) by their names in `jne.columns`."""
        v = self.measured
        columns = {"r2_ridge_ood": r2_score(self.responses[:, v], self.ridge[:, v])}
        evidence = self._evidence(np.arange(len(self.responses)))
        if evidence is None:
            return columns
        voxels = evidence[0]
        return columns | {
            "nonlinear_z_ood": voxels.z,
            "nonlinear_p_ood": voxels.p,
            "nonlinear_p_fdr_ood": voxels.p_fdr,
            "validated_share_ood": voxels.share,
            "validated_share_low_ood": voxels.low,
            "validated_share_high_ood": voxels.high,
        }

    def regions(self, rows: NDArray[np.int64]) -> RegionEvidence | None:
        """Of the ROIs and of all, on some of the stimuli; None where these are too few."""
        evidence = self._evidence(rows)
        return None if evidence is None else evidence[1]

    def _evidence(self, rows: NDArray[np.int64]) -> tuple[Evidence, RegionEvidence] | None:
        groups = None
        if self.clusters is not None:
            groups = np.unique(self.clusters[rows], return_inverse=True)[1].astype(np.int64)
        if (len(rows) if groups is None else groups.max(initial=-1) + 1) < MIN_STIMULI:
            return None
        names, sets = np.unique(self.rois, return_inverse=True)
        arrays = (self.responses, self.predictions, self.nonlinear, self.ridge, self.least)
        y, f, g, *linear = (_Some(array, rows, self.measured) for array in arrays)
        voxels, sums = evidence_of(y, f, g, linear, sets, len(names), groups=groups)
        return voxels, RegionEvidence([*map(str, names), ALL], sums)


class _Some:
    """Some rows and columns of an array, or of what computes some of its columns."""

    def __init__(self, values: Columns, rows: NDArray[np.int64], columns: NDArray[np.int64]):
        self._values, self._rows, self._columns = values, rows, columns

    def __getitem__(self, rows_columns: tuple[slice, NDArray[np.int64]]) -> NDArray:
        rows, columns = rows_columns
        return self._values[:, self._columns[columns]][self._rows][rows]


def external_evidence(
    run: Results,
    encoder: nn.Module,
    features: Tensor,
    responses: NDArray[np.float32],
    predictions: NDArray[np.float32],
    clusters: NDArray[np.int64] | None,
    prepared: Path,
    stages: Stages,
) -> ExternalEvidence | None:
    """None for a run without evidence of its own, or, after saying so, without its prepared data.

    features: (N, D), responses and predictions: (N, V'), all in the standard units of the encoder.
    prepared: the folder of prepared data.
    """
    if run.region_evidence is None:
        return None
    try:
        data = _training_data(run, prepared)
    except InputError as error:
        sentence = f"no evidence out of distribution, which needs the training data: {error}"
        say(sentence, style="yellow", soft_wrap=True)
        return None
    measured = np.flatnonzero(np.isfinite(responses).all(axis=0))
    ridge, least = external_predictions(features, data, stages)
    roi = run.voxels["roi"].fillna("").astype(str).to_numpy()[data.kept]
    return ExternalEvidence(
        roi[measured].tolist(),
        measured,
        responses,
        predictions,
        nonlinear_part(encoder, data.with_test(features)),
        ridge,
        least,
        linear_predictions(data, stages)[0],
        clusters,
    )


def _training_data(run: Results, root: Path) -> EncodingData:
    """What the encoder was trained on. Raises InputError where it is gone.

    The run may be anybody's: of what it says, only the name of a folder below `root` is taken, and
    only data with the digests of the run's are read.
    """
    name = Path(str(run.status.get("prepared"))).name
    prepared = load(root / name)
    if contents_of(prepared) != contents(run):
        raise InputError("", f"{prepared.folder} does not hold the data of {run.path}")
    groups, purge = value_of(run, "data.groups"), value_of(run, "data.purge")
    scale = value_of(run, "data.scale_features")
    return EncodingData.cut(
        prepared,
        Cutting(1, None if groups is None else str(groups), int(purge or 0)),
        batch_size=None,
        seed=run.config["seed"],
        shuffle=run.config["control"]["kind"] == "shuffle",
        scale_features=scale if scale in ("global", "none") else "each",
    )
