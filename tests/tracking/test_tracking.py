"""MLflow: the store, the journal of a run that lost it, orphaned runs, moved stores."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname, urlopen

import numpy as np
import pytest
from helpers import ROOT, TINY, TINY_COHORT, contents, only_run, status
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jne.errors import InputError
from jne.results import Results
from jne.results.folder import is_abandoned
from jne.tracking import close_orphaned_runs, open_store, record, relocate_store, track
from jne.tracking.__main__ import main


def arguments_of(store: str, folder: Path) -> dict[str, str]:
    """What `open_store` and `track` take for a store."""
    return {"uri": store, "experiment": "jne", "artifacts": str(folder / "artifacts")}


# --- orphaned runs ---


def test_orphaned_runs_are_closed_and_living_ones_are_not(tmp_path, store):
    client, experiment_id = open_store(store, "dead", tmp_path / "artifacts")
    made = {}
    for name in ("dead", "alive"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "status.json").write_text('{"status": "RUNNING"}')
        tags = {"results": str(folder)}
        made[name] = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    (tmp_path / "unrecorded").mkdir()  # it ended offline and is still to be recorded
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
    dead = client.get_run(made["dead"])
    assert dead.info.status == "KILLED"
    assert dead.data.tags["error"] == "the process ended without reporting a status"
    assert client.get_run(parent).info.status == "KILLED"  # the run of a nested sweep
    assert client.get_run(made["alive"]).info.status == "RUNNING"
    assert client.get_run(elsewhere).info.status == "RUNNING"
    assert client.get_run(unrecorded).info.status == "RUNNING"
    assert is_abandoned(tmp_path / "alive")  # kill -9 releases the lock


def test_a_run_that_ends_during_the_check_is_not_closed(tmp_path, store, monkeypatch):
    client, experiment_id = open_store(store, "ending", tmp_path / "artifacts")
    run_id = client.create_run(experiment_id, tags={"results": str(tmp_path)}).info.run_id

    @contextmanager
    def ends(folder, wait):
        client.set_terminated(run_id, "FINISHED")
        yield

    monkeypatch.setattr("jne.tracking.store.locked", ends)
    assert close_orphaned_runs(client, experiment_id) == []
    assert client.get_run(run_id).info.status == "FINISHED"


def test_an_orphaned_run_is_locked_while_it_is_closed(tmp_path, store, monkeypatch):
    """Otherwise another process could continue it in between, and would be closed."""
    client, experiment_id = open_store(store, "held", tmp_path / "artifacts")
    client.create_run(experiment_id, tags={"results": str(tmp_path)})
    free = []

    def closing(*_):
        free.append(is_abandoned(tmp_path))
        return False

    monkeypatch.setattr("jne.tracking.store._close", closing)
    close_orphaned_runs(client, experiment_id)
    assert free == [False]


@pytest.mark.parametrize("command", ["close", "ui"])
def test_a_command_on_a_missing_store_does_not_make_one(tmp_path, monkeypatch, command):
    absent = tmp_path / "absent.db"
    monkeypatch.setattr("sys.argv", ["jne.tracking", command, f"sqlite:///{absent}"])
    with pytest.raises(SystemExit, match="no MLflow store at"):
        main()
    assert not absent.exists()


# --- a store that cannot be reached ---


class Unreachable(MlflowClient):
    """A store that is lost after some calls."""

    calls_left = 0

    def log_batch(self, *arguments, **named):
        self.count_call()
        return super().log_batch(*arguments, **named)

    def log_artifact(self, *arguments, **named):
        self.count_call()
        return super().log_artifact(*arguments, **named)

    def count_call(self):
        Unreachable.calls_left -= 1
        if Unreachable.calls_left < 0:
            raise MlflowException("connection refused")


@pytest.mark.runs
@pytest.mark.parametrize("calls", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 4))])
def test_a_run_that_loses_its_store_can_be_recorded_later(
    finished_run, run_train, store, monkeypatch, calls, capsys
):
    whole = only_run(finished_run)
    expected = MlflowClient(store).get_run(status(whole)["mlflow_run_id"])
    Unreachable.calls_left = calls
    with monkeypatch.context() as patch:
        patch.setattr("jne.tracking.store.MlflowClient", Unreachable)
        (folder,) = run_train("trainer.max_epochs=6", "name=lost", figures=True)
    assert "jne record" in capsys.readouterr().out
    assert contents(folder) == contents(whole)
    run_id = record(folder)
    found = MlflowClient(store).get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == expected.data.params
    same = [name for name in expected.data.metrics if not name.startswith(("time/", "memory/"))]
    assert {name: found.data.metrics[name] for name in same} == {
        name: expected.data.metrics[name] for name in same
    }
    for artifacts in ("", "figures", "tables"):
        files = [
            {file.path for file in MlflowClient(store).list_artifacts(run.info.run_id, artifacts)}
            for run in (found, expected)
        ]
        assert files[0] == files[1]
    with pytest.raises(InputError, match="holds no run that is still to be recorded"):
        record(folder)


def test_the_next_attempt_sends_what_the_last_could_not(tmp_path, store, monkeypatch):
    def attempt(run_id):
        arguments = arguments_of(store, tmp_path)
        return track(arguments, "fail_at_start", "attempts", {"slurm_job": "1"}, tmp_path, run_id)

    Unreachable.calls_left = 1
    with monkeypatch.context() as patch, suppress(ZeroDivisionError):
        patch.setattr("jne.tracking.store.MlflowClient", Unreachable)
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
    values = {point.step: point.value for point in curve}
    assert values == pytest.approx({0: 3.0, 1: np.nan, 2: 1.0}, nan_ok=True)


def test_an_error_leaves_the_curve_up_to_it(tmp_path, store):
    arguments = arguments_of(store, tmp_path)
    with (
        suppress(ZeroDivisionError),
        track(arguments, "fail_at_start", "curve", {}, tmp_path) as tracked,
    ):
        tracked.log_epoch({"epoch": 0, "val/loss": 3.0})
        raise ZeroDivisionError
    assert MlflowClient(store).get_run(tracked.run_id).data.metrics == {"val/loss": 3.0}


def test_a_run_deleted_in_the_ui_is_not_continued(tmp_path, store):
    arguments = arguments_of(store, tmp_path)
    client = MlflowClient(store)
    deleted = client.create_run(client.get_experiment_by_name("jne").experiment_id).info.run_id
    client.delete_run(deleted)
    with track(arguments, "fail_at_start", "deleted", {}, tmp_path, deleted) as tracked:
        assert tracked.run_id != deleted


@pytest.mark.slow  # real processes
def test_a_run_whose_server_is_killed_can_be_recorded_later(tmp_path):
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
        while not list(output.rglob("last.ckpt")) and run.poll() is None:
            time.sleep(0.1)
    printed = run.communicate(timeout=120)[0]
    assert run.returncode == 0, printed
    folder = only_run(output)
    assert f"jne record {folder}" in printed.replace("\n", "")
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


def test_a_run_that_must_not_lose_its_store_fails(run_train, monkeypatch):
    monkeypatch.setattr("jne.tracking.store.MlflowClient", Unreachable)
    Unreachable.calls_left = 2
    with pytest.raises(SystemExit, match=r"tracking\.uri=.*could not be reached .connection refus"):
        run_train("tracking.on_unreachable=fail")


@pytest.mark.slow
def test_a_store_that_cannot_be_opened_at_the_start(run_train, tmp_path, store):
    (tmp_path / "file").write_text("in the way")
    nowhere = f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db"
    with pytest.raises(SystemExit, match=r"tracking\.uri: cannot write to .*file"):
        run_train(nowhere)
    (folder,) = run_train(nowhere, "tracking.on_unreachable=continue", "name=alone")
    assert status(folder)["status"] == "FINISHED"
    run_id = record(folder, store)
    assert MlflowClient(store).get_run(run_id).info.run_name == "alone"


# --- moved stores ---


@pytest.mark.slow  # it makes a store
def test_a_store_that_was_moved_shows_its_artifacts(run_script, tmp_path):
    first = tmp_path / "first"
    uri = f"sqlite:///{first / 'outputs' / 'mlflow.db'}"
    settings = (f"output={first / 'outputs'}", f"tracking.uri={uri}", *TINY_COHORT, *TINY)
    (folder,) = run_script("train.py", *settings, "tracking.log_model=true", figures=True)
    run_id = status(folder)["mlflow_run_id"]
    shutil.move(first, tmp_path / "second place")
    moved = f"sqlite:///{tmp_path / 'second place' / 'outputs' / 'mlflow.db'}"
    relocate_store(moved)
    client = MlflowClient(moved)
    assert {file.path for file in client.list_artifacts(run_id)} >= {"figures", "config.yaml"}
    page = client.download_artifacts(run_id, "tables/summary.json", str(tmp_path))
    assert "jne/mean" in Path(page).read_text()
    run = client.get_run(run_id)
    assert Path(run.data.tags["results"]).exists()
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert Path(url2pathname(urlparse(model.artifact_location).path), "MLmodel").exists()
    source = json.loads(run.inputs.dataset_inputs[0].dataset.source)["uri"]
    assert Path(source, "features.npy").exists()


def test_artifacts_kept_elsewhere_do_not_move(tmp_path, store):
    """A store may hold experiments with other `output`s; those were not moved."""
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    database = home / "mlflow.db"
    shutil.copy(store.removeprefix("sqlite:///"), database)
    ids = {}
    for name, output in (("here", home), ("large", scratch)):
        client, experiment_id = open_store(f"sqlite:///{database}", name, output / "mlartifacts")
        tags = {"results": str(output / "runs" / "first")}
        ids[name] = client.create_run(experiment_id, tags=tags).info.run_id
        client.log_text(ids[name], "text", "file.txt")
    relocate_store(f"sqlite:///{database}")
    for name, output in (("here", home), ("large", scratch)):
        run = client.get_run(ids[name])
        assert run.info.artifact_uri.startswith((output / "mlartifacts").as_uri())
        assert run.data.tags["results"] == str(output / "runs" / "first")
