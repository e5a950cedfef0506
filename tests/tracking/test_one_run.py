"""One run of a script is one MLflow run, whatever kills it, and has every point once."""

import json
import pkgutil
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from finished_run import write_run
from helpers import no_figures, only_run, status
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jne.errors import InputError
from jne.results.folder import open_run
from jne.tracking import RUN_KEY, open_store, track
from jne.tracking import store as store_module
from jne.tracking.run import TrackedRun


class Died(BaseException):
    """What a kill -9 is to these tests: nothing is noted, and nothing is sent after it."""


def runs_of(uri: str, experiment: str) -> list:
    client = MlflowClient(uri)
    made = client.get_experiment_by_name(experiment)
    return client.search_runs([made.experiment_id]) if made else []


def points(uri: str, run_id: str) -> Counter:
    """How often each metric has a value at each step."""
    client = MlflowClient(uri)
    return Counter(
        (name, point.step)
        for name in client.get_run(run_id).data.metrics
        for point in client.get_metric_history(run_id, name)
    )


def kill_at(patch: pytest.MonkeyPatch, target: str, calls: int = 1) -> None:
    """Have the process die at some call of a function, before MLflow hears of it."""
    left = [calls]

    def die(*arguments, **named):
        left[0] -= 1
        if not left[0]:
            # The end of a killed run is reported nowhere.
            patch.setattr("jne.results.folder.RunFolder.end", lambda *_: None)
            patch.setattr("jne.tracking.run._end_with", lambda *_: None)
            raise Died
        return original(*arguments, **named)

    original = pkgutil.resolve_name(target)
    patch.setattr(target, die)


@pytest.mark.runs
@pytest.mark.parametrize(
    ("target", "calls"),
    [
        pytest.param(  # the run is created, and not yet noted
            "jne.results.folder.RunFolder.note", 1, marks=pytest.mark.slow
        ),
        ("jne.fitting.callbacks.LastCheckpoint.on_train_epoch_end", 3),
        pytest.param("jne.training.run.summarise", 1, marks=pytest.mark.slow),
        pytest.param("jne.tracking.run.TrackedRun.log_model", 1, marks=pytest.mark.slow),
        ("jne.training.run.show_locations", 1),  # all is sent
    ],
)
def test_a_killed_training_is_one_run_with_every_point_once(
    run_train, tmp_path, store, monkeypatch, target, calls
):
    settings = ("trainer.max_epochs=6", "tracking.experiment=" + tmp_path.name,
                "jacobian.trajectory=2", "tracking.log_model=true")  # fmt: skip
    with monkeypatch.context() as patch, no_figures():
        patch.setattr("jne.tracking.run._FLUSH_SECONDS", 0.0)  # epochs after the last checkpoint
        kill_at(patch, target, calls)
        with pytest.raises(Died):
            run_train(*settings)
    run_train(*settings, "resume=true")
    (run,) = runs_of(store, tmp_path.name)
    assert run.info.status == "FINISHED"
    folder = only_run(tmp_path)
    assert status(folder)["mlflow_run_id"] == run.info.run_id
    counted = points(store, run.info.run_id)
    assert set(counted.values()) == {1}
    for name in ("val/loss", "trajectory/jne"):
        assert {step for key, step in counted if key == name} == set(range(1, 7))
    assert len(run.inputs.dataset_inputs) == 1
    assert set(json.loads((folder / "summary.json").read_text())["metrics"]) <= set(
        run.data.metrics
    )


@pytest.mark.runs
def test_a_run_whose_store_was_replaced_has_its_whole_curves_in_the_new_one(
    run_train, tmp_path, store, monkeypatch
):
    other = tmp_path / "other.db"
    shutil.copy(store.removeprefix("sqlite:///"), other)
    settings = ("trainer.max_epochs=6", "name=replaced")
    with monkeypatch.context() as patch, no_figures():
        kill_at(patch, "jne.fitting.callbacks.BestWeights.on_fit_end")
        with pytest.raises(Died):
            run_train(*settings)
    first = status(only_run(tmp_path))["mlflow_run_id"]
    run_train(*settings, "resume=true", f"tracking.uri=sqlite:///{other}")
    second = status(only_run(tmp_path))["mlflow_run_id"]
    assert first != second
    counted = points(f"sqlite:///{other}", second)
    assert {step for key, step in counted if key == "val/loss"} == set(range(1, 7))
    assert set(counted.values()) == {1}


def test_a_run_is_found_by_its_key_only_in_its_experiment(tmp_path, store):
    place = {"uri": store, "experiment": tmp_path.name, "artifacts": str(tmp_path / "a")}
    first = TrackedRun(tmp_path, place, "fail", "x", {RUN_KEY: "k"})
    first.start()
    again = TrackedRun(tmp_path, place, "fail", "x", {RUN_KEY: "k"})
    again.start()
    other = TrackedRun(tmp_path, place, "fail", "x", {RUN_KEY: "l"})
    other.start("0" * 32)  # an id of another store
    assert again.run_id == first.run_id != other.run_id


def test_a_store_that_fails_is_not_one_without_the_run(tmp_path, store, monkeypatch):
    """Otherwise a second run would be created."""
    place = {"uri": store, "experiment": tmp_path.name, "artifacts": str(tmp_path / "a")}
    first = TrackedRun(tmp_path, place, "fail", "x")
    first.start()

    def lost(*_):
        raise MlflowException("connection refused")

    monkeypatch.setattr(MlflowClient, "get_run", lost)
    again = TrackedRun(tmp_path, place, "continue", "x")
    again.start(first.run_id)
    monkeypatch.undo()
    assert again.offline
    assert len(runs_of(store, tmp_path.name)) == 1


@pytest.mark.runs
@pytest.mark.parametrize("script", ["evaluate.py", "simulate.py"])
def test_a_killed_report_or_study_is_closed_by_the_next_start(
    run_script, tmp_path, store, monkeypatch, script
):
    runs = [write_run(tmp_path / name, placement=name).path for name in ("both", "loc1")]
    chosen = {
        "evaluate.py": (
            f"runs=[{runs[0]}]",
            "voxels=all",
            "variants=[l1]",
            "stats.n_bootstrap=20",
            "selectivity.n_permutations=99",
        ),
        "simulate.py": (
            "simulation=depth",
            *(f"simulation.depth.{key}" for key in ("n_draws=1", "width=8", "n_stimuli=5")),
        ),
    }[script]
    settings = (*chosen, "tracking.experiment=" + tmp_path.name)
    target = {
        "evaluate.py": "jne.evaluation.run.Report.draw",
        "simulate.py": "jne.simulation.run.means",
    }
    with monkeypatch.context() as patch:
        kill_at(patch, target[script])
        with pytest.raises(Died):
            run_script(script, *settings)
    (killed,) = runs_of(store, tmp_path.name)
    assert killed.info.status == "RUNNING"
    with monkeypatch.context() as patch:
        if script == "evaluate.py":
            patch.setattr("jne.evaluation.run.Report.draw", lambda *_: {})
            patch.setattr("jne.evaluation.run.Report.finish", lambda *_: None)
            patch.setattr("jne.evaluation.report.build_page", lambda *_: "")
        run_script(script, *settings)
    rerun, closed = runs_of(store, tmp_path.name)
    assert (closed.info.run_id, closed.info.status) == (killed.info.run_id, "KILLED")
    assert rerun.info.status == "FINISHED"


def test_a_run_that_could_not_report_its_error_is_closed_with_it(tmp_path, store):
    """The disk was too full for MLflow; the folder has the error."""
    client, experiment_id = open_store(store, tmp_path.name, tmp_path / "artifacts")
    tags = {"results": str(tmp_path / "run")}
    run_id = client.create_run(experiment_id, tags=tags).info.run_id
    with suppress(ZeroDivisionError), open_run(tmp_path / "run", {}) as folder:
        folder.note(mlflow_run_id=run_id)
        raise ZeroDivisionError
    store_module.close_orphaned_runs(client, experiment_id)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "ZeroDivisionError: ")


def test_the_counts_of_a_sweep_are_those_of_its_last_end(tmp_path, store):
    place = {"uri": store, "experiment": tmp_path.name, "artifacts": str(tmp_path / "a")}
    run_id = None
    for n_finished in (2, 1, 4):
        tracked = TrackedRun(tmp_path, place, "fail", "sweep")
        tracked.start(run_id)
        tracked.log_metrics({"jobs/finished": n_finished}, tracked.next_step("jobs/finished"))
        run_id = tracked.run_id
    assert MlflowClient(store).get_run(run_id).data.metrics == {"jobs/finished": 4}
    assert set(points(store, run_id).values()) == {1}


def test_a_resumed_run_shows_all_its_pictures(tmp_path, store):
    place = {"uri": store, "experiment": tmp_path.name, "artifacts": str(tmp_path / "a")}
    names = ("a.png", "b.png", "c.png")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    run_id = None
    for count in (2, 3):  # killed after two
        tracked = TrackedRun(tmp_path, place, "fail", "pictures")
        tracked.start(run_id)
        for name in names[:count]:
            tracked.log_file(tmp_path / name)
        run_id = tracked.run_id
    tracked.end("FINISHED")
    text = MlflowClient(store).get_run(run_id).data.tags["mlflow.note.content"]
    assert text.count("![]") == 3


# --- servers and databases that do not answer ---


@pytest.fixture
def silent_server():
    """A server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_is_noticed_at_the_start(silent_server, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"tracking\.uri=.*does not answer within"):
        open_store(silent_server, "jne", tmp_path / "artifacts")


def test_a_server_that_stops_answering_does_not_hold_the_run_up(
    silent_server, tmp_path, store, monkeypatch, capsys
):
    monkeypatch.setattr(store_module, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("jne.tracking.run._FLUSH_SECONDS", 0.0)
    place = {"uri": store, "experiment": tmp_path.name, "artifacts": str(tmp_path / "a")}
    with track(place, "fail_at_start", "x", {}, tmp_path) as tracked:
        place["uri"] = silent_server
        tracked.log_metrics({"x": 1.0})
    assert (
        "does not answer within 0 s; continuing without MLflow"
        in capsys.readouterr().out.replace("\n", " ")
    )
    assert json.loads((tmp_path / "unrecorded.json").read_text())["metrics"][0][:2] == ["x", 1.0]


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    with pytest.raises(InputError, match="file is not a database"):
        open_store(f"sqlite:///{tmp_path / 'mlflow.db'}", "jne", tmp_path / "artifacts")


@pytest.mark.slow  # MLflow waits for twenty seconds
def test_a_locked_database_is_one_sentence(tmp_path, store, capfd):
    file = tmp_path / "mlflow.db"
    shutil.copy(store.removeprefix("sqlite:///"), file)
    place = {"uri": f"sqlite:///{file}", "experiment": "jne", "artifacts": str(tmp_path / "a")}
    with track(place, "fail_at_start", "locked", {}, tmp_path) as tracked:
        with sqlite3.connect(file, isolation_level=None) as other:
            other.execute("begin exclusive")
            tracked.log_metrics({"x": 1.0})
            other.execute("rollback")
    printed = capfd.readouterr()
    assert "database is locked; continuing without MLflow" in printed.out.replace("\n", " ")
    assert "Traceback" not in printed.out + printed.err


# --- PostgreSQL ---


@pytest.fixture
def postgres(tmp_path):
    """The address of an empty PostgreSQL database, in a server of its own."""
    pytest.importorskip("psycopg")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries or shutil.which("runuser") is None:
        pytest.skip("PostgreSQL is not installed")
    with TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        shutil.chown(home, "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
        control = [*as_postgres, str(binaries[-1].with_name("pg_ctl")), "-D", f"{home}/data", "-w"]
        make = [*as_postgres, str(binaries[-1]), "-D", f"{home}/data", "-A", "trust"]
        subprocess.run(make, check=True)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {home}"
        subprocess.run([*control, "-o", options, "-l", f"{home}/log", "start"], check=True)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True)


@pytest.mark.slow
def test_six_machines_open_an_empty_postgresql_store_at_once(postgres, tmp_path):
    """Machines that see no lock of each other's: each has an `output` of its own."""
    code = "import sys; from jne.tracking import open_store; print(open_store(*sys.argv[1:])[1])"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, postgres, "jne", str(tmp_path / str(k) / "artifacts")],
            stdout=subprocess.PIPE, text=True,
        )
        for k in range(6)
    ]  # fmt: skip
    printed = [process.communicate()[0].split()[-1:] for process in started]
    assert printed == [["1"]] * 6
