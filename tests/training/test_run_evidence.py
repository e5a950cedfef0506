"""What a run says of its evidence: tables, files, MLflow and terminal, against `jne.evidence`."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import status
from mlflow import MlflowClient
from scipy import stats
from sklearn.linear_model import LinearRegression

from jne import Results
from jne.analysis.evidence import evidence_of
from jne.data.datamodule import EncodingData
from jne.data.prepared import load
from jne.training.shown import say_verdict

COLUMNS = {
    "nonlinear_z": "z", "nonlinear_p": "p", "nonlinear_p_fdr": "p_fdr",
    "nonlinear_slope": "slope", "nonlinear_slope_error": "slope_error",
    "r2_nonlinear_part": "r2_nonlinear", "r2_linear_part": "r2_linear",
    "validated_share": "share", "validated_share_low": "low", "validated_share_high": "high",
}  # fmt: skip
SIZES = ("data.n_train=200", "data.n_features=64", "trainer.max_epochs=5")


@pytest.mark.runs
def test_a_run_has_the_evidence_of_its_test_stimuli(run_train, store):
    (folder,) = run_train(*SIZES, "evidence.keep=true")
    run = Results(folder)
    data = EncodingData(load(Path(status(folder)["prepared"])), batch_size=None, seed=0)
    seen = np.concatenate([data.rows["train"], data.rows["val"]])
    (baseline,) = (folder.parents[1] / "stages" / "baseline").glob("*/baseline.npy")
    linear = np.split(np.load(baseline)[3:], 2)  # of ridge, of least squares
    with torch.no_grad():
        # In double: of a prediction that is nearly linear, float32 leaves nothing nonlinear
        f = run.encoder().double()(data.features.double())
    x, test = data.features.double(), data.rows["test"]
    least = LinearRegression().fit(x[seen], f[seen]).predict(x[test])
    g = f[test].numpy() - least
    y, sets = data.split("test")[1].numpy(), np.zeros(data.n_trained, dtype=int)
    expected, _ = evidence_of(y, f[test].numpy(), g, linear, sets, 1)
    for column, name in COLUMNS.items():
        found = run.voxels[column].to_numpy()[data.kept]
        np.testing.assert_allclose(found, getattr(expected, name), rtol=2e-3, atol=2e-4)
    slope, error = (run.voxels[f"nonlinear_slope{end}"] for end in ("", "_error"))
    quantile = stats.norm.ppf(0.975)
    for end, z in (("", 0), ("_low", -quantile), ("_high", quantile)):
        calibrated = np.maximum(slope + z * error, 0) * run.voxels["jne"]
        expected_jne = calibrated.where(slope.notna(), 0.0)[data.kept]  # 0: no nonlinear part
        found = run.voxels[f"jne_calibrated{end}"]
        np.testing.assert_allclose(found[data.kept], expected_jne, rtol=1e-3)
        assert found.notna().sum() == data.n_trained

    rois = pd.read_csv(folder / "rois.csv", index_col="roi")
    kept = run.array("evidence")
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    logged = MlflowClient(store).get_run(status(folder)["mlflow_run_id"]).data.metrics
    sums = run.region_evidence.sums
    for k, roi in enumerate(run.region_evidence.rois):
        chosen = np.ones(len(run.voxels), bool) if roi == "all" else run.voxels["roi"] == roi
        product = kept[:, chosen & run.voxels["nonlinear_z"].notna()].sum(axis=1)
        np.testing.assert_allclose(sums.product[:, k], product, rtol=1e-3, atol=1e-3)
        q = run.voxels["nonlinear_p_fdr"][chosen].dropna()
        assert rois["nonlinear"][roi] == pytest.approx((q <= 0.1).mean())
        for name in ("nonlinear_z", "r2_nonlinear_part", "nonlinear"):
            value = pytest.approx(rois[name][roi], rel=2e-3, abs=1e-4)  # to four digits
            assert metrics[f"{name}/{roi}"] == value
            assert logged[f"{name}/{roi}"] == value
        mean = run.voxels["r2_nonlinear_part"][chosen].mean()
        assert rois["r2_nonlinear_part"][roi] == pytest.approx(mean, rel=1e-4, abs=1e-6)


@pytest.mark.runs
def test_without_evidence_there_is_no_trace(run_train):
    (folder,) = run_train(*SIZES, "evidence=false")
    assert not {*COLUMNS, "jne_calibrated"} & set(pd.read_csv(folder / "voxels.csv"))
    assert Results(folder).region_evidence is None


@pytest.mark.runs
def test_a_linear_encoder_has_a_share_of_0(run_train, capsys):
    (folder,) = run_train(*SIZES, "encoder=linear", "evidence=true")
    voxels = Results(folder).voxels
    assert voxels["nonlinear_z"].isna().all()
    assert (voxels["validated_share"].dropna() == 0).all()
    assert (voxels["r2_nonlinear_part"] == 0).all()
    assert (voxels["jne_calibrated"] == 0).all()
    assert "the encoder:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "sentences"),
    [
        ({"nonlinear_z": 9.0, "nonlinear_p": 1e-9, "nonlinear": 0.38},
         ["above ridge in 50 % of voxels, by 0.050 on average", "38 % of voxels nonlinear",
          "validated share 0.18 [0.15, 0.21]"]),
        ({"nonlinear_z": 0.3, "nonlinear_p": 0.4, "nonlinear": 0.0},
         ["JNE here describes the training, not the brain"]),
        ({"nonlinear_z": np.nan, "nonlinear_p": np.nan, "nonlinear": 0.0}, []),
    ],
)  # fmt: skip
def test_the_verdict(row, sentences, capsys):
    voxels = pd.DataFrame({"r2": [0.2, 0.1, np.nan], "r2_ridge": [0.05, 0.15, np.nan]})
    share = {"validated_share": 0.18, "validated_share_low": 0.15, "validated_share_high": 0.21}
    say_verdict(voxels, pd.DataFrame([{**row, **share}]))
    printed = " ".join(capsys.readouterr().out.split())
    assert all(sentence in printed for sentence in sentences)
    assert bool(printed) == bool(sentences)


@pytest.mark.runs
@pytest.mark.parametrize("n_test", [3, 6])
def test_too_few_test_stimuli_are_no_evidence(run_train, capsys, n_test):
    (folder,) = run_train("data.n_features=64", "trainer.max_epochs=2", f"data.n_test={n_test}")
    run = Results(folder)  # which checks the folder whole, as evaluate.py does
    assert len(run.stimuli) == n_test
    assert run.region_evidence is None
    assert not any("nonlinear_z" in name for name in run.voxels)
    assert f"{n_test} test stimuli are too few to test" in " ".join(capsys.readouterr().out.split())
