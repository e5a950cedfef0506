"""One MLflow run from start to end."""

import math
import os
import shlex
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags

from jne.credentials import hide_credentials
from jne.errors import InputError
from jne.tracking.dataset import dataset_input
from jne.tracking.model import log_encoder
from jne.tracking.names import metric_name
from jne.tracking.store import (
    STORE_ERRORS,
    TAG_LENGTH,
    UNRECORDED,
    check_answer,
    first_line,
    open_store,
    opening,
)
from jne.tracking.views import describe_by_pictures
from jne.utils.files import atomic_file, write_json
from jne.utils.plain import read_json
from jne.utils.progress import say
from jne.utils.reading import UNREADABLE
from jne.utils.signals import ended_as, in_one_line

RUN_KEY = "run_key"
"""The tag with a run's own key, which its folder has before MLflow has the run."""
_FLUSH_SECONDS = 2.0  # a call takes 3 to 60 ms, as long as a short epoch, so curves go in batches
_BATCH = 1000  # metrics per call: MLflow's limit
_PARAM_BATCH = 100  # parameters per call: MLflow's limit
_NAME_LENGTH = 250  # of a run: the limit in a database


class TrackedRun:
    """One open MLflow run.

    A journal keeps a copy of what is sent to MLflow. If the store cannot be reached, and
    `on_unreachable` lets the run continue, the journal is written to `unrecorded.json` in the
    results folder, from which `record` records the run later.
    """

    def __init__(
        self,
        folder: Path,
        store: dict[str, str],
        on_unreachable: str,
        name: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        """Prepare a run without opening it.

        folder: the results folder. store: its `uri`, `experiment` and `artifacts`, as `open_store`
        takes them. on_unreachable: fail_at_start, fail or continue.
        """
        self.folder, self.on_unreachable = folder, on_unreachable
        self.client: MlflowClient | None = None
        self.run_id: str | None = None
        self.experiment_id = ""
        self._journal: dict[str, Any] = {
            "store": store, "name": name, "run_id": None, "tags": tags or {}, "params": {},
            "inputs": [], "metrics": [], "files": [], "model": False, "status": "RUNNING",
        }  # fmt: skip
        self._offline_reason = ""
        self._pictures: list[str] = []
        self._pending: list[tuple[str, float, int, int]] = []  # name, value, time in ms, step
        self._points: set[tuple[str, int]] = set()
        """Name and step of each metric that MLflow or the journal has."""
        self._flushed = self._answered = time.monotonic()

    @property
    def offline(self) -> bool:
        """Whether nothing is sent to MLflow, because the store could not be reached."""
        return self.client is None

    def start(self, run_id: str | None = None) -> None:
        """Open the store and continue the run with this id, or else create a new run.

        A run whose id was lost, because a kill came after it was created, is continued by its tag
        RUN_KEY. If the store cannot be opened, raises InputError, unless `on_unreachable` is
        continue.
        """
        journal = self._journal
        journal["run_id"] = run_id
        try:
            with opening(journal["store"]["uri"]):
                self._open(run_id)
        except InputError as error:
            if self.on_unreachable != "continue":
                raise
            self._go_offline(error)

    def _open(self, run_id: str | None) -> None:
        journal = self._journal
        client, self.experiment_id = open_store(**journal["store"])
        run = _earlier_run(client, self.experiment_id, run_id, journal["tags"].get(RUN_KEY))
        if run is None:
            name, tags = journal["name"][:_NAME_LENGTH], resolve_tags(journal["tags"])
            run = client.create_run(self.experiment_id, run_name=name, tags=tags)
        else:
            _reopen(client, run, journal["tags"])
            self._points = _points_of(client, run)
        self.run_id = run.info.run_id
        journal["run_id"], self.client = self.run_id, client

    def restart_as_new_run(self, key: str) -> None:
        """End this run as KILLED and continue in a new one, with this RUN_KEY.

        MLflow does not let the parameters of a run change.
        """
        self._send("set_tag", "error", "the data changed; continued as another run")
        self._send("set_terminated", "KILLED")
        self._journal |= {"run_id": None, "metrics": []}
        self._journal["tags"][RUN_KEY] = key
        self._pending, self._points = [], set()
        if not self.offline:
            self.start()
            self.log_params(self._journal["params"])
            for file, artifact_folder in self._journal["files"]:
                self._send("log_artifact", str(self.folder / file), artifact_folder)

    def replay_journal(self) -> None:
        """Send the metrics that an earlier attempt at this run could not send.

        Its parameters, tags and files are those of this attempt, which sends them itself.
        """
        path = self.folder / UNRECORDED
        try:
            metrics = read_json(path)["metrics"]
            pending = [(str(n), float(value), int(ms), int(step)) for n, value, ms, step in metrics]
        except FileNotFoundError:
            return
        except (*UNREADABLE, TypeError):
            message = f"{path} is damaged: an earlier attempt's curves are not in MLflow"
            say(message, "yellow", soft_wrap=True)
            return
        self._journal["metrics"] = metrics
        self._pending = [point for point in pending if self._is_new(point[0], point[3])]
        self.flush()
        if not self.offline:
            path.unlink()

    def log_params(self, params: dict[str, object]) -> None:
        """Add parameters; long values are cut."""
        texts = {metric_name(key): str(value)[:500] for key, value in params.items()}
        self._journal["params"] |= texts
        named = [Param(key, text) for key, text in texts.items()]
        for start in range(0, len(named), _PARAM_BATCH):
            self._send("log_batch", params=named[start : start + _PARAM_BATCH])

    def log_input(self, dataset: dict[str, str]) -> None:
        """Add the data that the run uses, as `dataset_of` describes them."""
        self._journal["inputs"].append(dataset)
        self._send("log_inputs", [dataset_input(dataset)])

    def tag(self, name: str, value: str) -> None:
        """Set a tag; a long value is cut."""
        self._journal["tags"][name] = value[:TAG_LENGTH]
        self._send("set_tag", name, value[:TAG_LENGTH])

    def log_epoch(self, row: dict[str, float]) -> None:
        """Add one epoch to the curves, unless MLflow has it from an earlier attempt at this run.

        The step is the epoch, so that the curves of runs with different batch sizes line up.
        """
        step = int(row["epoch"])
        self._add({name: value for name, value in row.items() if name != "epoch"}, step)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Add metrics that have one value per run; one that MLflow has at this step stays."""
        self._add(metrics, step)
        self.flush()

    def next_step(self, name: str) -> int:
        """The first step at which MLflow has no value of a metric yet."""
        return max((step for key, step in self._points if key == metric_name(name)), default=-1) + 1

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Add a file of the results folder to the artifacts, there in `folder`.

        PNG files become the description of the run, at the top of its page, when it ends.
        """
        self._journal["files"].append([os.path.relpath(path, self.folder), folder])
        self._send("log_artifact", str(path), folder)
        if path.suffix == ".png":
            self._pictures.append(f"{folder}/{path.name}" if folder else path.name)

    def log_model(self) -> None:
        """Add the encoder in the results folder as an MLflow model."""
        self._journal["model"] = True
        self._send(log_encoder, self.folder)

    def flush(self) -> None:
        """Send the metrics that wait to be sent."""
        for start in range(0, len(self._pending), _BATCH):
            batch = [
                Metric(metric_name(name), *value_and_when)
                for name, *value_and_when in self._pending[start : start + _BATCH]
            ]
            self._send("log_batch", metrics=batch)
        self._pending = []
        self._flushed = time.monotonic()

    def end(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; if offline, print how to record it later."""
        self._journal["status"] = status
        if self._pictures:
            self._send(describe_by_pictures, self._pictures)
        self._send("set_terminated", status)
        if self.offline:
            say(
                f"this run is not in MLflow: {self._offline_reason}; to record it later:",
                style="yellow",
                soft_wrap=True,
            )
            say(f"  jne record {shlex.quote(str(self.folder))}", soft_wrap=True)

    def _add(self, metrics: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            if not self._is_new(name, step):
                continue
            rounded = _rounded(value)
            self._pending.append((name, rounded, now, step))
            # JSON has no NaN and no infinity.
            written = rounded if math.isfinite(rounded) else str(rounded)
            self._journal["metrics"].append([name, written, now, step])

    def _is_new(self, name: str, step: int) -> bool:
        """Whether MLflow and the journal lack such a point; from now on, they are to have it."""
        point = (metric_name(name), step)
        new = point not in self._points
        self._points.add(point)
        return new

    def _send(self, call: str | Callable[..., None], *arguments: Any, **named: Any) -> None:
        """Call the MLflow client on this run; if offline, write the journal instead.

        call: a method of the client, or a function of a client and a run's id.
        """
        if not self.offline:
            send = (
                getattr(self.client, call) if isinstance(call, str) else partial(call, self.client)
            )
            try:
                if time.monotonic() - self._answered > _FLUSH_SECONDS:
                    check_answer(self._journal["store"]["uri"])
                send(self.run_id, *arguments, **named)
                self._answered = time.monotonic()
                return
            except STORE_ERRORS as error:
                if self.on_unreachable == "fail":
                    message = f"the MLflow store could not be reached ({first_line(error)})"
                    uri = self._journal["store"]["uri"]
                    raise InputError("tracking.uri", message, uri) from error
                self._go_offline(error)
        write_json(self.folder / UNRECORDED, self._journal)

    def _go_offline(self, error: Exception) -> None:
        self.client, self._offline_reason = None, first_line(error)[:200]
        message = f"MLflow: {self._offline_reason}; continuing without MLflow"
        say(message, style="yellow", soft_wrap=True)


def _rounded(value: float) -> float:
    # The MLflow UI prints every digit that it is given.
    return float(f"{value:.4g}") if math.isfinite(value) else value


def _earlier_run(
    client: MlflowClient, experiment_id: str, run_id: str | None, key: str | None
) -> Run | None:
    """The run with this id, or with this RUN_KEY; None where the store has none, or a deleted one.

    It has none where it is another store than that of the earlier attempt.
    """
    if run_id is not None:
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        else:
            if run.info.lifecycle_stage == "active":  # else deleted in the UI
                return run
    if key is None:
        return None
    runs = client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{key}'", max_results=1)
    return runs[0] if runs else None


def _points_of(client: MlflowClient, run: Run) -> set[tuple[str, int]]:
    """Name and step of every metric that a run has."""
    run_id = run.info.run_id
    return {
        (name, point.step)
        for name in run.data.metrics
        for point in client.get_metric_history(run_id, name)
    }


def _reopen(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    """Set an existing run to RUNNING, with these tags."""
    run_id = run.info.run_id
    client.update_run(run_id, status="RUNNING")
    if "error" in run.data.tags:
        client.delete_tag(run_id, "error")
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


@contextmanager
def track(
    store: dict[str, str],
    on_unreachable: str,
    name: str,
    tags: dict[str, str],
    folder: Path,
    run_id: str | None = None,
) -> Iterator[TrackedRun]:
    """Yield an MLflow run that ends FINISHED, FAILED or KILLED, as the block does.

    store: `uri` (sqlite, http or a database), `experiment`, and `artifacts`, the folder in which a
    new experiment keeps its artifacts. on_unreachable: if the store cannot be reached, fail;
    fail_at_start, but continue without MLflow once the run has started; or continue in any case.
    folder: the results folder. run_id: the run to continue, if the store has it.

    Raises InputError, naming tracking.uri, where the store cannot be opened.
    """
    tracked = TrackedRun(folder, store, on_unreachable, name, tags)
    tracked.start(run_id)
    try:
        tracked.replay_journal()
        yield tracked
        tracked.flush()
    except BaseException as error:
        tracked.on_unreachable = "continue"  # an unreachable store must not hide this error
        # Nor a full disk. The next start of a script then closes the run in MLflow.
        with suppress(InputError, OSError):
            _end_with(tracked, error)
        raise
    tracked.end("FINISHED")


def _end_with(tracked: TrackedRun, error: BaseException) -> None:
    """End a run with its error, and, for a bug, with the traceback in error.txt."""
    tracked.flush()
    tracked.tag("error", in_one_line(error))
    if isinstance(error, Exception) and not isinstance(error, InputError):
        path = tracked.folder / "error.txt"
        with atomic_file(path) as temporary:
            text = "".join(traceback.format_exception(error))
            temporary.write_text(hide_credentials(text))
        tracked.log_file(path)
    tracked.end(ended_as(error))
