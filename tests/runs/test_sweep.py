"""Sweeps and restarts: what runs again and what does not, and what MLflow says of it."""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from helpers import ROOT, TINY, TINY_COHORT, contents, no_figures, only_run, run_quietly, status
from mlflow import MlflowClient
from omegaconf import OmegaConf

from jne.data.synthetic import Synthetic
from jne.fitting.callbacks import BestWeights, LastCheckpoint
from jne.results import Results
from jne.runs.launchers import LAUNCHERS, Launcher, launcher_of, wait_for_slurm
from jne.utils.slurm import job_ended


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
        "subj01_linear_s0",
        "subj01_linear_s0",
        "subj01_nonlinear_gelu_both_s0",
        "subj01_nonlinear_relu_both_s0",
    ]
    linear = [run for run in runs if run.data.params.get("encoder") == "linear"]
    assert {run.data.params["activation"] for run in linear} == {"none"}
    assert sweep.info.status == "FINISHED"
    assert sweep.data.metrics["jobs/finished"] == 4
    assert {file.path for file in client.list_artifacts(sweep.info.run_id)} == {
        "sweep.csv", "sweep.png",
    }  # fmt: skip
    assert f"mlflow.sharedViewState.jne-{folder.name}" in experiment.tags


def test_a_linear_encoder_has_jne_exactly_zero(finished_sweep):
    """Also if an activation and a placement are set."""
    for folder in sweep_folder(finished_sweep[0]).glob("*_linear_*"):
        assert (Results(folder).voxels["jne"] == 0).all()
        assert (Results(folder).array("jne_ss") == 0).all()


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
    assert len(pd.read_csv(folder / "sweep.csv")) == 1


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


def test_a_sweep_in_which_no_voxel_is_measured(run_train, tmp_path):
    """No voxel is significant. A pattern chooses the jobs."""
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


# --- launchers ---


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
    assert done.stdout.count("✓ job") == (2 if launcher == "cores" else 0)
    folder = sweep_folder(tmp_path)
    statuses = [status(path.parent)["status"] for path in folder.glob("*/status.json")]
    assert sorted(statuses) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.sweep = '{folder.name}' and tags.kind = 'train'")
    assert sorted(run.info.status for run in runs) == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


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


# --- SLURM ---


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
    """The folder of the long run, not interrupted."""
    output = tmp_path_factory.mktemp("whole")
    done = launch(output, *LONG)
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
    while not list(output.glob("sweeps/*/shards/*/*.ckpt")) and time.monotonic() < deadline:
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
