"""What a run says of the nonlinear share of its data: tables, summary, MLflow, terminal."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import status
from mlflow import MlflowClient

from jne import Results
from jne.data.datamodule import EncodingData
from jne.data.prepared import load
from jne.measuring.share import ShareConfig, measure_share
from jne.stages import Stages

NUMBERS = ["nonlinear_share", "nonlinear_share_low", "nonlinear_share_high", "signal_share",
           "linear_share"]  # fmt: skip


@pytest.mark.runs
def test_a_run_has_the_share_of_its_data(run_train, store, tmp_path, capsys):
    (folder,) = run_train("data.n_train=100")
    run = Results(folder)
    data = EncodingData(load(Path(status(folder)["prepared"])), batch_size=None, seed=0)
    share = measure_share(data, ShareConfig(n_components=None), Stages(tmp_path / "again"))
    for name in NUMBERS:
        np.testing.assert_allclose(run.voxels[name][data.kept], share.columns[name], rtol=1e-5)
    assert (run.voxels["signal_from"] == "repeats").all()
    rois = pd.read_csv(folder / "rois.csv", index_col="roi")
    expected = share.regions.table(share.regions.each())
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    logged = MlflowClient(store).get_run(status(folder)["mlflow_run_id"]).data.metrics
    for name in NUMBERS:
        np.testing.assert_allclose(rois[name], expected.loc[rois.index, name], rtol=1e-6)
        for roi in ("V1", "all"):
            value = expected.loc[roi, name]
            if np.isfinite(value):
                assert metrics[f"{name}/{roi}"] == pytest.approx(value, rel=1e-3, abs=1e-5)
                assert logged[f"{name}/{roi}"] == pytest.approx(value, rel=1e-3, abs=1e-5)
    assert run.region_shares.rois == share.regions.rois
    row = expected.loc["all"]
    said = " ".join(capsys.readouterr().out.split())
    sentence = "the data: {:.2f} [{:.2f}, {:.2f}] of the signal is nonlinear in the features"
    assert sentence.format(*row[NUMBERS[:3]]) in said


@pytest.mark.runs
def test_too_few_stimuli_are_said_and_leave_no_trace(run_train, capsys):
    (folder,) = run_train()
    said = " ".join(capsys.readouterr().out.split())
    assert "no nonlinear share: share.n_components=null: 120 stimuli are too few for 64" in said
    assert "nonlinear_share" not in pd.read_csv(folder / "voxels.csv")
    assert not any(name.startswith("share/") for name in status(folder)["stages"])
    assert Results(folder).region_shares is None
