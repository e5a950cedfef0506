"""Sweeps and restarts: what is done again, what is not, and what MLflow says of it."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY, TINY_COHORT
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jne import tracking
from jne.callbacks import BestWeights, LastCheckpoint
from jne.errors import InputError
from jne.results import Results
from jne.run_folder import abandoned
from jne.tracking import close_dead, open_store, record, settle

FILES = ("voxels.csv", "epochs.csv", "summary.json", "deviation.npy", "jne_ss.npy",
         "predictions.npy", "encoder.pt")  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def sweep_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "sweeps").iterdir()
    return folder


def test_a_sweep_has_its_table_its_figure_and_its_run(run_train, tmp_path, store, capsys):
    run_train("-m", "activation=relu,gelu", "seed=0,1")
    folder = sweep_folder(tmp_path)
    table = pd.read_csv(folder / "sweep.csv")
    assert len(table) == 4
    assert table["jne/mean"].is_monotonic_decreasing
    for row in table.itertuples():
        summary = Results(folder / row.run).summary["metrics"]
        assert row._asdict()["_3"] == pytest.approx(summary["r2/mean"], rel=1e-9)
    assert list(table.columns[:2]) == ["activation", "seed"]
    assert (folder / "sweep.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "compare" in printed
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("jne")
    wanted = f"tags.sweep = '{folder.name}'"
    runs = client.search_runs([experiment.experiment_id], wanted)
    (own,) = [run for run in runs if run.data.tags["kind"] == "sweep"]
    assert len(runs) == 5
    assert own.info.status == "FINISHED"
    assert own.data.metrics["jobs/finished"] == 4
    assert {file.path for file in client.list_artifacts(own.info.run_id)} == {
        "sweep.csv", "sweep.png",
    }  # fmt: skip
    assert f"mlflow.sharedViewState.jne-{folder.name}" in experiment.tags


def test_one_job_that_fails_leaves_the_others_and_is_told(run_train, tmp_path, store, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_train("-m", "jacobian.voxels=[V1],[V9],[FFA-1]")
    assert stopped.value.code == 1
    folder = sweep_folder(tmp_path)
    said = [
        status(folder / name)["status"] for name in sorted(os.listdir(folder)) if name[0] in "012"
    ]
    assert said == ["FINISHED", "FAILED", "FINISHED"]
    (failed,) = folder.glob("1_*")
    assert "unknown ROI 'V9'" in (failed / "train.log").read_text()
    run = MlflowClient(store).get_run(status(failed)["mlflow_run_id"])
    assert run.info.status == "FAILED"
    assert "unknown ROI" in run.data.tags["error"]
    printed = capsys.readouterr().out
    assert "1 of 3 jobs are not finished" in printed
    assert "FAILED" in printed
    assert len(pd.read_csv(folder / "sweep.csv")) == 2


def test_an_error_of_ours_is_kept_with_its_traceback(run_train, tmp_path, store, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("jne.training_run.summarise", fail)
    with pytest.raises(SystemExit):
        run_train("-m", "seed=3")
    (folder,) = sweep_folder(tmp_path).glob("0_*")
    assert "ZeroDivisionError: of ours" in (folder / "train.log").read_text()
    client = MlflowClient(store)
    run_id = status(folder)["mlflow_run_id"]
    assert "error.txt" in {file.path for file in client.list_artifacts(run_id)}


def test_a_job_refused_before_it_starts_is_in_the_table(run_train, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_train("-m", "trainer.patience=0,3")
    (refused,) = sweep_folder(tmp_path).glob("0_*")
    assert "trainer.patience=0" in status(refused)["error"]
    assert "1 of 2 jobs" in capsys.readouterr().out


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
def test_only_what_is_missing_or_failed_runs_again(run_train, tmp_path, store, how):
    run_train("-m", "activation=relu,gelu", "encoder=linear,nonlinear")
    sweep = sweep_folder(tmp_path)
    folders = sorted(path for path in sweep.iterdir() if path.is_dir())
    before = [contents(folder) for folder in folders]
    stamps = [(folder / "voxels.csv").stat().st_mtime_ns for folder in folders]
    shutil.rmtree(folders[1])  # never started
    failed = status(folders[2])
    (folders[2] / "status.json").write_text(json.dumps(failed | {"status": "FAILED"}))
    # In another order: the jobs have other numbers.
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
        one["voxels.csv"] for one in before
    )
    run = MlflowClient(store).get_run(status(folders[2])["mlflow_run_id"])
    assert run.info.run_id == failed["mlflow_run_id"]  # the same run, not another
    assert run.info.status == "FINISHED"
    assert run.data.tags["attempt"] == "2"
    assert "error" not in run.data.tags


@pytest.mark.parametrize(
    "stage",
    [
        "training",
        "trained",
        pytest.param("testing", marks=pytest.mark.slow),
        pytest.param("writing", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(run_train, tmp_path, monkeypatch, stage):
    """From its last epoch, or where training was over, from there."""
    (whole,) = run_train("trainer.max_epochs=6")
    expected = contents(whole)
    shutil.rmtree(whole)

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
            patch.setattr("jne.scoring.bootstrap_p", stop)
        else:
            patch.setattr("jne.training_run.roi_table", stop)
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


def test_a_finished_run_is_not_done_again(run_train, tmp_path, capsys):
    (folder,) = run_train()
    run_train("resume=true")
    assert f"finished already: {folder}" in capsys.readouterr().out.replace("\n", "")
    assert list((tmp_path / "runs").iterdir()) == [folder]


def test_a_folder_in_use_is_left_alone(run_train, tmp_path):
    (folder,) = run_train()
    (folder / "status.json").write_text(json.dumps(status(folder) | {"status": "RUNNING"}))
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="another process is writing"):
        run_train("resume=true")


# --- MLflow ---


def _hold(path, ready):
    with FileLock(path):
        ready.set()
        time.sleep(60)


def test_runs_whose_process_is_gone_are_closed_and_living_ones_are_not(tmp_path, store):
    client, experiment_id = open_store(store, "dead", tmp_path / "artifacts")
    made = {}
    for name in ("dead", "alive"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "status.json").write_text('{"status": "RUNNING"}')
        tags = {"results": str(folder)}
        made[name] = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    elsewhere = client.create_run(experiment_id, tags={"results": "/no/such/folder"}).info.run_id
    context = get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "alive" / ".lock", ready))
    holder.start()
    ready.wait(10)
    try:
        assert close_dead(client, experiment_id) == ["dead"]
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
    assert client.get_run(made["dead"]).info.status == "KILLED"
    assert client.get_run(made["alive"]).info.status == "RUNNING"
    assert client.get_run(elsewhere).info.status == "RUNNING"
    assert abandoned(tmp_path / "alive")  # kill -9 lets go of the lock


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
    run_train, tmp_path, store, monkeypatch, calls, capsys
):
    (whole,) = run_train()
    expected = MlflowClient(store).get_run(status(whole)["mlflow_run_id"])
    Unreachable.left = calls
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "MlflowClient", Unreachable)
        (folder,) = set(run_train("name=lost")) - {whole}
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


def test_a_store_that_must_be_there_always(run_train, monkeypatch):
    monkeypatch.setattr(tracking, "MlflowClient", Unreachable)
    Unreachable.left = 2
    with pytest.raises(MlflowException, match="connection refused"):
        run_train("tracking.required=always")


def test_a_store_that_is_not_there_at_the_start(run_train, tmp_path, store):
    (tmp_path / "file").write_text("in the way")
    nowhere = f"tracking.uri=sqlite:///{tmp_path}/file/mlflow.db"
    with pytest.raises(SystemExit, match="cannot open the MLflow store"):
        run_train(nowhere)
    (folder,) = run_train(nowhere, "tracking.required=never", "name=alone")
    assert status(folder)["status"] == "FINISHED"
    run_id = record(folder, store)
    assert MlflowClient(store).get_run(run_id).info.run_name == "alone"


def test_a_store_that_was_moved_shows_its_artifacts(run_script, tmp_path):
    first = tmp_path / "first"
    uri = f"sqlite:///{first / 'outputs' / 'mlflow.db'}"
    settings = (f"output={first / 'outputs'}", f"tracking.uri={uri}", *TINY_COHORT, *TINY)
    (folder,) = run_script("train.py", *settings)
    run_id = status(folder)["mlflow_run_id"]
    shutil.move(first, tmp_path / "second place")
    moved = f"sqlite:///{tmp_path / 'second place' / 'outputs' / 'mlflow.db'}"
    settle(moved)
    client = MlflowClient(moved)
    assert {file.path for file in client.list_artifacts(run_id)} >= {"figures", "config.yaml"}
    page = client.download_artifacts(run_id, "tables/summary.json", str(tmp_path))
    assert "jne/mean" in Path(page).read_text()
    assert Path(client.get_run(run_id).data.tags["results"]).exists()


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


@pytest.mark.slurm
def test_a_sweep_on_slurm(slurm, tmp_path):
    """Eight jobs, one of which fails; then one of them killed by the scheduler and gone on with."""
    jobs = ("encoder=linear,nonlinear", "seed=0,1,2", "hydra.launcher.cpus_per_task=1")
    launcher = ("hydra/launcher=slurm", "hydra.launcher.mem_gb=2")
    done = launch(tmp_path, *launcher, *jobs, "hydra.launcher.timeout_min=10", "activation=relu")
    assert done.returncode == 0, done.stdout + done.stderr
    done = launch(tmp_path, *launcher, "jacobian.voxels=all,[V9]", "hydra.launcher.timeout_min=10")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 jobs are not finished" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.kind = 'train'")
    assert sorted(run.info.status for run in runs) == ["FAILED"] + ["FINISHED"] * 7
    assert all("slurm_job" in run.data.tags for run in runs)


@pytest.mark.slurm
def test_a_job_put_back_into_the_queue_goes_on_by_itself(slurm, tmp_path):
    """`scontrol requeue` in training: the same folder, the same MLflow run, the whole result."""
    settings = ("trainer.max_epochs=400", "trainer.patience=400", "trainer.checkpoint_seconds=0.2",
                "data.n_train=2000", "encoder.hidden_width=128")  # fmt: skip
    launcher = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1",
                "hydra.launcher.mem_gb=2", "hydra.launcher.timeout_min=10")  # fmt: skip
    assert launch(tmp_path / "whole", *settings, "seed=5").returncode == 0
    output = tmp_path / "requeued"
    command = [sys.executable, "train.py", "-m", f"output={output}", *TINY_COHORT, *TINY]
    sweep = subprocess.Popen(
        [*command, *settings, *launcher, "seed=5"], cwd=ROOT, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("sweeps/*/*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    asked = ["squeue", "--noheader", "--states=RUNNING", "--format=%A"]
    job = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert sweep.wait(timeout=400) == 0
    (folder,) = (path.parent for path in output.glob("sweeps/*/*/status.json"))
    (reference,) = (path.parent for path in (tmp_path / "whole").glob("sweeps/*/*/status.json"))
    assert status(folder)["attempt"] == 2
    assert contents(folder) == contents(reference)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.kind = 'train'")
    assert run.info.status == "FINISHED"
