"""A run in shards (`jacobian.shard=k/K`) is the run in one job, byte for byte."""

import json
import shutil
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from helpers import (
    ROOT,
    TINY,
    TINY_COHORT,
    compose_train,
    contents,
    no_figures,
    only_run,
    run_quietly,
    status,
)
from mlflow import MlflowClient

from jne.errors import InputError
from jne.fitting import fit
from jne.results import Results
from jne.training import shards
from jne.training.config import check_config

MORE_VOXELS = "data.voxels_per_roi=12"  # 120
ALL_STAGES = ("control=shuffle", "jacobian.trajectory=5",
              "jacobian.variants=[l1,l2]", "jacobian.voxels=[V1,V2,V3,V4,EBA]")  # fmt: skip


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Eight blocks of voxels in place of one, and no figures."""
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 16)
    with no_figures():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, store):
    """The result files of the run in one job."""
    with pytest.MonkeyPatch.context() as patch, no_figures():
        patch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 16)
        output = tmp_path_factory.mktemp("whole")
        run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, MORE_VOXELS)
    return contents(only_run(output))


@pytest.fixture
def run_shard(run_train):
    return lambda shard, *more: run_train(MORE_VOXELS, f"jacobian.shard={shard}", *more)


def recorded(output: Path, kind: str = "runs") -> list[Path]:
    return sorted(path.parent for path in output.glob(f"{kind}/*/status.json"))


def shard_folder(output: Path) -> Path:
    (folder,) = (output / "runs" / "shards").iterdir()
    return folder


def n_tracked(store: str, output: Path) -> int:
    """The number of training runs in MLflow whose results are below `output`."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("jne").experiment_id
    runs = client.search_runs([experiment], "tags.kind = 'train'", max_results=5000)
    return sum(run.data.tags["results"].startswith(str(output)) for run in runs)


@pytest.mark.runs
@pytest.mark.parametrize("order", [pytest.param("21", marks=pytest.mark.slow), "231"])
def test_shards_in_any_order_are_the_whole(run_shard, whole, tmp_path, store, capsys, order):
    *first, last = (f"{k}/{len(order)}" for k in order)
    for number, shard in enumerate(first, start=1):
        run_shard(shard)
        said = capsys.readouterr().out
        missing = ", ".join(sorted(order[number:]))
        assert f"shard {shard} is done; not yet: {missing} of {len(order)}." in said
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["shards"]
        assert not n_tracked(store, tmp_path)
        assert not recorded(tmp_path)
    run_shard(last)
    folder = only_run(tmp_path)  # the shards' folder is gone
    assert contents(folder) == whole
    assert n_tracked(store, tmp_path) == 1
    run = Results(folder)
    assert "shard" not in run.config["jacobian"]
    assert [of["shard"] for of in run.status["shards"]] == [
        f"shard {k}/{len(order)}" for k in range(1, len(order) + 1)
    ]
    log = (folder / "train.log").read_text()
    assert all(f"shard {k}/{len(order)}: " in log for k in order)
    capsys.readouterr()
    run_shard(last)
    assert f"already finished: {folder}" in capsys.readouterr().out.replace("\n", "")
    assert only_run(tmp_path) == folder


@pytest.mark.slow
def test_variants_and_a_trajectory_in_shards(run_train, tmp_path, store):
    run_train(MORE_VOXELS, *ALL_STAGES)
    whole = only_run(tmp_path)
    expected = contents(whole)
    files = {path.name: path.read_bytes() for path in whole.iterdir() if path.is_file()}
    before = MlflowClient(store).get_run(status(whole)["mlflow_run_id"]).data
    shutil.rmtree(whole)
    for k in (3, 1, 2):
        run_train(MORE_VOXELS, *ALL_STAGES, f"jacobian.shard={k}/3")
    folder = only_run(tmp_path)
    assert contents(folder) == expected
    for name in set(files) - {"status.json", "train.log", "config.yaml"}:
        assert (folder / name).read_bytes() == files[name], name
    assert {path.name for path in folder.iterdir() if path.is_file()} == set(files)
    client = MlflowClient(store)
    after = client.get_run(status(folder)["mlflow_run_id"]).data
    assert after.params == before.params
    assert set(after.metrics) == {*before.metrics, "time/shards_s"}
    for name, value in before.metrics.items():
        if not name.startswith(("time/", "memory/")):
            assert after.metrics[name] == pytest.approx(value, rel=1e-3), name
    curve = client.get_metric_history(status(folder)["mlflow_run_id"], "trajectory/jne")
    assert [point.step for point in curve] == [0, 1, 2]


@pytest.mark.slow
def test_more_shards_than_blocks(run_train, tmp_path):
    """Some have no voxels; so has every shard where no voxel is asked for."""
    run_train("jacobian.voxels=[V1]")
    expected = contents(only_run(tmp_path))
    shutil.rmtree(only_run(tmp_path))
    for shard in ("1/2", "2/2"):
        run_train("jacobian.voxels=[V1]", f"jacobian.shard={shard}")
    assert contents(only_run(tmp_path)) == expected
    for shard in ("1/2", "2/2"):
        run_train("jacobian.voxels=[]", f"jacobian.shard={shard}")
    assert len(recorded(tmp_path)) == 2


class Killed(BaseException):
    pass


@pytest.mark.runs
def test_a_killed_shard_continues_and_a_done_one_is_not_repeated(
    run_shard, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    shares = []

    class Interrupted:
        @staticmethod
        def jacobian_deviation(*arguments, progress, **settings):
            def watched(done: float) -> None:
                shares.append(done)
                if len(shares) == 7:
                    raise Killed
                progress(done)

            return compute(*arguments, progress=watched, **settings)

    from jne.measuring.nonlinearity import jacobian_deviation as compute

    monkeypatch.setattr(
        "jne.measuring.nonlinearity.jacobian_deviation", Interrupted.jacobian_deviation
    )
    with pytest.raises(Killed):
        run_shard("1/2")
    assert status(shard_folder(tmp_path) / "1of2")["status"] == "KILLED"
    assert not recorded(tmp_path)
    trainings = count()
    train = fit.train_module
    monkeypatch.setattr(fit, "train_module", lambda *a, **k: next(trainings) or train(*a, **k))
    run_shard("1/2")
    assert shares[7] == pytest.approx(8 / 20)  # of the stimuli
    n_computed = len(shares)
    run_shard("1/2")
    assert len(shares) == n_computed
    run_shard("2/2")
    assert next(trainings) == 0  # trained before the kill
    assert contents(only_run(tmp_path)) == whole


@pytest.mark.runs
def test_a_recording_that_failed_is_done_again_by_any_shard(
    run_shard, whole, tmp_path, store, monkeypatch
):
    run_shard("1/2")
    with monkeypatch.context() as patch:
        patch.setattr("jne.training.run.summarise", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_shard("2/2")
    (folder,) = recorded(tmp_path)
    assert status(folder)["status"] == "FAILED"
    run_shard("1/2")
    assert only_run(tmp_path) == folder
    assert contents(folder) == whole
    assert n_tracked(store, tmp_path) == 1


@pytest.mark.runs
def test_while_one_shard_records_the_run_the_others_leave_it_alone(run_shard, tmp_path, capsys):
    run_shard("1/2")
    with FileLock(shard_folder(tmp_path) / ".record.lock"):
        run_shard("2/2")
    assert "shard 2/2 is done; another shard is recording the run" in capsys.readouterr().out
    assert not recorded(tmp_path)
    with FileLock(shard_folder(tmp_path) / "1of2" / ".lock"):
        run_shard("1/2")  # nothing to compute: it records
    assert len(recorded(tmp_path)) == 1


@pytest.mark.slow
def test_the_same_shard_is_not_computed_twice_at_a_time(run_shard, tmp_path, monkeypatch):
    monkeypatch.setattr("jne.results.folder._WAIT_SECONDS", 0.1)
    run_shard("1/2")
    folder = shard_folder(tmp_path) / "2of2"
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(SystemExit, match="another process is writing"):
        run_shard("2/2")


@pytest.mark.slow
def test_shards_of_other_data_do_not_count(run_shard, whole, tmp_path, capsys):
    """As after a change of the files that the data are read from."""
    run_shard("1/2")
    path = shard_folder(tmp_path) / "1of2" / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prepared": "of-other-data"}))
    run_shard("2/2")
    assert "shard 2/2 is done; not yet: 1 of 2." in capsys.readouterr().out
    run_shard("1/2")
    assert contents(only_run(tmp_path)) == whole


@pytest.mark.slow
def test_a_damaged_share_is_refused(run_shard, tmp_path):
    run_shard("1/2")
    (shard_folder(tmp_path) / "1of2" / "measured.npy").unlink()
    with pytest.raises(SystemExit, match=r"jacobian.shard: the shards in .* are not of the same"):
        run_shard("2/2")


@pytest.mark.slow  # eight jobs
def test_a_sweep_over_shards_records_each_run_once(run_train, tmp_path, store, capsys):
    both = ("-m", MORE_VOXELS, "seed=0,1", "jacobian.shard=1/2,2/2")
    run_train(*both)
    printed = capsys.readouterr().out
    (sweep,) = (tmp_path / "sweeps").iterdir()
    folders = recorded(tmp_path, f"sweeps/{sweep.name}")
    assert [status(folder)["status"] for folder in folders] == ["FINISHED"] * 2
    assert {path for path in sweep.iterdir() if path.is_dir()} == set(folders)
    table = pd.read_csv(sweep / "sweep.csv")
    assert sorted(table["seed"]) == [0, 1]
    assert "jacobian.shard" not in table
    assert "not finished" not in printed
    for folder in folders:
        assert not any("jacobian.shard" in override for override in status(folder)["overrides"])
    assert n_tracked(store, tmp_path) == 2
    stamps = [(folder / "voxels.csv").stat().st_mtime_ns for folder in folders]
    run_train(*both, "resume=true")
    assert stamps == [(folder / "voxels.csv").stat().st_mtime_ns for folder in folders]
    assert not (sweep / "shards").exists()


@pytest.mark.slow
def test_a_sweep_whose_shard_fails_says_which_are_done(run_train, tmp_path, monkeypatch, capsys):
    compute = shards.deviations

    def fail(*arguments, shard, **settings):
        if shard == (2, 3):
            raise ZeroDivisionError("a bug")
        compute(*arguments, shard=shard, **settings)

    jobs = ("-m", MORE_VOXELS, "jacobian.shard=1/3,2/3,3/3")
    monkeypatch.setenv("COLUMNS", "200")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "deviations", fail)
        with pytest.raises(SystemExit) as stopped:
            run_train(*jobs)
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert printed.count("is done, the run is not") == 2
    assert "ZeroDivisionError: a bug" in printed
    assert "3 of 3 jobs are not finished" in printed
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert not recorded(tmp_path, f"sweeps/{sweep.name}")
    assert not (sweep / "sweep.csv").exists()
    run_train(*jobs, "resume=true")
    (folder,) = recorded(tmp_path, f"sweeps/{sweep.name}")
    assert status(folder)["status"] == "FINISHED"
    assert "not finished" not in capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "1/0", "1/2/3", "[1,2]", "-1/2"])
def test_a_shard_that_is_none(tmp_path, shard):
    with pytest.raises(InputError, match=r"jacobian.shard=.*: input should be null or k/K"):
        check_config(compose_train(tmp_path, f"jacobian.shard={shard}"))


@pytest.mark.runs
def test_a_shard_is_no_part_of_what_a_run_is(tmp_path):
    whole, shard = (
        check_config(compose_train(tmp_path, *more))[0] for more in ([], ["jacobian.shard=02/4"])
    )
    assert shard.jacobian.shard == "2/4"
    assert shard.identity() == whole.identity()


def test_shards_of_a_calibration_are_refused(run_script):
    with pytest.raises(SystemExit, match=r"calibration.jacobian.*shard=1/2: only train.py"):
        run_script(
            "simulate.py", "simulation=calibration", "simulation.calibration.jacobian.shard=1/2"
        )


@pytest.mark.slow
def test_shards_at_the_same_time_and_one_killed(tmp_path):
    """Three processes, blocks of the usual size; one is killed while it trains or waits."""
    command = [sys.executable, "train.py", *TINY_COHORT, *TINY, "data.voxels_per_roi=700",
               "trainer.max_epochs=40", "trainer.patience=40"]  # fmt: skip
    output = tmp_path / "whole"
    subprocess.run([*command, f"output={output}"], cwd=ROOT, check=True, capture_output=True)
    expected = contents(only_run(output))
    output = tmp_path / "shards"

    def start(k: int) -> subprocess.Popen:
        settings = (f"output={output}", f"jacobian.shard={k}/3")
        return subprocess.Popen([*command, *settings], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    processes = [start(k) for k in (1, 2, 3)]

    def at_work() -> bool:
        """Whether one trains, and the one to be killed has got as far as to wait for it."""
        first = [path.read_text() for path in output.glob("runs/shards/*/1of3/status.json")]
        locked = list(output.glob("stages/fit/.*.lock"))
        return bool(locked) and any('"overrides"' in status for status in first)

    deadline = time.monotonic() + 60
    while not at_work() and time.monotonic() < deadline:
        time.sleep(0.01)
    processes[0].kill()
    processes[0].wait()
    said = [process.communicate()[0] for process in processes[1:]]
    assert all("not yet: " in words for words in said)
    assert not recorded(output)
    last = start(1)
    assert "results" in last.communicate()[0]
    assert [process.returncode for process in (*processes[1:], last)] == [0, 0, 0]
    assert contents(only_run(output)) == expected
    runs = MlflowClient(f"sqlite:///{output / 'mlflow.db'}").search_runs(["1"])
    assert [run.info.status for run in runs] == ["FINISHED"]
