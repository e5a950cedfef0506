"""A second test set: how a stored encoder predicts other stimuli, and how nonlinear it is at them.

Nothing is trained, and the run's folder is not written to. N stimuli of the second set, V voxels,
V' of them trained on.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jne.analysis import nonlinearity, prediction, reliability
from jne.data.prepared import Prepared, Source, prepare
from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.missing_variants import deviations
from jne.jacobian.variants import DEFAULT
from jne.results import Results
from jne.utils.files import file_name
from jne.utils.instantiate import instantiate
from jne.utils.tensors import load_tensors

_SPACES = {"jne.data.nsd.NSD": None, "jne.data.algonauts.Algonauts": "fsaverage"}
"""The data whose encoders can be tested: the space of their voxels; None: in the config."""
_WORDS = {"space": ("func1pt8mm", "func1mm", "fsaverage"), "zscore": ("run", "session", "none")}
"""What the config of a run may say of its data; it may be anybody's."""
# Where features are and how they are computed, not what they are
_NOT_COMPARED = ("path", "ids", "key", "checkpoint", "batch_size", "device", "cache", "dtype")


def second_test(
    run: Results, config: EvaluateConfig, progress: Callable[[float], None]
) -> dict[str, NDArray[np.float64]]:
    """Columns (V,) of the voxel table: the scores and the nonlinearity on the stimuli of `test`.

    Those of `jne.columns` with _ood. NaN for voxels that were not trained on, whose responses are
    missing there, or that have no JNE. None without a second test set.

    Raises InputError, naming the key, where the run was not trained on data with this second test
    set, or on other features than `features`.
    """
    if config.test is None:
        return {}
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
    there = np.isfinite(responses).all(axis=0)
    scores = {
        "r2_ood": prediction.r2_score(responses[:, there], predictions[:, there]),
        "r_ood": prediction.pearson_r(responses[:, there], predictions[:, there]),
        "p_ood": prediction.t_test_p(responses[:, there], predictions[:, there]),
    }
    outputs = np.flatnonzero(run.voxels["jne"].notna().to_numpy()[trained])
    deviation = deviations(encoder, features, [DEFAULT], outputs, config, progress)[DEFAULT]
    half1, half2 = reliability.split_halves(deviation, config.seed)
    measured = {
        "jne_ood": nonlinearity.jne(deviation),
        "mean_deviation_ood": nonlinearity.mean_deviation(deviation),
        "jne_half1_ood": half1,
        "jne_half2_ood": half2,
    }

    def spread(values: NDArray, places: NDArray[np.int64]) -> NDArray[np.float64]:
        column = np.full(len(run.voxels), np.nan)
        column[places] = values
        return column

    columns = {name: spread(values, trained[there]) for name, values in scores.items()}
    columns["noise_ceiling_ood"] = prepared.voxels["noise_ceiling"].to_numpy(dtype=np.float64)
    return columns | {name: spread(values, trained[outputs]) for name, values in measured.items()}


def _source(run: Results, config: EvaluateConfig) -> Source:
    assert config.test is not None
    data = run.config["data"]
    name, subject = config.test.get("name"), run.config["subject"]
    if data["_target_"] not in _SPACES:
        raise InputError(
            "test",
            f"the encoder of {subject} in {run.path} was trained on "
            f"data={data['name']}, but this test set is for runs on data=nsd or data=algonauts",
            value=name,
        )
    if data.get("feature_zscore", "train") != "train":
        raise InputError(
            "test",
            f"the encoder of {subject} was trained on features z-scored within runs, "
            f"which have no counterpart for other stimuli; train with data.feature_zscore=train",
            value=name,
        )
    _check_features(run, config.features)
    of_run = {
        "space": _SPACES[data["_target_"]] or data.get("space"),
        "zscore": data.get("zscore", "session"),
    }
    for key, words in _WORDS.items():
        if of_run[key] not in words:
            raise InputError("", f"{run.path / 'config.yaml'} must hold a word as data.{key}")
    if file_name(subject) != subject:  # it becomes part of paths
        raise InputError("", f"{run.path / 'config.yaml'} must hold a name as subject")
    table = str(run.path / "voxels.csv")
    return instantiate(config.test, "test", {"subject": subject, "voxel_table": table} | of_run)


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
    for name in sorted((trained_on.keys() | chosen.keys()).difference(_NOT_COMPARED)):
        expected, found = trained_on.get(name), chosen.get(name)
        if expected != found:
            raise InputError(
                f"features.{name}", f"{encoder} features.{name}={expected}", value=found
            )


def _standardised(
    run: Results, prepared: Prepared
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Features (N, D), responses (N, V') by the training stimuli; the trained voxels (V',)."""
    saved = load_tensors(run.path / "encoder.pt")
    mean, scale = saved["feature_mean"].numpy(), saved["feature_scale"].numpy()
    if prepared.features.shape[1] != len(mean):
        raise InputError(
            "features",
            f"{prepared.features.shape[1]} features of the second test set, but the "
            f"encoder in {run.path} takes {len(mean)}",
        )
    trained = np.flatnonzero(run.voxels["status"] == "ok")
    centre, spread = (
        saved[f"response_{part}"].numpy()[: len(trained)] for part in ("mean", "scale")
    )
    features = (prepared.measured("feature") - mean) / scale
    responses = (prepared.measured("response", trained) - centre) / spread
    return features.astype(np.float32), responses.astype(np.float32), trained
