"""Records a run that could not reach MLflow, from the journal in its results folder."""

import json
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from jne.errors import InputError
from jne.results.folder import locked, status_of
from jne.tracking.dataset import dataset_input
from jne.tracking.model import MODEL_FILES
from jne.tracking.run import TrackedRun
from jne.tracking.store import ARTIFACTS, UNRECORDED, sqlite_file
from jne.utils.files import write_json
from jne.utils.reading import UNREADABLE


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
        store = journal["store"]
        if uri:
            beside = (sqlite_file(uri) or folder).absolute()
            store |= {"uri": uri, "artifacts": str(beside.parent / ARTIFACTS)}
        # The folder may have been moved since the journal was written.
        tags = journal["tags"] | {"results": str(folder.absolute())}
        tracked = TrackedRun(folder, store, "fail", journal["name"], tags)
        tracked.start(journal["run_id"])
        assert tracked.run_id is not None  # with "fail", an unreachable store has raised
        # If the store is lost again, the next attempt continues with this run.
        write_json(path, journal | {"run_id": tracked.run_id})
        tracked.log_params(journal["params"])
        for dataset in journal["inputs"]:
            tracked.log_input(dataset)
        for file, artifact_folder in journal["files"]:
            tracked.log_file(folder / file, artifact_folder)
        if journal["model"]:
            tracked.log_model()
        status = status_of(folder)  # {} for the run of a whole sweep
        # No process holds the folder's lock: a run that is still RUNNING there was killed.
        tracked.end(status.get("status", journal["status"]).replace("RUNNING", "KILLED"))
        tracked.replay_journal()  # last, because it deletes the journal
        if status:
            write_json(folder / "status.json", status | {"mlflow_run_id": tracked.run_id})
    return tracked.run_id


_JOURNAL: dict[str, type] = {
    "store": dict,
    "name": str,
    "tags": dict,
    "params": dict,
    "inputs": list,
    "metrics": list,
    "files": list,
    "model": bool,
    "status": str,
}


def _read_journal(folder: Path) -> dict[str, Any]:
    """The journal in a results folder, which may come from anybody. Raises InputError."""
    path = folder / UNRECORDED
    try:
        # Journals of version 0.1.0 have neither inputs nor a model.
        journal = {"inputs": [], "model": False} | json.loads(path.read_text())
        if not all(isinstance(journal[key], kind) for key, kind in _JOURNAL.items()):
            raise TypeError
        for name, value, when, step in journal["metrics"]:
            Metric(str(name), float(value), int(when), int(step))
        for dataset in journal["inputs"]:
            dataset_input(dataset)
        files = [Path(folder, str(file)) for file, _ in journal["files"]]
        files += [folder / file for file in MODEL_FILES if journal["model"]]
        if not {"uri", "experiment", "artifacts"} <= set(journal["store"]):
            raise KeyError
    except (*UNREADABLE, TypeError, AttributeError) as error:
        raise InputError("", f"{path} is damaged, so this run cannot be recorded") from error
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError("", f"{path} names {file}, a file outside the folder; it is not sent")
    return journal
