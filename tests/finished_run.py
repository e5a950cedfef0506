"""A finished run without training, and the config of an evaluation of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from helpers import compose_script

from jne.analysis import nonlinearity, prediction
from jne.data.contents import _of_array, _of_columns
from jne.encoders import ResidualEncoder
from jne.evaluation.config import EvaluateConfig, check_config
from jne.jacobian import jacobian_deviation
from jne.results import Results
from jne.results.contents import summarise, write_encoder, write_results
from jne.utils.files import make_folder, write_json

N_STIMULI, N_FEATURES, N_VOXELS = 24, 6, 15
CONSTANT = 4  # a voxel without an encoder


def write_run(
    path: Path,
    *,
    subject: str = "subj01",
    activation: str = "relu",
    placement: str = "both",
    seed: int = 0,
    stimuli: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    images: Path | None = None,
    features_config: dict[str, Any] | None = None,
    contents: dict[str, str] | None = None,
    shift: float = 0.0,
    ridge: float = -0.1,
) -> Results:
    """A results folder of an encoder with random weights; voxel CONSTANT was not trained on.

    stimuli: further columns of the stimulus table. data: further keys of the config section.
    features_config: the section `features`. contents: digests of the data, in place of the true
    ones. shift: of all responses. ridge: how much higher the R² of ridge regression is.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(seed)
    encoder_config = {
        "_target_": "jne.encoders.ResidualEncoder",
        "hidden_width": 8,
        "activation": activation,
        "placement": placement,
    }
    trained = np.delete(np.arange(N_VOXELS), CONSTANT)
    encoder = ResidualEncoder(
        N_FEATURES, len(trained), hidden_width=8, activation=activation, placement=placement
    )
    features = rng.standard_normal((N_STIMULI, N_FEATURES)).astype(np.float32)
    deviation, gain, shape, predictions, responses = (
        np.full((N_STIMULI, N_VOXELS), np.nan, np.float32) for _ in range(5)
    )
    measured = jacobian_deviation(encoder, features, variant=["l1"], gain_shape=True)
    deviation[:, trained], gain[:, trained] = measured["l1"], measured["gain"]
    shape[:, trained] = measured["shape"]
    predictions[:, trained] = encoder(torch.tensor(features)).detach().numpy()
    responses[:, trained] = shift + _signal(features) + 0.1 * rng.standard_normal((N_STIMULI, 14))
    jne = nonlinearity.jne(deviation)
    voxels = pd.DataFrame(
        {
            "voxel": range(N_VOXELS),
            "roi": np.repeat(["V1", "V2", "EBA"], 5),
            "status": np.where(np.arange(N_VOXELS) == CONSTANT, "constant", "ok"),
            "jne": jne,
            "mean_deviation": nonlinearity.mean_deviation(deviation),
            "gain_change": nonlinearity.gain_change(gain),
            "shape_change": nonlinearity.shape_change(shape),
            "jne_ss_p95": np.percentile(nonlinearity.jne_ss(deviation), 95, axis=0),
        }
    )
    voxels["r2"] = prediction.r2_score(responses, predictions)
    voxels["r2_ridge"] = voxels["r2"] + ridge
    resampled = prediction.bootstrap_r2(responses, predictions, 20)
    voxels["p"] = prediction.bootstrap_p(resampled)
    voxels["p_fdr"] = prediction.fdr(voxels["p"].to_numpy())
    table = pd.DataFrame(
        {
            "stimulus": [f"s{i:02d}" for i in range(N_STIMULI)],
            "category": np.repeat(["animals", "scenes"], N_STIMULI // 2),
            **(stimuli or {}),
        }
    )
    config = {
        "subject": subject,
        "seed": seed,
        "control": {"kind": "none"},
        "activation": activation,
        "placement": placement,
        "encoder": encoder_config,
        "data": {"_target_": "jne.data.arrays.Arrays", "name": "made"} | (data or {}),
        "features": features_config or {},
    }
    make_folder(path)
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    digests = {
        "responses": _of_array(responses),
        "features": _of_array(features),
        "stimuli": _of_columns(table, ["stimulus"]),
        "voxels": _of_columns(voxels, ["voxel"]),
    }
    write_json(path / "status.json", {"status": "FINISHED", "contents": digests | (contents or {})})
    width = len(trained)
    scaling = {
        "feature_mean": torch.zeros(N_FEATURES),
        "feature_scale": torch.ones(N_FEATURES),
        "response_mean": torch.zeros(width),
        "response_scale": torch.ones(width),
    }
    write_encoder(path / "encoder.pt", encoder_config, encoder, scaling)
    write_results(
        path,
        voxels=voxels,
        stimuli=table,
        epochs=pd.DataFrame({"epoch": [1], "train/loss": 1.0, "val/loss": 1.0, "val/r2": 0.0}),
        trajectory=pd.DataFrame(
            {
                "epoch": 1,
                "stage": ["training", "final"],
                "voxel": 0,
                "roi": "V1",
                "r2": 0.5,
                "jne": 1.0,
            }
        ),
        arrays={
            "features": features,
            "responses": responses,
            "predictions": predictions,
            "deviation": deviation,
            "gain": gain,
            "jne_ss": nonlinearity.jne_ss(deviation),
        },
        summary=summarise(voxels, 0.05),
        space=None,
        images=images,
        about={"citation": "", "licence": "", "links": []},
    )
    return Results(path)


def _signal(features: np.ndarray) -> np.ndarray:
    """What the first nonlinear run predicts; the responses are the same in all runs."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(N_FEATURES, N_VOXELS - 1, hidden_width=8, activation="relu")
    return encoder(torch.tensor(features)).detach().numpy()


def evaluate_config(output: Path, *overrides: str) -> EvaluateConfig:
    """The config of `python evaluate.py voxels=all ...`, with few resamples."""
    quick = ("voxels=all", "stats.n_bootstrap=20", "selectivity.n_permutations=99")
    return check_config(compose_script("evaluate", output, *quick, *overrides))


def contents(path: Path) -> dict[Path, tuple[int, bytes]]:
    """The bytes of every file below `path`, and when it was last written."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
