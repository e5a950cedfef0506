"""MLflow: the store, a run's life cycle, and what is logged."""

import base64
import json
import logging
import math
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from jne.errors import InputError
from jne.results import ended_as

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags

# The making of a store's tables is no news to a user.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

_VIEW = "jne"  # key of the saved view
_VIEW_COLUMNS = [
    *(f"params.`{name}`" for name in ("subject", "encoder", "activation", "placement", "seed")),
    *(f"metrics.`{name}`" for name in ("r2/mean", "jne/mean", "jne/V1", "jne/V4", "jne/FFA-2")),
    "attributes.`Duration`",
]
_FLUSH_SECONDS = 2.0  # a call costs 3 to 60 ms, as much as a short epoch: curves go in batches


class TrackedRun:
    """One MLflow run, open."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str) -> None:
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
        self._pending: list[Metric] = []
        self._flushed = time.monotonic()

    def log_params(self, params: dict[str, object]) -> None:
        self.client.log_batch(
            self.run_id, params=[Param(key, str(value)) for key, value in params.items()]
        )

    def tag(self, name: str, value: str) -> None:
        self.client.set_tag(self.run_id, name, value[:5000])  # MLflow's limit

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
        self.client.log_artifact(self.run_id, str(path), folder)

    def flush(self) -> None:
        for start in range(0, len(self._pending), 1000):  # MLflow's limit a call
            self.client.log_batch(self.run_id, metrics=self._pending[start : start + 1000])
        self._pending = []
        self._flushed = time.monotonic()

    def _add(self, metrics: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._pending += [Metric(k, _rounded(v), now, step) for k, v in metrics.items()]


@contextmanager
def track(
    uri: str,
    experiment: str,
    name: str,
    tags: dict[str, str],
    artifacts: Path,
) -> Iterator[TrackedRun]:
    """An MLflow run that ends FINISHED, FAILED or KILLED as the block does.

    uri: an sqlite, http or database URI. artifacts: where a new experiment keeps them.
    Raises InputError, naming tracking.uri, where the store cannot be opened.
    """
    client, experiment_id = open_store(uri, experiment, artifacts)
    run = client.create_run(experiment_id, run_name=name, tags=resolve_tags(tags))
    tracked = TrackedRun(client, run.info.run_id, experiment_id)
    try:
        yield tracked
        tracked.flush()
    except BaseException as error:
        client.set_tag(tracked.run_id, "error", f"{type(error).__name__}: {error}"[:5000])
        client.set_terminated(tracked.run_id, ended_as(error))
        raise
    client.set_terminated(tracked.run_id, "FINISHED")


def open_store(uri: str, experiment: str, artifacts: Path) -> tuple[MlflowClient, str]:
    """The client, and the experiment's id; the store and the experiment are made if need be.

    One process at a time: MLflow's first migration of a store breaks it for good when two
    processes run it together, and two that create one experiment fail.
    """
    if uri.startswith("file:") or "://" not in uri:
        raise InputError(
            f"tracking.uri={uri}: MLflow no longer writes to plain folders; use sqlite:///PATH "
            f"or the address of a server"
        )
    artifacts.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(artifacts.parent / ".mlflow.lock"):
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            if found is not None:
                return client, found.experiment_id
            # A server keeps artifacts where it is told to; a bare database does not know where.
            location = None if uri.startswith("http") else artifacts.as_uri()
            experiment_id = client.create_experiment(experiment, artifact_location=location)
            save_view(client, experiment_id)
            return client, experiment_id
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"tracking.uri={uri}: cannot open the MLflow store ({reason})") from error


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


def save_view(client: MlflowClient, experiment_id: str) -> None:
    """Leave a saved view of the runs table: what was run, R2 and JNE, most nonlinear first.

    The format is the UI's own and undocumented: a view that it cannot read is ignored there.
    """
    state = {
        "selectedColumns": _VIEW_COLUMNS,
        "columnOrder": _VIEW_COLUMNS,
        "orderByKey": "metrics.`jne/mean`",
        "orderByAsc": False,
        "runsHiddenMode": "FIRST_20_RUNS",
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "R² and JNE", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{_VIEW}", json.dumps(view))


def ui_hint(uri: str, experiment_id: str) -> tuple[str, str]:
    """The command that opens the UI on this store, and the address of the saved view there."""
    query = f"viewStateShareKey={_VIEW}&workflowType=machine_learning"
    page = f"/#/experiments/{experiment_id}/runs?{query}"
    if uri.startswith("http"):
        return "", uri.rstrip("/") + page
    # One worker and no job runners: a fifth of the memory.
    command = f"mlflow ui --workers 1 --backend-store-uri {uri}"
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {command}", "http://127.0.0.1:5000" + page


def _rounded(value: float) -> float:
    # The UI prints every digit it is given.
    return float(f"{value:.4g}") if math.isfinite(value) else value
