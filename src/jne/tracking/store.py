"""The MLflow store: where it is, how it is made, and the runs in it whose process has died."""

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import requests
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from jne.addresses import sqlite_address, sqlite_file
from jne.credentials import hide_credentials, with_credentials
from jne.errors import InputError
from jne.results.folder import locked, status_of
from jne.tracking.views import save_views
from jne.utils.files import atomic_file, make_folder
from jne.utils.locks import locked_file
from jne.utils.progress import say
from jne.utils.slurm import job_ended

# MLflow passes on what SQLAlchemy and sqlite raise while it opens a database.
STORE_ERRORS = (InputError, MlflowException, OSError, SQLAlchemyError, sqlite3.Error)
"""What is raised where a store cannot be opened, or can no longer be reached."""

_ANSWER_SECONDS = 10.0  # a server has for an answer
_SILENT_SECONDS = 5.0  # after these, a process that waits says so
_LOCK_NUMBER = 7465627  # of the lock in a PostgreSQL store; any number that nobody else takes
ARTIFACTS = "mlartifacts"  # the folder beside an sqlite store
TAG_LENGTH = 5000  # MLflow's limit
UNRECORDED = "unrecorded.json"  # in a results folder: the journal of a run that went offline


def open_store(uri: str, experiment: str, artifacts: str | Path) -> tuple[MlflowClient, str]:
    """Open a store and return its client and the id of the experiment; make both if need be.

    uri: sqlite:///PATH, or the address of a server or a database. artifacts: the folder in which
    a new experiment keeps its artifacts, unless a server does. An sqlite store that was copied
    together with its artifacts is relocated (see `relocate_store`).

    Raises InputError, naming tracking.uri, where the store cannot be opened.
    """
    check_address(uri)
    artifacts = Path(artifacts)
    with opening(uri):
        check_answer(uri)
        make_folder(artifacts.parent)
        # One process at a time: two that run MLflow's first migration of a store together break
        # it for good, and two that create the same experiment fail.
        with locked_file(artifacts.parent / ".mlflow.lock"), _alone_in_database(uri):
            _make_store(uri)
            relocate_store(uri)
            client = MlflowClient(with_credentials(uri))
            entry = client.get_experiment_by_name(experiment)
            if entry is not None:
                return client, entry.experiment_id
            # A server has its own place for artifacts; a database has none.
            location = None if uri.startswith("http") else artifacts.as_uri()
            try:
                experiment_id = client.create_experiment(experiment, artifact_location=location)
            except MlflowException:
                # Another machine, which does not see our lock, may have created it meanwhile.
                entry = client.get_experiment_by_name(experiment)
                if entry is None:
                    raise
                return client, entry.experiment_id
            save_views(client, experiment_id)
            return client, experiment_id


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Raise InputError, naming tracking.uri, where the block cannot open the store at `uri`."""
    try:
        yield
    except InputError:
        raise
    except ModuleNotFoundError as error:  # the driver of a database
        message = f"the Python package {error.name} is not installed"
        if uri.startswith("postgresql"):
            message += '; pip install "jne[postgres]"'
        if error.name == "psycopg2":
            message += " and begin the address with postgresql+psycopg://"
        raise InputError("tracking.uri", message, uri) from error
    except (*STORE_ERRORS, ValueError) as error:
        message = f"cannot open the MLflow store ({first_line(error)})"
        raise InputError("tracking.uri", message, uri) from error


def first_line(error: Exception) -> str:
    """What went wrong in a store, without what SQLAlchemy adds to it, and without passwords."""
    lines = hide_credentials(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_address(uri: str, *, existing: bool = False) -> None:
    """Raise InputError where `uri` is not the address of a store.

    existing: also where the file of an sqlite store does not exist; MLflow would create it.
    """
    if uri.startswith("file:") or "://" not in uri:
        raise InputError(
            "tracking.uri",
            "MLflow no longer writes to plain folders; use sqlite:///PATH "
            "or the address of a server",
            value=uri,
        )
    database = sqlite_file(uri)
    if uri.startswith("sqlite:") and (database is None or database.is_dir()):
        raise InputError("tracking.uri", "give the path of a file, as in sqlite:///PATH", value=uri)
    if existing and database is not None and not database.exists():
        message = f"there is no MLflow store at {uri}, where train.py would have made one"
        raise InputError("", message)


def check_answer(uri: str) -> None:
    """Raise InputError where a server does not answer: MLflow would wait for two minutes.

    One that cannot be reached at all is left to MLflow, which tries again for a while: it may be
    starting.
    """
    if not uri.startswith("http"):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
    except requests.Timeout as error:
        raise InputError(
            "tracking.uri", f"the server does not answer within {_ANSWER_SECONDS:.0f} s", uri
        ) from error
    except requests.RequestException:
        return


@contextmanager
def _alone_in_database(uri: str) -> Iterator[None]:
    """Keep processes on other machines, which see no lock of ours, out of a PostgreSQL store."""
    if not uri.startswith("postgresql"):
        yield
        return
    engine = create_engine(with_credentials(uri))
    try:
        with engine.connect() as connection:  # PostgreSQL releases the lock when it ends
            start, told = time.monotonic(), False
            while not connection.scalar(text(f"select pg_try_advisory_lock({_LOCK_NUMBER})")):
                if time.monotonic() - start > _SILENT_SECONDS and not told:
                    say("waiting for another process to open the MLflow store", "yellow")
                    told = True
                time.sleep(0.1)
            yield
    finally:
        engine.dispose()


def _make_store(uri: str) -> None:
    """Make the file of an sqlite store, if it does not exist.

    The file appears with all its tables: a kill between two of MLflow's migrations would break it.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            # Of a file that is no database, MLflow would ask ten times, for two minutes.
            connection.execute("select count(*) from sqlite_master")
        return
    make_folder(database.parent, "tracking.uri")
    with atomic_file(database) as temporary:
        MlflowClient(sqlite_address(temporary)).search_experiments(max_results=1)


def relocate_store(uri: str) -> None:
    """If an sqlite store was moved together with its artifacts, update the paths in it.

    MLflow stores absolute paths, so a store that was moved or copied would show no artifacts. Only
    a store with a folder `mlartifacts` beside it, as train.py makes it, is changed.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    folder = database.absolute().parent
    if not (database.exists() and (folder / ARTIFACTS).is_dir()):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master")}
        if "experiments" not in tables:
            return
        locations = connection.execute("select distinct artifact_location from experiments")
        for old in [old for (old,) in locations if old and old.endswith(f"/{ARTIFACTS}")]:
            _relocate_experiments(connection, old, folder, tables)


_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
)


def _relocate_experiments(
    connection: sqlite3.Connection, old: str, folder: Path, tables: set[str]
) -> None:
    """Replace the artifact location `old` by the one in `folder`: of experiments, runs and models.

    So are the addresses of results folders and prepared data. tables: those of the store; earlier
    versions of MLflow had fewer.
    """
    new = (folder / ARTIFACTS).as_uri()
    below_old = (len(old) + 1, f"{old}/")
    runs = connection.execute(
        "select run_uuid from runs where substr(artifact_uri, 1, ?) = ?", below_old
    ).fetchall()
    # The artifacts of an experiment with another `output` lie elsewhere and were not moved.
    moved = not runs or any((folder / ARTIFACTS / run).is_dir() for (run,) in runs)
    if old == new or not moved:
        return
    for table, column in _LOCATIONS:
        if table not in tables:
            continue
        connection.execute(
            f"update {table} set {column} = ? || substr({column}, ?) "
            f"where {column} = ? or substr({column}, 1, ?) = ?",
            (new, len(old) + 1, old, *below_old),
        )
    old_folder = str(Path(url2pathname(urlparse(old).path)).parent)
    connection.execute(
        "update tags set value = ? || substr(value, ?) "
        "where key = 'results' and substr(value, 1, ?) = ?",
        (str(folder), len(old_folder) + 1, len(old_folder) + 1, f"{old_folder}/"),
    )
    if "datasets" in tables:
        # A source is {"uri": "/..."}, written by `dataset_of`.
        starts = [json.dumps({"uri": f"{path}/"})[:-2] for path in (old_folder, folder)]
        connection.execute(
            "update datasets set dataset_source = ? || substr(dataset_source, ?) "
            "where substr(dataset_source, 1, ?) = ?",
            (starts[1], len(starts[0]) + 1, len(starts[0]), starts[0]),
        )


def close_orphaned_runs(client: MlflowClient, experiment_id: str) -> list[str]:
    """Close, as KILLED, the runs that are RUNNING in MLflow but whose process has died.

    A run is left alone if its results folder cannot be reached from this machine and its SLURM job
    may still exist, or if its journal is still to be recorded. Returns the names of the closed
    runs; stops quietly where the store can no longer be reached.
    """
    closed: list[str] = []
    with suppress(MlflowException):
        running = client.search_runs(
            [experiment_id], "attributes.status = 'RUNNING'", max_results=5000
        )
        for run in running:
            if _close_if_orphaned(client, run):
                closed.append(run.info.run_name)
    return closed


def _close_if_orphaned(client: MlflowClient, run: Run) -> bool:
    tags = run.data.tags
    folder = tags.get("results", "")
    if not os.path.isdir(folder):
        return job_ended(tags.get("slurm_job")) and _close(client, run)
    # The lock is held until the run is closed: no other process can continue it meanwhile.
    with suppress(InputError, OSError), locked(Path(folder), wait=0.0):
        return not _ended_offline(Path(folder)) and _close(client, run, status_of(Path(folder)))
    return False


def _ended_offline(folder: Path) -> bool:
    """Whether the run in a folder has ended without MLflow, so that `record` knows its status."""
    return (folder / UNRECORDED).exists() and status_of(folder).get("status") != "RUNNING"


def _close(client: MlflowClient, run: Run, folder_status: Mapping[str, Any] | None = None) -> bool:
    """Set a run to KILLED, unless it has ended since it was searched for; whether it was set.

    folder_status: of its results folder, which may know of an error that MLflow was not told of.
    """
    run_id = run.info.run_id
    if client.get_run(run_id).info.status != "RUNNING":
        return False
    status = folder_status or {}
    failed = status.get("status") == "FAILED" and status.get("mlflow_run_id") == run_id
    error = str(status.get("error")) if failed else "the process ended without reporting a status"
    client.set_tag(run_id, "error", error[:TAG_LENGTH])
    client.set_terminated(run_id, "FAILED" if failed else "KILLED")
    return True
