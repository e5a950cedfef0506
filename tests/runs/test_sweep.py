"""Sweeps and restarts: what is done again, what is not, and what MLflow says of it."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from helpers import ROOT, TINY, TINY_COHORT, no_figures, run_quietly
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import jne.tracking.store as store_module
from jne.errors import InputError
from jne.results import Results
from jne.results.folder import is_abandoned
from jne.runs.sweep import SweepCallback
from jne.tracking.store import close_orphaned_runs, open_store, record, relocate_store, track
from jne.training.callbacks import BestWeights, LastCheckpoint
from jne.utils import slurm as slurm_facts

FILES = ("voxels.csv", "epochs.csv", "summary.json", "deviation.npy", "jne_ss.npy",
         "predictions.npy", "encoder.pt")  # fmt: skip


def only_run(output: Path) -> Path:
    (folder,) = (output / "runs").iterdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def sweep_folder(output: Path) -> Path:
    (folder,) = (output / "sweeps").iterdir()
    return folder


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory, store):
    """The output of a sweep of four jobs, and what it printed."""
    output = tmp_path_factory.mktemp("sweep")
    jobs = ("-m", "activation=relu,gelu", "encoder=linear,nonlinear")
    printed = StringIO()
    with redirect_stdout(printed), no_figures():
        run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, *jobs)
    return output, printed.getvalue()


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, store):
    """The output of a run of six epochs."""
    output = tmp_path_factory.mktemp("run")
    run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, "trainer.max_epochs=6")
    return output


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
    (own,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    assert sorted(run.info.run_name for run in runs if run is not own) == [
        "subj01_linear_s0",
        "subj01_linear_s0",
        "subj01_nonlinear_gelu_both_s0",
        "subj01_nonlinear_relu_both_s0",
    ]
    linear = [run for run in runs if run.data.params.get("encoder") == "linear"]
    assert {run.data.params["activation"] for run in linear} == {"none"}
    assert own.info.status == "FINISHED"
    assert own.data.metrics["jobs/finished"] == 4
    assert {file.path for file in client.list_artifacts(own.info.run_id)} == {
        "sweep.csv", "sweep.png",
    }  # fmt: skip
    assert f"mlflow.sharedViewState.jne-{folder.name}" in experiment.tags


def test_a_linear_encoder_has_jne_exactly_zero(finished_sweep):
    """Also where an activation and a placement are set."""
    for folder in sweep_folder(finished_sweep[0]).glob("*_linear_*"):
        assert (Results(folder).voxels["jne"] == 0).all()
        assert (Results(folder).array("jne_ss") == 0).all()


def test_jobs_that_fail_or_are_refused_leave_the_others(run_train, tmp_path, store, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_train("-m", "jacobian.voxels=3,[V9],[V1]")
    assert stopped.value.code == 1
    folder = sweep_folder(tmp_path)
    refused, failed, finished = sorted(path for path in folder.iterdir() if path.is_dir())
    said = [status(path)["status"] for path in (refused, failed, finished)]
    assert said == ["FAILED", "FAILED", "FINISHED"]
    assert "jacobian.voxels=3" in status(refused)["error"]
    assert "unknown ROI 'V9'" in (failed / "train.log").read_text()
    run = MlflowClient(store).get_run(status(failed)["mlflow_run_id"])
    assert run.info.status == "FAILED"
    assert "unknown ROI" in run.data.tags["error"]
    printed = capsys.readouterr().out
    assert "2 of 3 jobs are not finished" in printed
    assert "FAILED" in printed
    assert len(pd.read_csv(folder / "sweep.csv")) == 1


def test_an_error_of_ours_is_kept_with_its_traceback(run_train, tmp_path, store, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("jne.training.run.summarise", fail)
    with pytest.raises(SystemExit):
        run_train("-m", "seed=3")
    (folder,) = sweep_folder(tmp_path).glob("0_*")
    assert "ZeroDivisionError: of ours" in (folder / "train.log").read_text()
    client = MlflowClient(store)
    run_id = status(folder)["mlflow_run_id"]
    assert "error.txt" in {file.path for file in client.list_artifacts(run_id)}


@pytest.mark.slow
def test_runs_below_a_parent_by_a_key(run_train, tmp_path, store):
    (folder,) = run_train("-m", "seed=4", "tracking.nested=true")
    client = MlflowClient(store)
    run = client.get_run(status(folder)["mlflow_run_id"])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["kind"] == "sweep"
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["jobs/finished"] == 1


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
    # In another order: the jobs have other numbers.
    again = how if how == "resume=true" else f"sweep={sweep.name}"
    with no_figures():
        run_train("-m", "activation=gelu,relu", "encoder=nonlinear,linear", again)
    assert sweep_folder(tmp_path) == sweep
    found = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert len(found) == 4
    assert {status(folder)["status"] for folder in found} == {"FINISHED"}
    for k in (0, 3):
        assert (folders[k] / "voxels.csv").stat().st_mtime_ns == stamps[k]
    assert (folders[2] / "voxels.csv").stat().st_mtime_ns > stamps[2]
    assert sorted(contents(folder)["voxels.csv"] for folder in found) == sorted(
        one["voxels.csv"] for one in before
    )
    run = MlflowClient(store).get_run(status(folders[2])["mlflow_run_id"])
    assert run.info.run_id == failed["mlflow_run_id"]  # the same run, not another
    assert run.info.status == "FINISHED"
    assert run.data.tags["attempt"] == "2"
    assert "error" not in run.data.tags


def test_jobs_that_differ_in_no_name_are_not_taken_for_each_other(run_train, tmp_path, capsys):
    """By a key that no folder's name holds.

    Gone on with in another order, with one more, and with a word more that changes nothing.
    """

    def epochs() -> dict[int, Path]:
        folders = sweep_folder(tmp_path).glob("*/status.json")
        return {len(Results(path.parent).epochs): path.parent for path in folders}

    with no_figures():
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


def test_a_sweep_of_which_nothing_is_measured(run_train, tmp_path):
    """No voxel is significant; its jobs are chosen by a pattern."""
    with no_figures():
        run_train("-m", "activation=glob(re*)", "jacobian.voxels=significant", "stats.alpha=1e-9",
                  "seed=0,1")  # fmt: skip
    table = pd.read_csv(sweep_folder(tmp_path) / "sweep.csv")
    assert list(table["seed"]) == [0, 1]
    assert table["jne/mean"].isna().all()
    assert np.isfinite(table["r2/mean"]).all()


@pytest.mark.parametrize(
    "stage",
    [
        "training",
        pytest.param("trained", marks=pytest.mark.slow),
        pytest.param("testing", marks=pytest.mark.slow),
        pytest.param("writing", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    finished_run, run_train, tmp_path, monkeypatch, stage
):
    """From its last epoch, or where training was over, from there."""
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
            patch.setattr("jne.analysis.prediction.bootstrap_p", stop)
        else:
            patch.setattr("jne.training.run.roi_table", stop)
        with pytest.raises(Interrupted):
            run_train("trainer.max_epochs=6")
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "last.ckpt").exists()
    epochs = []
    if stage != "training":
        monkeypatch.setattr(
            "jne.training.EncodingModule.training_step", lambda *_: epochs.append(1)
        )
    run_train("trainer.max_epochs=6", "resume=true")
    assert not epochs
    assert contents(folder) == expected
    assert not (folder / "last.ckpt").exists()
    assert list((tmp_path / "runs").iterdir()) == [folder]


@pytest.mark.slow
def test_training_stopped_early_is_not_gone_on_with(run_train, tmp_path, monkeypatch):
    """Lightning alone would train one more epoch."""
    settings = ("trainer.max_epochs=200", "trainer.patience=2", "optimizer.lr=0.05")
    (whole,) = run_train(*settings)
    assert len(Results(whole).epochs) < 200
    expected = contents(whole)
    shutil.rmtree(whole)
    with monkeypatch.context() as patch:
        patch.setattr(BestWeights, "on_fit_end", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_train(*settings)
    run_train(*settings, "resume=true")
    (folder,) = (tmp_path / "runs").iterdir()
    assert contents(folder) == expected


def test_a_finished_run_is_not_done_again(finished_run, run_train, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    folder = only_run(tmp_path)
    run_train("trainer.max_epochs=6", "resume=true")
    assert f"already finished: {folder}" in capsys.readouterr().out.replace("\n", "")
    assert only_run(tmp_path) == folder


def test_a_run_whose_data_has_changed_is_another_in_mlflow(
    run_train, finished_run, tmp_path, store
):
    """MLflow lets no parameter of a run be changed."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    folder = only_run(tmp_path)
    client = MlflowClient(store)
    old = client.create_run(client.get_experiment_by_name("jne").experiment_id).info.run_id
    client.log_param(old, "n_train", 12345)
    other = {"status": "FAILED", "prepared": "/of/other-data", "mlflow_run_id": old}
    (folder / "status.json").write_text(json.dumps(status(folder) | other))
    with no_figures():
        run_train("trainer.max_epochs=6", "resume=true")
    assert client.get_run(old).info.status == "KILLED"
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


# --- MLflow ---


def test_runs_whose_process_is_gone_are_closed_and_living_ones_are_not(tmp_path, store):
    client, experiment_id = open_store(store, "dead", tmp_path / "artifacts")
    made = {}
    for name in ("dead", "alive"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "status.json").write_text('{"status": "RUNNING"}')
        tags = {"results": str(folder)}
        made[name] = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    (tmp_path / "unrecorded").mkdir()  # its end is known, and still to be recorded
    (tmp_path / "unrecorded" / "status.json").write_text('{"status": "FINISHED"}')
    (tmp_path / "unrecorded" / "unrecorded.json").write_text("{}")
    tags = {"results": str(tmp_path / "unrecorded")}
    unrecorded = client.create_run(experiment_id, tags=tags).info.run_id
    (tmp_path / "sweep").mkdir()
    parent = client.create_run(experiment_id, tags={"results": str(tmp_path / "sweep")}).info.run_id
    elsewhere = client.create_run(experiment_id, tags={"results": "/no/such/folder"}).info.run_id
    hold = (
        "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "alive" / ".lock")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    holder.stdout.readline()
    try:
        assert len(close_orphaned_runs(client, experiment_id)) == 2
    finally:
        holder.kill()
        holder.wait()
    assert client.get_run(made["dead"]).info.status == "KILLED"
    assert client.get_run(parent).info.status == "KILLED"  # of a nested sweep
    assert client.get_run(made["alive"]).info.status == "RUNNING"
    assert client.get_run(elsewhere).info.status == "RUNNING"
    assert client.get_run(unrecorded).info.status == "RUNNING"
    assert is_abandoned(tmp_path / "alive")  # kill -9 lets go of the lock


def test_a_run_that_ends_while_it_is_asked_after_is_not_dead(tmp_path, store, monkeypatch):
    client, experiment_id = open_store(store, "ending", tmp_path / "artifacts")
    run_id = client.create_run(experiment_id, tags={"results": str(tmp_path)}).info.run_id

    @contextmanager
    def ends(folder, wait):
        client.set_terminated(run_id, "FINISHED")
        yield

    monkeypatch.setattr(store_module, "locked", ends)
    assert close_orphaned_runs(client, experiment_id) == []
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_dead_run_is_held_while_it_is_closed(tmp_path, store, monkeypatch):
    """Or another process could go on with it in between, and be closed."""
    client, experiment_id = open_store(store, "held", tmp_path / "artifacts")
    client.create_run(experiment_id, tags={"results": str(tmp_path)})
    free = []

    def closing(*_):
        free.append(is_abandoned(tmp_path))
        return []

    monkeypatch.setattr(store_module, "_close", closing)
    close_orphaned_runs(client, experiment_id)
    assert free == [False]


@pytest.mark.parametrize("command", ["close", "ui"])
def test_a_command_over_a_store_that_is_not_there_makes_none(tmp_path, monkeypatch, command):
    absent = tmp_path / "absent.db"
    monkeypatch.setattr("sys.argv", ["jne.tracking", command, f"sqlite:///{absent}"])
    with pytest.raises(SystemExit, match="no MLflow store at"):
        store_module.main()
    assert not absent.exists()


class Unreachable(MlflowClient):
    """A store that is lost after some calls."""

    left = 0

    def log_batch(self, *arguments, **named):
        self.lose()
        return super().log_batch(*arguments, **named)

    def log_artifact(self, *arguments, **named):
        self.lose()
        return super().log_artifact(*arguments, **named)

    def lose(self):
        Unreachable.left -= 1
        if Unreachable.left < 0:
            raise MlflowException("connection refused")


@pytest.mark.parametrize("calls", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 4))])
def test_a_store_lost_in_the_middle_is_caught_up_with(
    finished_run, run_train, store, monkeypatch, calls, capsys
):
    whole = only_run(finished_run)
    expected = MlflowClient(store).get_run(status(whole)["mlflow_run_id"])
    Unreachable.left = calls
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "MlflowClient", Unreachable)
        (folder,) = run_train("trainer.max_epochs=6", "name=lost")
    assert "python -m jne.tracking record" in capsys.readouterr().out
    assert contents(folder) == contents(whole)
    run_id = record(folder)
    found = MlflowClient(store).get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == expected.data.params
    same = [name for name in expected.data.metrics if not name.startswith(("time/", "memory/"))]
    assert {name: found.data.metrics[name] for name in same} == {
        name: expected.data.metrics[name] for name in same
    }
    for place in ("", "figures", "tables"):
        files = [
            {file.path for file in MlflowClient(store).list_artifacts(run.info.run_id, place)}
            for run in (found, expected)
        ]
        assert files[0] == files[1]
    with pytest.raises(InputError, match="nothing that is still to be recorded"):
        record(folder)


def test_what_an_attempt_could_not_tell_the_next_one_tells(tmp_path, store, monkeypatch):
    def attempt(run_id):
        place = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
        return track(place, "fail_at_start", "attempts", {"slurm_job": "1"}, tmp_path, run_id)

    Unreachable.left = 1
    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        patch.setattr(store_module, "MlflowClient", Unreachable)
        with attempt(None) as tracked:
            tracked.log_epoch({"epoch": 0, "val/loss": 3.0})
            tracked.flush()
            tracked.log_epoch({"epoch": 1, "val/loss": float("nan")})
            raise ZeroDivisionError
    assert (tmp_path / "unrecorded.json").exists()
    with attempt(tracked.run_id) as tracked:
        tracked.log_epoch({"epoch": 2, "val/loss": 1.0})
    assert not (tmp_path / "unrecorded.json").exists()
    client = MlflowClient(store)
    assert client.get_run(tracked.run_id).info.status == "FINISHED"
    curve = client.get_metric_history(tracked.run_id, "val/loss")
    told = {point.step: point.value for point in curve}
    assert told == pytest.approx({0: 3.0, 1: np.nan, 2: 1.0}, nan_ok=True)


def test_an_error_leaves_the_curve_until_there(tmp_path, store):
    place = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
    with (
        suppress(ZeroDivisionError),
        track(place, "fail_at_start", "curve", {}, tmp_path) as tracked,
    ):
        tracked.log_epoch({"epoch": 0, "val/loss": 3.0})
        raise ZeroDivisionError
    assert MlflowClient(store).get_run(tracked.run_id).data.metrics == {"val/loss": 3.0}


def test_a_run_deleted_in_the_ui_is_not_gone_on_with(tmp_path, store):
    place = {"uri": store, "experiment": "jne", "artifacts": str(tmp_path / "artifacts")}
    client = MlflowClient(store)
    deleted = client.create_run(client.get_experiment_by_name("jne").experiment_id).info.run_id
    client.delete_run(deleted)
    with track(place, "fail_at_start", "deleted", {}, tmp_path, deleted) as tracked:
        assert tracked.run_id != deleted


@pytest.mark.slow  # real processes
def test_a_server_killed_in_the_middle_is_caught_up_with(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"

    @contextmanager
    def server():
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
                   "--artifacts-destination", str(tmp_path / "kept")]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)  # fmt: skip
        try:
            for _ in range(600):
                with suppress(OSError), urlopen(f"{uri}/health"):
                    break
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    output = tmp_path / "outputs"
    command = [sys.executable, "train.py", f"output={output}", f"tracking.uri={uri}",
               *TINY_COHORT, *TINY, "trainer.max_epochs=1500", "trainer.patience=1500"]  # fmt: skip
    with server():
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        while not list(output.glob("runs/*/last.ckpt")) and run.poll() is None:
            time.sleep(0.1)
    printed = run.communicate(timeout=120)[0]
    assert run.returncode == 0, printed
    folder = only_run(output)
    assert f"python -m jne.tracking record {folder}" in printed.replace("\n", "")
    with server():
        run_id = record(folder)
        client = MlflowClient(uri)
        found = client.get_run(run_id)
        assert found.info.status == "FINISHED"
        for name, value in Results(folder).summary["metrics"].items():
            assert found.data.metrics[name] == pytest.approx(value, rel=1e-3), name
        curve = client.get_metric_history(run_id, "val/loss")
        assert {point.step for point in curve} == set(Results(folder).epochs["epoch"])
        assert {file.path for file in client.list_artifacts(run_id)} >= {"figures", "tables"}


def test_a_store_that_must_be_there_always(run_train, monkeypatch):
    monkeypatch.setattr(store_module, "MlflowClient", Unreachable)
    Unreachable.left = 2
    with pytest.raises(MlflowException, match="connection refused"):
        run_train("tracking.on_unreachable=fail")


@pytest.mark.slow
def test_a_store_that_is_not_there_at_the_start(run_train, tmp_path, store):
    (tmp_path / "file").write_text("in the way")
    nowhere = f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db"
    with pytest.raises(SystemExit, match="cannot open the MLflow store"):
        run_train(nowhere)
    (folder,) = run_train(nowhere, "tracking.on_unreachable=continue", "name=alone")
    assert status(folder)["status"] == "FINISHED"
    run_id = record(folder, store)
    assert MlflowClient(store).get_run(run_id).info.run_name == "alone"


@pytest.mark.slow  # a store of its own
def test_a_store_that_was_moved_shows_its_artifacts(run_script, tmp_path):
    first = tmp_path / "first"
    uri = f"sqlite:///{first / 'outputs' / 'mlflow.db'}"
    settings = (f"output={first / 'outputs'}", f"tracking.uri={uri}", *TINY_COHORT, *TINY)
    (folder,) = run_script("train.py", *settings)
    run_id = status(folder)["mlflow_run_id"]
    shutil.move(first, tmp_path / "second place")
    moved = f"sqlite:///{tmp_path / 'second place' / 'outputs' / 'mlflow.db'}"
    relocate_store(moved)
    client = MlflowClient(moved)
    assert {file.path for file in client.list_artifacts(run_id)} >= {"figures", "config.yaml"}
    page = client.download_artifacts(run_id, "tables/summary.json", str(tmp_path))
    assert "jne/mean" in Path(page).read_text()
    assert Path(client.get_run(run_id).data.tags["results"]).exists()


def test_artifacts_kept_elsewhere_do_not_move(tmp_path, store):
    """A store may hold experiments of several `output`s; it is not thereby moved."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    database = home / "mlflow.db"
    shutil.copy(store.removeprefix("sqlite:///"), database)
    ids = {}
    for name, place in (("own", home), ("large", scratch)):
        client, experiment_id = open_store(f"sqlite:///{database}", name, place / "mlartifacts")
        tags = {"results": str(place / "runs" / "one")}
        ids[name] = client.create_run(experiment_id, tags=tags).info.run_id
        client.log_text(ids[name], "text", "file.txt")
    relocate_store(f"sqlite:///{database}")
    for name, place in (("own", home), ("large", scratch)):
        run = client.get_run(ids[name])
        assert run.info.artifact_uri.startswith((place / "mlartifacts").as_uri())
        assert run.data.tags["results"] == str(place / "runs" / "one")


# --- several processes ---


def launch(output: Path, *settings: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", "-m", f"output={output}", *TINY_COHORT, *TINY, *settings]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins") is None, reason="needs the extra [launchers]"
)
@pytest.mark.parametrize("launcher", ["cores", "submitit_local"])
def test_launchers(tmp_path, launcher):
    jobs = ("encoder=linear,nonlinear", "jacobian.voxels=all,[V9]")
    done = launch(tmp_path, f"hydra/launcher={launcher}", *jobs)
    assert done.returncode == 1, done.stderr
    assert "2 of 4 jobs are not finished" in done.stdout
    folder = sweep_folder(tmp_path)
    said = [status(path.parent)["status"] for path in sorted(folder.glob("*/status.json"))]
    assert sorted(said) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.sweep = '{folder.name}' and tags.kind = 'train'")
    assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


@pytest.mark.slow
def test_a_kill_is_gone_on_from(tmp_path):
    """kill -9 in training; the same command with resume=true gives what a whole run gives."""
    settings = ("trainer.max_epochs=300", "trainer.patience=300", "trainer.checkpoint_seconds=0.5")
    command = [sys.executable, "train.py", *TINY_COHORT, *TINY, *settings]
    whole = tmp_path / "whole"
    subprocess.run([*command, f"output={whole}"], cwd=ROOT, check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, f"output={killed}"], cwd=ROOT, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(killed.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
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


# --- SLURM ---


@pytest.fixture
def slurm():
    """Skipped where no SLURM answers; bring one up first."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        pytest.skip("no SLURM commands here")
    asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=False)
    if asked.returncode or "main" not in asked.stdout:
        pytest.skip(f"no SLURM answers: {asked.stderr.strip()}")


ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
# Longer than the time limit below, on a fast machine too
LONG = ("trainer.max_epochs=3000", "trainer.patience=3000", "trainer.checkpoint_seconds=0.2",
        "data.n_train=2000", "encoder.hidden_width=128", "seed=5")  # fmt: skip


@pytest.mark.slurm
def test_a_sweep_on_slurm(slurm, tmp_path):
    """Eight jobs, one of which fails."""
    limit = "hydra.launcher.timeout_min=10"
    jobs = ("encoder=linear,nonlinear", "seed=0,1,2", "activation=relu")
    done = launch(tmp_path, *ON_SLURM, limit, *jobs)
    assert done.returncode == 0, done.stdout + done.stderr
    done = launch(tmp_path, *ON_SLURM, limit, "jacobian.voxels=all,[V9]")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 jobs are not finished" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.kind = 'train'")
    assert sorted(run.info.status for run in runs) == ["FAILED"] + ["FINISHED"] * 7
    assert all("slurm_job" in run.data.tags for run in runs)


@pytest.mark.slurm
def test_the_end_of_a_sweep_waits_for_the_jobs_in_the_queue(slurm, tmp_path):
    """Hydra's launcher ends when the first job was killed, which takes it minutes to find."""
    submit = ["sbatch", "--parsable", "--array=0-1", "--output=/dev/null", "--wrap", "sleep 8"]
    array = subprocess.run(submit, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / ".submitit" / array).mkdir(parents=True)  # as submitit makes it
    record = SweepCallback()
    record.folder = tmp_path
    assert not slurm_facts.job_ended(array)
    record.wait_for_slurm()
    assert slurm_facts.job_ended(array)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of the long run, whole."""
    output = tmp_path_factory.mktemp("whole")
    done = launch(output, *LONG)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = output.glob("sweeps/*/*/status.json")
    return path.parent


def went_on(output: Path, uninterrupted: Path) -> None:
    """The same folder, the same MLflow run, the whole result."""
    (folder,) = (path.parent for path in output.glob("sweeps/*/*/status.json"))
    assert status(folder)["attempt"] > 1
    assert contents(folder) == contents(uninterrupted)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.kind = 'train'")
    assert run.info.status == "FINISHED"


@pytest.mark.slurm
def test_a_job_put_back_into_the_queue_goes_on_by_itself(slurm, tmp_path, uninterrupted):
    """`scontrol requeue` in training."""
    command = [sys.executable, "train.py", "-m", f"output={tmp_path}", *TINY_COHORT, *TINY]
    limit = "hydra.launcher.timeout_min=10"
    sweep = subprocess.Popen(
        [*command, *LONG, *ON_SLURM, limit], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("sweeps/*/*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    asked = ["squeue", "--noheader", "--states=RUNNING", "--format=%A"]
    job = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert sweep.wait(timeout=600) == 0
    went_on(tmp_path, uninterrupted)


@pytest.mark.slurm
def test_a_job_that_reaches_its_time_limit_goes_on_by_itself(slurm, tmp_path, uninterrupted):
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=60")
    done = launch(tmp_path, *LONG, *ON_SLURM, *limit)
    assert done.returncode == 0, done.stdout + done.stderr
    went_on(tmp_path, uninterrupted)
