"""Sweeps: what they leave, which jobs run again, and what MLflow says of them."""

import json
import re
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, TINY_COHORT, contents, no_figures, run_quietly, status, sweep_folder
from mlflow import MlflowClient

from jne.data.synthetic import Synthetic
from jne.results import Results


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory, store):
    """The output of a sweep of four jobs, and what it printed."""
    output = tmp_path_factory.mktemp("sweep")
    jobs = ("-m", "activation=relu,gelu", "encoder=linear,nonlinear")
    printed = StringIO()
    with redirect_stdout(printed), no_figures():
        run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, *jobs)
    return output, printed.getvalue()


@pytest.mark.runs
def test_a_sweep_has_its_table_its_figure_and_its_run(finished_sweep, store):
    output, printed = finished_sweep
    folder = sweep_folder(output)
    table = pd.read_csv(folder / "sweep.csv")
    assert len(table) == 4
    assert table["jne/mean"].is_monotonic_decreasing
    for row in table.to_dict("records"):
        assert row["r2/mean"] == pytest.approx(
            Results(folder / row["run"]).summary["metrics"]["r2/mean"], rel=1e-9
        )
    assert list(table.columns[:3]) == ["encoder", "activation", "placement"]
    assert (folder / "sweep.png").stat().st_size > 5000
    assert "MLflow UI" in printed
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("jne")
    wanted = f"tags.sweep = '{folder.name}'"
    runs = client.search_runs([experiment.experiment_id], wanted)
    (sweep,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    assert sorted(run.info.run_name for run in runs if run is not sweep) == [
        "synthetic_subj01_linear_s0",
        "synthetic_subj01_linear_s0",
        "synthetic_subj01_nonlinear_gelu_both_s0",
        "synthetic_subj01_nonlinear_relu_both_s0",
    ]
    linear = [run for run in runs if run.data.params.get("encoder") == "linear"]
    assert {run.data.params["activation"] for run in linear} == {"none"}
    assert sweep.info.status == "FINISHED"
    assert sweep.data.metrics["jobs/finished"] == 4
    assert {file.path for file in client.list_artifacts(sweep.info.run_id)} == {
        "sweep.csv", "sweep.png",
    }  # fmt: skip
    assert f"mlflow.sharedViewState.jne-{folder.name}" in experiment.tags


@pytest.mark.runs
def test_a_linear_encoder_has_jne_exactly_zero(finished_sweep):
    """Also if an activation and a placement are set."""
    for folder in sweep_folder(finished_sweep[0]).glob("*_linear_*"):
        assert (Results(folder).voxels["jne"] == 0).all()
        assert (Results(folder).array("jne_ss") == 0).all()


@pytest.mark.runs
def test_jobs_that_fail_or_are_refused_leave_the_others(run_train, tmp_path, store, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_train("-m", "jacobian.voxels=3,[V9],[V1]")
    assert stopped.value.code == 1
    folder = sweep_folder(tmp_path)
    refused, failed, finished = sorted(path for path in folder.iterdir() if path.is_dir())
    statuses = [status(path)["status"] for path in (refused, failed, finished)]
    assert statuses == ["FAILED", "FAILED", "FINISHED"]
    assert "jacobian.voxels=3" in status(refused)["error"]
    assert "unknown ROI 'V9'" in (failed / "train.log").read_text()
    run = MlflowClient(store).get_run(status(failed)["mlflow_run_id"])
    assert run.info.status == "FAILED"
    assert "unknown ROI" in run.data.tags["error"]
    printed = capsys.readouterr().out
    assert "2 of 3 jobs are not finished" in printed
    assert "FAILED" in printed
    assert re.search(r"^✗ job 1 \S+  jacobian.voxels: unknown ROI 'V9'", printed, re.MULTILINE)
    assert len(pd.read_csv(folder / "sweep.csv")) == 1


@pytest.mark.runs
def test_a_bug_is_kept_with_its_traceback(run_train, tmp_path, store, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("jne.training.run.summarise", fail)
    with pytest.raises(SystemExit):
        run_train("-m", "seed=3")
    (folder,) = sweep_folder(tmp_path).glob("0_*")
    assert "ZeroDivisionError: a bug" in (folder / "train.log").read_text()
    client = MlflowClient(store)
    run_id = status(folder)["mlflow_run_id"]
    assert "error.txt" in {file.path for file in client.list_artifacts(run_id)}


@pytest.mark.slow
def test_runs_of_a_sweep_can_have_a_parent_run(run_train, tmp_path, store):
    (folder,) = run_train("-m", "seed=4", "tracking.nested=true")
    client = MlflowClient(store)
    run = client.get_run(status(folder)["mlflow_run_id"])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["kind"] == "sweep"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["jobs/finished"] == 1


@pytest.mark.runs
@pytest.mark.parametrize("how", ["resume=true", pytest.param("sweep", marks=pytest.mark.slow)])
def test_only_what_is_missing_or_failed_runs_again(finished_sweep, run_train, tmp_path, store, how):
    shutil.copytree(finished_sweep[0], tmp_path, dirs_exist_ok=True)
    sweep = sweep_folder(tmp_path)
    folders = sorted(path for path in sweep.iterdir() if path.is_dir())
    before = [contents(folder) for folder in folders]
    stamps = [(folder / "voxels.csv").stat().st_mtime_ns for folder in folders]
    shutil.rmtree(folders[1])  # never started
    failed = status(folders[2])
    (folders[2] / "status.json").write_text(json.dumps(failed | {"status": "FAILED"}))
    # The jobs are in another order, so they have other numbers.
    again = how if how == "resume=true" else f"sweep={sweep.name}"
    run_train("-m", "activation=gelu,relu", "encoder=nonlinear,linear", again)
    assert sweep_folder(tmp_path) == sweep
    found = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert len(found) == 4
    assert {status(folder)["status"] for folder in found} == {"FINISHED"}
    for k in (0, 3):
        assert (folders[k] / "voxels.csv").stat().st_mtime_ns == stamps[k]
    assert (folders[2] / "voxels.csv").stat().st_mtime_ns > stamps[2]
    assert sorted(contents(folder)["voxels.csv"] for folder in found) == sorted(
        files["voxels.csv"] for files in before
    )
    run = MlflowClient(store).get_run(status(folders[2])["mlflow_run_id"])
    assert run.info.run_id == failed["mlflow_run_id"]  # the same run, not another
    assert run.info.status == "FINISHED"
    assert run.data.tags["attempt"] == "2"
    assert "error" not in run.data.tags


@pytest.mark.runs
def test_jobs_with_equal_names_are_told_apart(run_train, tmp_path, capsys):
    """They differ in a key that is not part of a folder's name.

    The sweep continues with the jobs in another order, one more job, and one more override, which
    changes nothing.
    """

    def epochs() -> dict[int, Path]:
        folders = sweep_folder(tmp_path).glob("*/status.json")
        return {len(Results(path.parent).epochs): path.parent for path in folders}

    run_train("-m", "trainer.max_epochs=2,3")
    first = epochs()
    before = {n: contents(folder) for n, folder in first.items()}
    capsys.readouterr()
    run_train("-m", "trainer.max_epochs=4,3,2", "seed=0", "resume=true")
    assert "not finished" not in capsys.readouterr().out
    assert set(epochs()) == {2, 3, 4}
    assert {n: epochs()[n] for n in (2, 3)} == first
    assert {n: contents(folder) for n, folder in first.items()} == before
    table = pd.read_csv(sweep_folder(tmp_path) / "sweep.csv")
    assert sorted(table["trainer.max_epochs"]) == [2, 3, 4]


@pytest.mark.runs
def test_a_sweep_in_which_no_voxel_is_measured(run_train, tmp_path):
    """No voxel is significant. A pattern chooses the jobs."""
    run_train("-m", "activation=glob(re*)", "jacobian.voxels=significant", "stats.alpha=1e-9",
              "seed=0,1")  # fmt: skip
    table = pd.read_csv(sweep_folder(tmp_path) / "sweep.csv")
    assert list(table["seed"]) == [0, 1]
    assert table["jne/mean"].isna().all()
    assert np.isfinite(table["r2/mean"]).all()


@pytest.mark.runs
def test_a_job_that_exits_is_failed_and_the_others_run(run_train, tmp_path, monkeypatch, capsys):
    """Also with code 0, as code of the user's may."""
    write = Synthetic.write

    def leave(self, folder):
        if self.seed == 1:
            sys.exit(0)
        write(self, folder)

    monkeypatch.setattr(Synthetic, "write", leave)
    with no_figures(), pytest.raises(SystemExit) as stopped:
        run_train("-m", "data.seed=1,2")
    assert stopped.value.code == 1
    assert "1 of 2 jobs are not finished" in capsys.readouterr().out
    statuses = [
        status(path.parent) for path in sorted(sweep_folder(tmp_path).glob("*/status.json"))
    ]
    assert [of["status"] for of in statuses] == ["FAILED", "FINISHED"]
    assert statuses[0]["error"] == "code of yours called sys.exit(0)"
