"""Restarts: what of a run is done again and what is not, and what MLflow says of it."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from helpers import ROOT, TINY, TINY_COHORT, contents, only_run, status, sweep_folder
from mlflow import MlflowClient

from jne.fitting.callbacks import BestWeights, LastCheckpoint
from jne.results import Results


@pytest.mark.runs
@pytest.mark.parametrize(
    "stage",
    [
        "training",
        pytest.param("trained", marks=pytest.mark.slow),
        pytest.param("testing", marks=pytest.mark.slow),
        pytest.param("writing", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_gives_the_results_of_a_whole_one(
    finished_run, run_train, tmp_path, monkeypatch, stage
):
    """It continues from its last epoch, or after training if training was over."""
    expected = contents(only_run(finished_run))

    class Interrupted(Exception):
        pass

    def stop(*_, **__):
        raise Interrupted

    keep = LastCheckpoint.on_train_epoch_end

    def stop_at_three(self, trainer, module):
        self._next = 0
        keep(self, trainer, module)
        if trainer.current_epoch == 2:
            raise Interrupted

    with monkeypatch.context() as patch:
        if stage == "training":
            patch.setattr(LastCheckpoint, "on_train_epoch_end", stop_at_three)
        elif stage == "trained":
            patch.setattr(BestWeights, "on_fit_end", stop)
        elif stage == "testing":
            patch.setattr("jne.analysis.prediction.r2_p", stop)
        else:
            patch.setattr("jne.training.run.roi_table", stop)
        with pytest.raises(Interrupted):
            run_train("trainer.max_epochs=6")
    (folder,) = (tmp_path / "runs").iterdir()
    (fit,) = (path for path in (tmp_path / "stages" / "fit").iterdir() if path.is_dir())
    assert (fit / "last.ckpt").exists() == (stage in ("training", "trained"))
    epochs = []
    if stage != "training":
        monkeypatch.setattr(
            "jne.fitting.module.EncodingModule.training_step", lambda *_: epochs.append(1)
        )
    run_train("trainer.max_epochs=6", "resume=true")
    assert not epochs
    assert contents(folder) == expected
    assert not list(tmp_path.rglob("last.ckpt"))
    assert list((tmp_path / "runs").iterdir()) == [folder]


@pytest.mark.slow
def test_training_that_stopped_early_is_not_continued(run_train, tmp_path, monkeypatch):
    """By itself, Lightning would train one more epoch."""
    settings = ("trainer.max_epochs=200", "trainer.patience=2", "optimizer.lr=0.05")
    (whole,) = run_train(*settings)
    assert len(Results(whole).epochs) < 200
    expected = contents(whole)
    shutil.rmtree(whole)
    shutil.rmtree(tmp_path / "stages")
    with monkeypatch.context() as patch:
        patch.setattr(BestWeights, "on_fit_end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_train(*settings)
    run_train(*settings, "resume=true")
    (folder,) = (tmp_path / "runs").iterdir()
    assert contents(folder) == expected


def test_a_finished_run_is_not_repeated(finished_run, run_train, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    folder = only_run(tmp_path)
    run_train("trainer.max_epochs=6", "resume=true")
    assert f"already finished: {folder}" in capsys.readouterr().out.replace("\n", "")
    assert only_run(tmp_path) == folder


@pytest.fixture
def arrays(tmp_path):
    """Overrides for arrays on disk, which a test may change."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((80, 5)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.standard_normal((80, 4)).astype(np.float32))
    paths = (f"data.features={tmp_path / 'x.npy'}", f"data.responses={tmp_path / 'y.npy'}")
    return ("data=arrays", *paths, "baseline=[]")


def all_bytes(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.runs
def test_a_finished_run_is_finished_for_the_data_that_it_had(run_train, arrays, tmp_path, capsys):
    """Other data: it stays as it is, and the run goes to a folder beside it."""
    (first,) = run_train(*arrays, "resume=true")
    before = all_bytes(first)
    responses = np.load(tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", responses[:, :3])
    capsys.readouterr()
    (second,) = run_train(*arrays, "resume=true")
    printed = capsys.readouterr().out.replace("\n", "")
    assert run_train(*arrays, "resume=true") == []
    assert f"the data are no longer those of {first}, which stays as it is" in printed
    assert f"already finished: {second}" in capsys.readouterr().out.replace("\n", "")
    assert all_bytes(first) == before
    assert [len(Results(folder).voxels) for folder in (first, second)] == [4, 3]
    prepared = [Path(status(folder)["prepared"]).name for folder in (first, second)]
    assert prepared[0] != prepared[1]


@pytest.mark.slow  # six jobs
def test_a_job_is_finished_for_the_data_that_it_had(run_train, arrays, tmp_path):
    """The sweep's table is of the data that there are now."""
    jobs = ("-m", *arrays, "seed=0,1")
    first = run_train(*jobs)
    responses = np.load(tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", responses[::-1])
    second = run_train(*jobs, "resume=true")
    assert run_train(*jobs, "resume=true") == []
    assert len(first) == len(second) == 2
    table = pd.read_csv(sweep_folder(tmp_path) / "sweep.csv")
    assert sorted(table["run"]) == sorted(folder.name for folder in second)


@pytest.mark.runs
def test_a_run_whose_data_changed_continues_as_another_mlflow_run(
    run_train, finished_run, tmp_path, store
):
    """MLflow does not let the parameters of a run change."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    folder = only_run(tmp_path)
    client = MlflowClient(store)
    old = client.create_run(client.get_experiment_by_name("jne").experiment_id).info.run_id
    client.log_param(old, "n_train", 12345)
    other = {"status": "FAILED", "prepared": "/of/other-data", "mlflow_run_id": old}
    (folder / "status.json").write_text(json.dumps(status(folder) | other))
    run_train("trainer.max_epochs=6", "resume=true")
    assert client.get_run(old).info.status == "KILLED"
    assert client.get_run(old).data.tags["error"] == ("the data changed; continued as another run")
    new = client.get_run(status(folder)["mlflow_run_id"])
    assert new.info.status == "FINISHED"
    assert new.data.params["n_train"] != "12345"
    assert new.data.params["encoder"] == "nonlinear"
    assert "config.yaml" in {file.path for file in client.list_artifacts(new.info.run_id)}


def test_a_folder_in_use_is_left_alone(finished_run, run_train, tmp_path, monkeypatch):
    monkeypatch.setattr("jne.results.folder._WAIT_SECONDS", 0.1)
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    folder = only_run(tmp_path)
    (folder / "status.json").write_text(json.dumps(status(folder) | {"status": "RUNNING"}))
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="another process is writing"):
        run_train("trainer.max_epochs=6", "resume=true")


@pytest.mark.slow
def test_a_killed_run_continues(tmp_path):
    """After kill -9 in training, resume=true gives the results of an uninterrupted run."""
    settings = ("trainer.max_epochs=300", "trainer.patience=300", "trainer.checkpoint_seconds=0.5")
    command = [sys.executable, "train.py", *TINY_COHORT, *TINY, *settings]
    whole = tmp_path / "whole"
    subprocess.run([*command, f"output={whole}"], cwd=ROOT, check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, f"output={killed}"], cwd=ROOT, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(killed.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (folder,) = (killed / "runs").iterdir()
    assert status(folder)["status"] == "RUNNING"
    again = [*command, f"output={killed}", "resume=true"]
    subprocess.run(again, cwd=ROOT, check=True, capture_output=True)
    (reference,) = (whole / "runs").iterdir()
    assert contents(folder) == contents(reference)
    runs = MlflowClient(f"sqlite:///{killed / 'mlflow.db'}").search_runs(["1"])
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert np.isfinite(runs[0].data.metrics["jne/mean"])
