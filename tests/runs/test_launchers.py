"""Sweeps on several cores and on SLURM."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, TINY, TINY_COHORT, contents, status, sweep_folder
from mlflow import MlflowClient
from omegaconf import OmegaConf

from jne.cli import user_message
from jne.errors import InputError
from jne.runs.launchers import LAUNCHERS, Launcher, launcher_of, wait_for_slurm
from jne.utils.slurm import job_ended


def test_launchers_and_their_defaults():
    """The rows are those of the class names that the installed launchers have."""
    config = pytest.importorskip("hydra_plugins.hydra_joblib_launcher.config")
    submitit = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")

    def row(target: str) -> Launcher:
        return launcher_of(OmegaConf.create({"hydra": {"launcher": {"_target_": target}}}))

    assert row(config.JobLibLauncherConf._target_) is LAUNCHERS["JoblibLauncher"]
    assert row(submitit.SlurmQueueConf._target_) is LAUNCHERS["SlurmLauncher"]
    assert row(submitit.LocalQueueConf._target_) == Launcher()
    assert row("my_package.MyLauncher") == Launcher()
    assert LAUNCHERS["JoblibLauncher"].shares_terminal
    assert LAUNCHERS["SlurmLauncher"].wait is wait_for_slurm


def test_a_machine_without_slurm_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(InputError, match="hydra/launcher: SLURM is not on this machine"):
        LAUNCHERS["SlurmLauncher"].check()
    LAUNCHERS["JoblibLauncher"].check()


def test_jobs_that_slurm_did_not_take(monkeypatch, tmp_path):
    """They are not waited for, and the end is what sbatch said last."""
    core = pytest.importorskip("submitit.core.utils")
    (tmp_path / ".submitit").mkdir()
    (tmp_path / ".submitit" / "558d55cf1402496d9027d04f183a0cc4.pkl").touch()  # as it names them
    (tmp_path / ".submitit" / "123_0").mkdir()
    asked: list[str] = []
    monkeypatch.setattr("jne.runs.launchers.job_ended", lambda job: asked.append(job) or True)
    wait_for_slurm(tmp_path)
    assert asked == ["123"]
    error = core.FailedJobError("sbatch: error: a\nsbatch: fatal: no such partition\n")
    assert user_message(error).endswith("SLURM took no job (sbatch: fatal: no such partition)")


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
    lines = [line for line in done.stdout.splitlines() if line.startswith("✓ job")]
    assert len(lines) == (2 if launcher == "cores" else 0)
    assert all(re.search(r"  R² -?\d\.\d{3}  JNE \d\.\d{3}  \d+ s$", line) for line in lines)
    if launcher == "cores":
        assert len(re.findall(r"^✗ job \d .*unknown ROI 'V9'", done.stdout, re.MULTILINE)) == 2
        assert "[INFO]" not in done.stdout
    folder = sweep_folder(tmp_path)
    statuses = [status(path.parent)["status"] for path in folder.glob("*/status.json")]
    assert sorted(statuses) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.sweep = '{folder.name}' and tags.kind = 'train'")
    assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


@pytest.fixture
def slurm():
    """Skip the test if no SLURM answers; start one first."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        pytest.skip("no SLURM commands here")
    answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=False)
    if answer.returncode or "main" not in answer.stdout:
        pytest.skip(f"no SLURM answers: {answer.stderr.strip()}")


ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
# Longer than the time limit below, also on a fast machine.
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
    """Hydra's launcher ends once it finds, after minutes, that the first job was killed."""
    submit = ["sbatch", "--parsable", "--array=0-1", "--output=/dev/null", "--wrap", "sleep 8"]
    array = subprocess.run(submit, capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / ".submitit" / array).mkdir(parents=True)  # as submitit makes it
    assert not job_ended(array)
    wait_for_slurm(tmp_path)
    assert job_ended(array)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of the long run, not interrupted: also on one core, or its bytes were others."""
    output = tmp_path_factory.mktemp("whole")
    done = launch(output, *LONG, *ON_SLURM, "hydra.launcher.timeout_min=60")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = output.glob("sweeps/*/*/status.json")
    return path.parent


def check_continued(output: Path, uninterrupted: Path) -> None:
    """The job continued in its folder and its MLflow run, to the same results."""
    (folder,) = (path.parent for path in output.glob("sweeps/*/*/status.json"))
    assert status(folder)["attempt"] > 1
    assert contents(folder) == contents(uninterrupted)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.kind = 'train'")
    assert run.info.status == "FINISHED"


@pytest.mark.slurm
def test_a_requeued_job_continues_by_itself(slurm, tmp_path, uninterrupted):
    """`scontrol requeue` in training."""
    command = [sys.executable, "train.py", "-m", f"output={tmp_path}", *TINY_COHORT, *TINY]
    limit = "hydra.launcher.timeout_min=10"
    sweep = subprocess.Popen(
        [*command, *LONG, *ON_SLURM, limit], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    query = ["squeue", "--noheader", "--states=RUNNING", "--format=%A"]
    job = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert sweep.wait(timeout=600) == 0
    check_continued(tmp_path, uninterrupted)


@pytest.mark.slurm
def test_a_job_that_reaches_its_time_limit_continues_by_itself(slurm, tmp_path, uninterrupted):
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=60")
    done = launch(tmp_path, *LONG, *ON_SLURM, *limit)
    assert done.returncode == 0, done.stdout + done.stderr
    check_continued(tmp_path, uninterrupted)


@pytest.mark.slurm
def test_shards_of_a_run_on_slurm(slurm, tmp_path):
    """Four jobs compute one run; one is requeued in training. A fifth has the run to itself."""
    settings = ("data.voxels_per_roi=900", "trainer.max_epochs=2000", "trainer.patience=2000",
                "trainer.checkpoint_seconds=0.2", *ON_SLURM,
                "hydra.launcher.timeout_min=10")  # fmt: skip
    done = launch(tmp_path / "whole", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    (whole,) = (tmp_path / "whole").glob("sweeps/*/*/status.json")

    output = tmp_path / "shards"
    command = [sys.executable, "train.py", "-m", f"output={output}", *TINY_COHORT, *TINY]
    jobs = "jacobian.shard=1/4,2/4,3/4,4/4"
    sweep = subprocess.Popen(
        [*command, *settings, jobs], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("stages/fit/.*.partial/*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    query = ["squeue", "--noheader", "--states=RUNNING", "--format=%A"]
    job = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["scontrol", "requeue", job], check=True)
    printed, _ = sweep.communicate(timeout=600)
    print(printed)
    assert sweep.returncode == 0, printed
    (folder,) = (path.parent for path in output.glob("sweeps/*/*/status.json"))
    assert contents(folder) == contents(whole.parent)
    assert len(status(folder)["shards"]) == 4
    assert not (folder.parent / "shards").exists()
    assert printed.count("│ shard=") == 4  # rows of the table, all with the run's numbers
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.kind = 'train'")
    assert run.info.status == "FINISHED"
