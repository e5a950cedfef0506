"""The numbers of a run, in its folder and in MLflow, computed again from its arrays."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import only_run, status
from mlflow import MlflowClient
from scipy import stats
from sklearn.metrics import r2_score

from jne.results import Results


@pytest.fixture(scope="module")
def run(finished_run):
    return Results(only_run(finished_run))


def test_columns_of_the_voxel_table_follow_from_the_arrays(run):
    y, prediction = (run.array(name).astype(float) for name in ("responses", "predictions"))
    deviation, gain, jne_ss = (run.array(n).astype(float) for n in ("deviation", "gain", "jne_ss"))
    gained = np.square(y - y.mean(axis=0)) - np.square(y - prediction)
    p = stats.ttest_1samp(gained, 0, alternative="greater").pvalue
    distance = np.square(deviation - deviation.mean(axis=0))
    np.testing.assert_allclose(jne_ss, distance, rtol=1e-3, atol=1e-6)
    for name, expected in {
        "r2": r2_score(y, prediction, multioutput="raw_values"),
        "p": p,
        "p_fdr": stats.false_discovery_control(p),
        "jne": np.sqrt(distance.mean(axis=0)),
        "mean_deviation": deviation.mean(axis=0),
        "gain_change": gain.std(axis=0),
        "jne_ss_p95": np.quantile(jne_ss, 0.95, axis=0),
    }.items():
        np.testing.assert_allclose(run.voxels[name], expected, rtol=1e-4, err_msg=name)


def test_summary_and_rois_follow_from_the_voxel_table(run):
    metrics, voxels = run.summary["metrics"], run.voxels
    assert metrics["jne/median"] == pytest.approx(np.median(voxels["jne"]))
    assert metrics["jne_ss/p95"] == pytest.approx(voxels["jne_ss_p95"].mean())
    assert metrics["r2/significant_share"] == (voxels["p_fdr"] < 0.05).mean()
    regions = pd.read_csv(run.path / "rois.csv", keep_default_na=False).set_index("roi")
    for roi, rows in voxels.groupby("roi", observed=True):
        for name in ("r2", "r2_ridge", "jne", "mean_deviation"):
            mean = pytest.approx(rows[name].mean())
            assert metrics[f"{name}/{roi}"] == mean
            assert regions.loc[roi, name] == mean
    assert metrics["train/epochs"] == len(run.epochs)
    assert metrics["train/best_epoch"] == run.epochs["val/loss"].argmin() + 1


def test_mlflow_has_the_summary_the_curves_and_what_it_cost(run, store):
    client, run_id = MlflowClient(store), run.status["mlflow_run_id"]
    logged = client.get_run(run_id).data.metrics
    for name, value in run.summary["metrics"].items():
        assert logged[name] == pytest.approx(value, rel=6e-4), name  # four digits
    for name in ("train/loss", "val/loss", "val/r2"):
        points = {point.step: point.value for point in client.get_metric_history(run_id, name)}
        assert points == pytest.approx(run.epochs.set_index("epoch")[name].to_dict(), rel=6e-4)
    costs = {name: logged[name] for name in logged.keys() - run.summary["metrics"].keys()
             if name.startswith(("time/", "memory/"))}  # fmt: skip
    noted = status(run.path)
    assert costs.keys() == {"time/prepare_s", "time/fit_test_s", "time/jacobian_s", "time/record_s",
                            "memory/peak_gb"}  # fmt: skip
    assert costs == pytest.approx({name: noted[name] for name in costs}, rel=1e-2, abs=1e-3)
    assert all(0 < cost < 600 for cost in costs.values())
    assert json.loads((run.path / "summary.json").read_text()) == run.summary
