"""Records a run that could not reach MLflow, from the journal in its results folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

from mlflow.entities import Metric
from pydantic import BaseModel, Field

from jne.credentials import from_environment
from jne.errors import InputError
from jne.results.folder import locked, status_of
from jne.tracking.dataset import dataset_input
from jne.tracking.model import MODEL_FILES
from jne.tracking.run import TrackedRun
from jne.tracking.store import ARTIFACTS, UNRECORDED, sqlite_file
from jne.utils.files import write_json
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import UNREADABLE, reading


def record(folder: Path, uri: str | None = None) -> str:
    """Record the run whose journal is in a results folder, and return its MLflow id.

    uri: a store other than the one in the journal. A new experiment in it keeps its artifacts
    beside the store's sqlite file, or else beside the results folder.

    Raises InputError where the folder has no journal, where it is damaged or names a file outside
    the folder, and where the store cannot be opened.
    """
    path = folder / UNRECORDED
    if not path.exists():
        raise InputError("", f"{folder} holds no run that is still to be recorded")
    with locked(folder, wait=1.0):
        journal = _read_journal(folder)
        store = journal.store
        # Of a folder from somebody else, the id could be that of any run in another store.
        run_id = journal.run_id if uri in (None, store.uri) else None
        store.uri = uri or store.uri
        from_environment(store.uri)
        if uri:
            beside = (sqlite_file(uri) or folder).absolute()
            store.artifacts = str(beside.parent / ARTIFACTS)
        status = status_of(folder)  # {} for the run of a whole sweep
        # No process holds the folder's lock: a run that is still RUNNING there was killed.
        ended = str(status.get("status", journal.status)).replace("RUNNING", "KILLED")
        if ended not in ("FINISHED", "FAILED", "KILLED"):
            raise InputError("", f"{folder / 'status.json'} must hold `status`, that of a run")
        # The folder may have been moved since the journal was written.
        tags = journal.tags | {"results": str(folder.absolute())}
        tracked = TrackedRun(folder, store.model_dump(), "fail", journal.name, tags)
        tracked.start(run_id)
        assert tracked.run_id is not None  # with "fail", an unreachable store has raised
        # If the store is lost again, the next attempt continues with this run.
        write_json(path, journal.model_dump() | {"run_id": tracked.run_id})
        tracked.log_params(dict(journal.params))
        for dataset in journal.inputs:
            tracked.log_input(dataset)
        for file, artifact_folder in journal.files:
            tracked.log_file(folder / file, artifact_folder)
        if journal.model:
            tracked.log_model()
        tracked.end(ended)
        tracked.replay_journal()  # last, because it deletes the journal
        if status:
            write_json(folder / "status.json", status | {"mlflow_run_id": tracked.run_id})
    return tracked.run_id


Time = Annotated[int, Field(ge=0, lt=2**62)]  # milliseconds, or a step: what a database holds


class _Store(BaseModel):
    uri: str
    experiment: str
    artifacts: str


class _Journal(BaseModel):
    """What `TrackedRun` writes."""

    store: _Store
    name: str
    run_id: str | None
    tags: dict[str, str]
    params: dict[str, str]
    inputs: list[dict[str, str]]
    metrics: list[tuple[str, float | str, Time, Time]]
    files: list[tuple[str, str | None]]
    model: bool
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


def _read_journal(folder: Path) -> _Journal:
    """The journal in a results folder, which may come from anybody. Raises InputError."""
    path = folder / UNRECORDED
    with reading(path, ""):
        content: Any = read_json(path)
    try:
        journal = _Journal.model_validate(content)
        for name, value, when, step in journal.metrics:
            Metric(name, float(value), when, step)
        for dataset in journal.inputs:
            dataset_input(dataset)
    except (*UNREADABLE, TypeError, AttributeError) as error:
        raise InputError("", f"{path} is damaged, so this run cannot be recorded") from error
    files = [folder / file for file, _ in journal.files]
    for file in (*files, *(folder / name for name in MODEL_FILES if journal.model)):
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError("", f"{path} names {file}, a file outside the folder; it is not sent")
        with reading(file, ""):
            regular_file(file)
    return journal
