"""MLflow: the store, a run's life cycle, and what is logged."""

import argparse
import base64
import json
import logging
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock

from jne.errors import InputError
from jne.results.folder import ended_as, in_one_line, locked, status_of
from jne.utils.files import atomic_file, write_json
from jne.utils.progress import console

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
# A server that is gone is noticed in a quarter of a minute, not in four.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags

# The making of a store's tables is no news to a user.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

ARTIFACTS = "mlartifacts"  # the folder beside the store
UNRECORDED = "unrecorded.json"
_VIEW = "jne"  # key of the saved view
_WORKFLOW = "machine_learning"  # else the UI opens on the tools for language models
_VIEW_COLUMNS = [
    *(f"params.`{name}`" for name in ("subject", "encoder", "activation", "placement", "seed")),
    *(f"metrics.`{name}`" for name in ("jne/mean", "r2/mean", "jne/V1", "jne/V4", "jne/FFA-2")),
    "attributes.`Duration`",
]
_FLUSH_SECONDS = 2.0  # a call costs 3 to 60 ms, as much as a short epoch: curves go in batches


class TrackedRun:
    """One MLflow run, open.

    Where the store is lost in the middle of it, the run goes on (`required` is start or never):
    all that it has to say is then kept in `unrecorded.json` of its results folder, for `record`.
    """

    def __init__(
        self,
        folder: Path,
        store: dict[str, str],
        on_unreachable: str,
        name: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        """store: its uri, experiment and artifacts, for `record`."""
        self.folder, self.on_unreachable = folder, on_unreachable
        self.client: MlflowClient | None = None
        self.run_id: str | None = None
        self.experiment_id = ""
        self._said: dict[str, Any] = {
            "store": store, "name": name, "run_id": None, "tags": tags or {}, "params": {},
            "metrics": [], "files": [], "status": "RUNNING",
        }  # fmt: skip
        self._pending: list[list] = []
        self._flushed = time.monotonic()

    @property
    def lost(self) -> bool:
        return self.client is None

    def start(self, run_id: str | None = None) -> None:
        """Open the store and a run in it: the one of this id where there is one, else a new one."""
        self._said["run_id"] = run_id
        tags = self._said["tags"]
        try:
            client, self.experiment_id = open_store(**self._said["store"])
            self.run_id = _reopened(client, run_id, tags)
            if self.run_id is None:
                name, tags = self._said["name"], resolve_tags(tags)
                run = client.create_run(self.experiment_id, run_name=name, tags=tags)
                self.run_id = run.info.run_id
            self._said["run_id"], self.client = self.run_id, client
        except (InputError, MlflowException, OSError) as error:
            if self.on_unreachable != "continue":
                raise
            self._lose(error)

    def restart_as_new_run(self) -> None:
        """Leave this run as KILLED and go on in a new one, whose parameters may be others."""
        self._send("set_tag", "error", "its data has changed; gone on with as another run")
        self._send("set_terminated", "KILLED")
        self._said["run_id"] = None
        if not self.lost:
            self.start()
            self.log_params(self._said["params"])
            for file, place in self._said["files"]:
                self._send("log_artifact", str(self.folder / file), place)

    def replay_journal(self) -> None:
        """What an earlier attempt could not tell MLflow, to be told with what is to come."""
        with suppress(OSError, ValueError):
            said = json.loads((self.folder / UNRECORDED).read_text())
            self._said["metrics"] = said["metrics"]
            self._pending = [[name, float(value), *when] for name, value, *when in said["metrics"]]
            self.flush()
            if not self.lost:
                (self.folder / UNRECORDED).unlink()

    def log_params(self, params: dict[str, object]) -> None:
        texts = {key: str(value)[:500] for key, value in params.items()}
        self._said["params"] |= texts
        self._send("log_batch", params=[Param(key, text) for key, text in texts.items()])

    def tag(self, name: str, value: str) -> None:
        self._said["tags"][name] = value[:5000]  # MLflow's limit
        self._send("set_tag", name, value[:5000])

    def log_epoch(self, row: dict[str, float]) -> None:
        """Curves of an epoch; the step is the epoch, so that runs of any batch size line up."""
        step = int(row["epoch"])
        self._add({name: value for name, value in row.items() if name != "epoch"}, step)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self._add(metrics, 0)
        self.flush()

    def log_file(self, path: Path, folder: str | None = None) -> None:
        self._said["files"].append([os.path.relpath(path, self.folder), folder])
        self._send("log_artifact", str(path), folder)

    def flush(self) -> None:
        for start in range(0, len(self._pending), 1000):  # MLflow's limit a call
            batch = [Metric(*metric) for metric in self._pending[start : start + 1000]]
            self._send("log_batch", metrics=batch)
        self._pending = []
        self._flushed = time.monotonic()

    def end(self, status: str) -> None:
        self._said["status"] = status
        self._send("set_terminated", status)
        if self.lost:
            console.print(
                f"[yellow]not in MLflow: {self._why}; to record it later:[/yellow]\n"
                f"  python -m jne.tracking record {self.folder}",
                soft_wrap=True,
            )

    def _add(self, metrics: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        rows = [[name, _rounded(value), now, step] for name, value in metrics.items()]
        self._pending += rows
        # As text where JSON has no such number.
        self._said["metrics"] += [
            [name, value if math.isfinite(value) else str(value), *when]
            for name, value, *when in rows
        ]

    def _send(self, method: str, *arguments, **named) -> None:
        if not self.lost:
            try:
                getattr(self.client, method)(self.run_id, *arguments, **named)
                return
            except (MlflowException, OSError) as error:
                if self.on_unreachable == "fail":
                    raise
                self._lose(error)
        write_json(self.folder / UNRECORDED, self._said)

    def _lose(self, error: Exception) -> None:
        self.client, self._why = None, str(error).splitlines()[0][:200]
        console.print(f"[yellow]MLflow: {self._why}; going on without it[/yellow]", soft_wrap=True)


def _reopened(client: MlflowClient, run_id: str | None, tags: dict[str, str]) -> str | None:
    """`run_id` where the store has that run, RUNNING again and with these tags; else None."""
    if run_id is None:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    if run.info.lifecycle_stage != "active":  # deleted by its owner
        return None
    client.update_run(run_id, status="RUNNING")
    if "error" in run.data.tags:
        client.delete_tag(run_id, "error")
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return run_id


@contextmanager
def track(
    store: dict[str, str],
    on_unreachable: str,
    name: str,
    tags: dict[str, str],
    folder: Path,
    run_id: str | None = None,
) -> Iterator[TrackedRun]:
    """An MLflow run that ends FINISHED, FAILED or KILLED as the block does.

    store: `uri` (sqlite, http or a database), `experiment` and `artifacts`, the folder in which a
    new experiment keeps them. required: always, start or never must the store be there; where it
    need not, the run goes on and `record` catches up. folder: the results folder. run_id: a run to
    go on with. Raises InputError, naming tracking.uri, where the store cannot be opened.
    """
    tracked = TrackedRun(folder, store, on_unreachable, name, tags)
    tracked.start(run_id)
    try:
        tracked.replay_journal()
        yield tracked
        tracked.flush()
    except BaseException as error:
        tracked.on_unreachable = "continue"  # what is told from here on must not hide the error
        tracked.flush()
        tracked.tag("error", in_one_line(error))
        if isinstance(error, Exception) and not isinstance(error, InputError):
            (folder / "error.txt").write_text("".join(traceback.format_exception(error)))
            tracked.log_file(folder / "error.txt")
        tracked.end(ended_as(error))
        raise
    tracked.end("FINISHED")


def record(folder: Path, uri: str | None = None) -> str:
    """Record a run that MLflow could not be told of; its id.

    uri: another store than it was meant for. A new experiment there keeps its artifacts beside it.

    Raises InputError where there is nothing to record or the store cannot be opened.
    """
    path = folder / UNRECORDED
    if not path.exists():
        raise InputError(f"{folder} holds nothing that is still to be recorded")
    with locked(folder, wait=1.0):
        said = json.loads(path.read_text())
        store = said["store"]
        if uri:
            sqlite = uri.startswith("sqlite:///")
            home = Path(uri.removeprefix("sqlite:///")).absolute() if sqlite else folder.absolute()
            store |= {"uri": uri, "artifacts": str(home.parent / ARTIFACTS)}
        # Where the folder is now: it may have been moved here.
        tags = said["tags"] | {"results": str(folder.absolute())}
        tracked = TrackedRun(folder, store, "fail", said["name"], tags)
        tracked.start(said["run_id"])
        # Noted first: where the store is lost again, the next try goes on with this run.
        write_json(path, said | {"run_id": tracked.run_id})
        tracked.log_params(said["params"])
        for file, place in said["files"]:
            tracked.log_file(folder / file, place)
        status = status_of(folder)  # {} of a sweep's own run
        # Nobody writes to the folder: what is RUNNING there was killed.
        tracked.end(status.get("status", said["status"]).replace("RUNNING", "KILLED"))
        tracked.replay_journal()  # last: the file is gone then
        if status:
            write_json(folder / "status.json", status | {"mlflow_run_id": tracked.run_id})
    return tracked.run_id


def find_run(store: dict[str, str], kind: str, sweep: str) -> str | None:
    """The newest run of a kind in a sweep; None where there is none or no store."""
    try:
        client, experiment_id = open_store(**store)
        wanted = f"tags.kind = '{kind}' and tags.sweep = '{sweep}'"
        found = client.search_runs([experiment_id], wanted, max_results=1)
    except (InputError, MlflowException):
        return None
    return found[0].info.run_id if found else None


def close_orphaned_runs(client: MlflowClient, experiment_id: str) -> list[str]:
    """Close as KILLED the runs that say RUNNING and whose process is gone; their names.

    A run whose folder cannot be reached from here, and whose SLURM job may still be there, is left
    alone.
    """
    closed = []
    with suppress(MlflowException):  # of a store that is lost meanwhile
        running = client.search_runs(
            [experiment_id], "attributes.status = 'RUNNING'", max_results=5000
        )
        for run in running:
            tags = run.data.tags
            folder = tags.get("results")
            if folder and os.path.isdir(folder):
                # While it is asked and closed nobody else goes on with it.
                with suppress(InputError, OSError), locked(Path(folder), wait=0.0):
                    if not _ended_unrecorded(Path(folder)):
                        closed += _close(client, run)
            elif slurm_job_ended(tags.get("slurm_job")):
                closed += _close(client, run)
    return closed


def _ended_unrecorded(folder: Path) -> bool:
    """Whether a run has ended of which MLflow could not be told: `record` knows how."""
    return (folder / UNRECORDED).exists() and status_of(folder).get("status") != "RUNNING"


def _close(client: MlflowClient, run: Run) -> list[str]:
    # Asked again: it may have ended well since.
    if client.get_run(run.info.run_id).info.status != "RUNNING":
        return []
    client.set_tag(run.info.run_id, "error", "its process ended without a word")
    client.set_terminated(run.info.run_id, "KILLED")
    return [run.info.run_name]


def slurm_job_ended(job: str | None) -> bool:
    """Whether SLURM has a job, or any of an array, neither running nor waiting any more."""
    if job is None or shutil.which("squeue") is None:
        return False
    asked = subprocess.run(
        ["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False
    )
    return not asked.stdout.strip() and (asked.returncode == 0 or "Invalid job id" in asked.stderr)


def open_store(uri: str, experiment: str, artifacts: str | Path) -> tuple[MlflowClient, str]:
    """The client, and the experiment's id; the store and the experiment are made if need be.

    An sqlite store that was copied with its artifacts to another place is told of the new one.

    One process at a time: MLflow's first migration of a store breaks it for good when two
    processes run it together, and two that create one experiment fail.
    """
    _check_address(uri)
    artifacts = Path(artifacts)
    try:
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(artifacts.parent / ".mlflow.lock"):
            _make(uri)
            relocate_store(uri)
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            if found is not None:
                return client, found.experiment_id
            # A server keeps artifacts where it is told to; a bare database does not know where.
            location = None if uri.startswith("http") else artifacts.as_uri()
            try:
                experiment_id = client.create_experiment(experiment, artifact_location=location)
            except MlflowException:  # made from another machine, whose lock is not ours
                return client, client.get_experiment_by_name(experiment).experiment_id
            save_views(client, experiment_id)
            return client, experiment_id
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"tracking.uri={uri}: cannot open the MLflow store ({reason})") from error


def _check_address(uri: str, *, existing: bool = False) -> None:
    """Raises InputError where `uri` is no store's address, or the sqlite store is not there."""
    if uri.startswith("file:") or "://" not in uri:
        raise InputError(
            f"tracking.uri={uri}: MLflow no longer writes to plain folders; use sqlite:///PATH "
            f"or the address of a server"
        )
    if existing and _missing(uri):  # MLflow would make an empty one
        raise InputError(f"there is no MLflow store at {uri}")


def _missing(uri: str) -> bool:
    return uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()


def _make(uri: str) -> None:
    """An sqlite store's tables, whole or not at all: a kill among its migrations breaks it."""
    database = Path(uri.removeprefix("sqlite:///"))
    if _missing(uri) and database.parent.is_dir():
        with atomic_file(database) as temporary:
            MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)


def relocate_store(uri: str) -> None:
    """Where an sqlite store lies in another folder than it was made in, with `mlartifacts` beside
    it as train.py leaves them, change the addresses in it to that folder.

    MLflow writes artifacts down with their whole path, so that a copied store would show none.
    """
    database = Path(uri.removeprefix("sqlite:///"))
    here = database.absolute().parent
    if not (uri.startswith("sqlite:///") and database.exists() and (here / ARTIFACTS).is_dir()):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master")}
        if "experiments" not in tables:
            return
        found = connection.execute("select distinct artifact_location from experiments")
        locations = [old for (old,) in found if old and old.endswith(f"/{ARTIFACTS}")]
        for old in locations:
            new = (here / ARTIFACTS).as_uri()
            under = (len(old) + 1, f"{old}/")
            runs = connection.execute(
                "select run_uuid from runs where substr(artifact_uri, 1, ?) = ?", under
            ).fetchall()
            # An experiment may keep its artifacts elsewhere, by `output`: they are not moved.
            came_along = not runs or any((here / ARTIFACTS / run).is_dir() for (run,) in runs)
            if old == new or not came_along:
                continue
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"update {table} set {column} = ? || substr({column}, ?) "
                    f"where {column} = ? or substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, *under),
                )
            before = str(Path(url2pathname(urlparse(old).path)).parent)
            connection.execute(
                "update tags set value = ? || substr(value, ?) "
                "where key = 'results' and substr(value, 1, ?) = ?",
                (str(here), len(before) + 1, len(before) + 1, f"{before}/"),
            )


def newest_runs(client: MlflowClient, experiment_id: str, filter_string: str) -> list[Path]:
    """Results folders of the newest linear and nonlinear training run of each subject.

    Of finished runs on the newest run's data, null controls left out. The nonlinear run brings its
    like with other seeds, the newest of each. filter_string: MLflow's filter syntax, '' for none.
    Raises InputError where nothing is left or the filter cannot be read.
    """
    wanted = " and ".join(
        part for part in ("tags.kind = 'train'", "params.shuffle = 'False'", filter_string) if part
    )
    try:
        found = client.search_runs(
            [experiment_id],
            f"attributes.status = 'FINISHED' and {wanted}",
            max_results=5000,
            order_by=["attributes.start_time DESC"],
        )
    except MlflowException as error:
        raise InputError(f"filter={filter_string}: MLflow cannot read it ({error})") from error
    if not found:
        what = f"filter={filter_string}: no" if filter_string else "runs=newest: no"
        raise InputError(f"{what} finished training run in the MLflow experiment")
    data = found[0].data.params["data"]
    newest: dict[tuple, Run] = {}
    for run in found:
        params = run.data.params
        if params["data"] != data:
            continue
        first = newest.setdefault((params["subject"], params["encoder"]), run)
        if params["encoder"] != "linear" and _but_for_seed(params) == _but_for_seed(
            first.data.params
        ):
            newest.setdefault((params["subject"], params["encoder"], params["seed"]), run)
    by_subject = sorted(newest.values(), key=lambda run: run.data.params["subject"])
    return list(dict.fromkeys(Path(run.data.tags["results"]) for run in by_subject))


def _but_for_seed(params: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name != "seed"}


def results_folder(client: MlflowClient, run_id: str) -> Path:
    """Where a run, named by its MLflow id, left its results. Raises InputError."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(
            f"runs: {run_id} is neither a results folder nor the id of a run in the MLflow store"
        ) from error
    if run.data.tags.get("kind") != "train":
        raise InputError(f"runs: {run_id} is not a training run")
    return Path(run.data.tags["results"])


def save_views(client: MlflowClient, experiment_id: str, sweep: str = "") -> None:
    """Leave saved views of the runs table: what was run, R2 and JNE, most nonlinear first.

    One of all training runs, one grouped by sweep, and one of a sweep alone where it is named. The
    format is the UI's own and undocumented: a view that it cannot read is ignored there.
    """
    plain = {
        "selectedColumns": _VIEW_COLUMNS,
        "columnOrder": _VIEW_COLUMNS,
        "orderByKey": "metrics.`jne/mean`",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_20_RUNS",
        "searchFilter": "tags.kind = 'train'",
    }
    grouped = plain | {
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": "sweep"}],
        }
    }
    views = {_VIEW: ("R² and JNE", plain), f"{_VIEW}-sweeps": ("R² and JNE by sweep", grouped)}
    if sweep:
        alone = plain | {"searchFilter": f"tags.sweep = '{sweep}' and tags.kind = 'train'"}
        views = {f"{_VIEW}-{sweep}": (f"Sweep {sweep}", alone)}
    for key, (name, state) in views.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{key}", json.dumps(view))


def ui_hint(uri: str, experiment_id: str, sweep: str = "") -> tuple[str, str]:
    """The command that opens the UI on this store, and the address of the saved view there."""
    key = f"{_VIEW}-{sweep}" if sweep else _VIEW
    page = f"/#/experiments/{experiment_id}/runs?viewStateShareKey={key}&workflowType={_WORKFLOW}"
    if uri.startswith("http"):
        return "", uri.rstrip("/") + page
    return f"python -m jne.tracking ui {uri}", "http://127.0.0.1:5000" + page


def _rounded(value: float) -> float:
    # The UI prints every digit it is given.
    return float(f"{value:.4g}") if math.isfinite(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jne.tracking", description="What is done to an MLflow store between runs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    default = f"sqlite:///{Path('outputs/mlflow.db').absolute()}"
    add = commands.add_parser("record", help="record runs that MLflow could not be told of")
    add.add_argument("folders", nargs="+", type=Path, help="results folders")
    add.add_argument("--uri", help="another store than the run was meant for")
    add = commands.add_parser("close", help="close, as KILLED, runs whose process is gone")
    add.add_argument("uri", nargs="?", default=default)
    add.add_argument("--experiment", default="jne")
    add = commands.add_parser("ui", help="the MLflow UI on a store, also on one that was moved")
    add.add_argument("uri", nargs="?", default=default)
    add.add_argument("--port", default="5000")
    given = parser.parse_args()
    try:
        if given.command == "record":
            for folder in given.folders:
                print(f"{folder}: recorded as {record(folder, given.uri)}")
        elif given.command == "close":
            _check_address(given.uri, existing=True)
            client = MlflowClient(given.uri)
            found = client.get_experiment_by_name(given.experiment)
            closed = close_orphaned_runs(client, found.experiment_id) if found else []
            print(f"{len(closed)} dead runs closed{': ' if closed else ''}{', '.join(closed)}")
        else:
            _check_address(given.uri, existing=True)
            relocate_store(given.uri)
            # One worker and no job runners: a fifth of the memory.
            os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
            command = ["-m", "mlflow", "ui", "--workers", "1", "--port", given.port]
            os.execv(sys.executable, [sys.executable, *command, "--backend-store-uri", given.uri])
    except (InputError, MlflowException) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
