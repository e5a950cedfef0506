"""An external test set: how a stored encoder predicts other stimuli, and how nonlinear it is there.

Nothing is trained, and the run's folder is not written to. N stimuli of the second set, V voxels,
V' of them trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from jne.analysis import nonlinearity, prediction, reliability
from jne.data.prepared import Prepared, prepare
from jne.data.source import Source, source_class
from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.missing_variants import deviations
from jne.evaluation.same_data import differing_in, value_in
from jne.jacobian.variants import DEFAULT
from jne.results import Results
from jne.stages import Stages
from jne.utils.blocks import among_all
from jne.utils.files import file_name
from jne.utils.instantiate import instantiate
from jne.utils.tensors import load_tensors

if TYPE_CHECKING:
    from jne.evaluation.external_evidence import ExternalEvidence

# Where features are and how they are computed, not what they are
_NOT_COMPARED = ("path", "ids", "key", "checkpoint", "batch_size", "device", "cache", "dtype")


@dataclass(frozen=True)
class ExternalTest:
    """How an encoder does on the stimuli of `test`."""

    columns: dict[str, NDArray[np.float64]]
    """Of the voxel table (V,), those of `jne.columns` with _ood. NaN for voxels that were not
    trained on, whose responses are missing there, or that have no JNE."""
    stimuli: pd.DataFrame
    """One row per stimulus."""
    trained: NDArray[np.int64]
    """(V',)"""
    responses: NDArray[np.float32]
    """(N, V'), standardised as the training stimuli."""
    predictions: NDArray[np.float32]
    """(N, V')"""
    deviation: NDArray[np.float32]
    """(N, V'), NaN for voxels without JNE."""
    evidence: "ExternalEvidence | None" = None
    """None for a run without evidence, or one whose prepared data are gone."""

    def arrays(
        self, rows: NDArray[np.int64], voxels: NDArray[np.int64]
    ) -> tuple[NDArray, NDArray, NDArray]:
        """Responses, predictions and deviation of some stimuli and voxels, all trained on."""
        some = np.ix_(rows, np.searchsorted(self.trained, voxels))
        return self.responses[some], self.predictions[some], self.deviation[some]


def external_test(
    run: Results,
    config: EvaluateConfig,
    progress: Callable[[float], None],
    stages: Stages | None = None,
) -> ExternalTest | None:
    """The scores and the nonlinearity on the stimuli of `test`. None without one.

    stages: the store of what is computed; by default that of the output folder.

    Raises InputError, naming the key, where the run was not trained on data with this external test
    set, or on other features than `features`.
    """
    if config.test is None:
        return None
    if run.n_folds > 1:
        raise InputError(
            "test", f"the run in {run.path} has an encoder for each fold; train with data.folds=1"
        )
    source = _source(run, config)
    try:
        prepared = prepare(source, config.output / "prepared")
    except InputError as error:  # which names the source by the key of train.py
        section, dot, name = error.key.partition(".")
        raise error.at(f"test{dot}{name}" if section == "data" else error.key) from error
    features, responses, trained = _standardised(run, prepared)
    encoder = run.encoder(config.trust)
    with torch.inference_mode():
        predictions = encoder(torch.from_numpy(features)).numpy()[:, : len(trained)]
    measured = np.isfinite(responses).all(axis=0)
    scores = {
        "r2_ood": prediction.r2_score(responses[:, measured], predictions[:, measured]),
        "r_ood": prediction.pearson_r(responses[:, measured], predictions[:, measured]),
        "p_ood": prediction.t_test_p(responses[:, measured], predictions[:, measured]),
    }
    outputs = np.flatnonzero(run.voxels["jne"].notna().to_numpy()[trained])
    deviation = deviations(encoder, features, [DEFAULT], outputs, config, progress)[DEFAULT]
    half1, half2 = reliability.split_halves(deviation, config.seed)
    jacobian = {
        "jne_ood": nonlinearity.jne(deviation),
        "mean_deviation_ood": nonlinearity.mean_deviation(deviation),
        "jne_half1_ood": half1,
        "jne_half2_ood": half2,
    }

    n = len(run.voxels)
    columns = {name: among_all(v, trained[measured], n) for name, v in scores.items()}
    if "noise_ceiling" in prepared.voxels:
        columns["noise_ceiling_ood"] = prepared.voxels["noise_ceiling"].to_numpy(dtype=np.float64)
    columns |= {name: among_all(v, trained[outputs], n) for name, v in jacobian.items()}
    deviation = among_all(deviation, outputs, len(trained), np.float32)
    clusters = source.cutting.belonging(prepared.stimuli).clusters(np.arange(len(responses)))
    # It fits ridge regression, and so loads Lightning: two seconds that most reports do not need.
    from jne.evaluation.external_evidence import external_evidence

    evidence = external_evidence(
        run,
        encoder,
        torch.from_numpy(features),
        responses,
        predictions,
        clusters,
        config.output / "prepared",
        stages or Stages(config.stages),
    )
    if evidence is not None:
        columns |= {
            name: among_all(v, trained[evidence.measured], n)
            for name, v in evidence.columns().items()
        }
    return ExternalTest(
        columns, prepared.stimuli, trained, responses, predictions, deviation, evidence
    )


def _source(run: Results, config: EvaluateConfig) -> Source:
    assert config.test is not None
    data, subject, file = run.config["data"], run.config["subject"], run.path / "config.yaml"
    test = str(config.test.get("_target_"))
    trained = source_class(data["_target_"]).external_test(test, data, file)
    if trained is None:
        raise InputError(
            "test",
            f"the encoder of {subject} in {run.path} was trained on data={data['name']}, to which "
            f"this external test set does not belong; choose runs on other data",
            value=config.test.get("name"),
        )
    _check_features(run, config.features)
    if file_name(subject) != subject:  # it becomes part of paths
        raise InputError("", f"{file} must hold a name as subject")
    table = str(run.path / "voxels.csv")
    return instantiate(config.test, "test", {"subject": subject, "voxel_table": table} | trained)


def _check_features(run: Results, chosen: Mapping[str, Any]) -> None:
    """Raise InputError where the features are not those that the encoder was trained on."""
    trained_on = run.config.get("features", {})
    if not isinstance(trained_on, dict):
        raise InputError("", f"{run.path / 'config.yaml'} must hold the section features")
    encoder = f"the encoder of {run.config['subject']} in {run.path} was trained on"
    if any(trained_on.get(name) != chosen.get(name) for name in ("_target_", "name")):
        raise InputError(
            "features",
            f"{encoder} {trained_on.get('name')}; choose these",
            value=chosen.get("name"),
        )
    for key in differing_in(trained_on, chosen):
        if key.split(".")[-1] not in _NOT_COMPARED:
            expected, value = value_in(trained_on, key), value_in(chosen, key)
            raise InputError(f"features.{key}", f"{encoder} features.{key}={expected}", value=value)


def _standardised(
    run: Results, prepared: Prepared
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Features (N, D), responses (N, V') by the training stimuli; the trained voxels (V',)."""
    saved = load_tensors(run.path / "encoder.pt")
    mean, scale = saved["feature_mean"].numpy(), saved["feature_scale"].numpy()
    if prepared.features.shape[1] != len(mean):
        raise InputError(
            "features",
            f"{prepared.features.shape[1]} features of the external test set, but the "
            f"encoder in {run.path} takes {len(mean)}",
        )
    if prepared.feature_spaces != run.feature_spaces:
        raise InputError(
            "features",
            f"the external test set has the feature spaces {_listed(prepared.feature_spaces)}, but "
            f"the encoder in {run.path} takes {_listed(run.feature_spaces)}",
        )
    trained = np.flatnonzero(run.voxels["status"] == "ok")
    centre, spread = (
        saved[f"response_{part}"].numpy()[: len(trained)] for part in ("mean", "scale")
    )
    features = (prepared.measured("feature") - mean) / scale
    responses = (prepared.measured("response", trained) - centre) / spread
    return features.astype(np.float32), responses.astype(np.float32), trained


def _listed(spaces: Mapping[str, slice] | None) -> str:
    """The spaces with their numbers of columns, in their order."""
    if spaces is None:
        return "of a single one"
    return ", ".join(f"{name} ({place.stop - place.start})" for name, place in spaces.items())
