"""Runs found in an MLflow store.

evaluate.py asks for the runs that belong together by tags, which the store itself can search: a run
with all its metrics takes ten milliseconds to load, and a store may hold thousands.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from jne.errors import InputError
from jne.tracking.store import STORE_ERRORS, open_store

_PAGE = 100  # runs; the first pages are smaller, because the first run is mostly the one
_MAX_CONDITIONS = 40  # each joins a table, and sqlite joins 64 at most


@dataclass(frozen=True)
class Match:
    """What a finished training run is found by. All but the role are digests."""

    role: str
    """nonlinear, linear, or other, which no report reads."""
    data_set: str
    """Of the name of the data."""
    subject: str
    """Of the names of the data and the subject."""
    settings: str
    """Of all parameters but the seed and the control."""
    seed: str
    contents: str
    """Of the responses, features, stimuli and voxels: those of `jne.data.contents`."""

    def tags(self) -> dict[str, str]:
        """As the tags of a run."""
        return {_tag(name): value for name, value in asdict(self).items()}


_FIELDS = tuple(field.name for field in fields(Match))


@dataclass(frozen=True)
class RecordedRun:
    """A finished training run in the store."""

    name: str
    folder: Path
    """Its results folder."""
    match: Match


PLAIN = "tags.match_role LIKE '%linear'"
"""The condition on runs without a null: linear or nonlinear."""


class TrainingRuns:
    """The finished training runs of an experiment, asked for few at a time."""

    def __init__(self, client: MlflowClient, experiment_id: str, filter_string: str = "") -> None:
        """filter_string: further conditions, in MLflow's filter syntax; '' for none."""
        self.client, self.experiment_id, self.filter = client, experiment_id, filter_string

    def newest_first(self, *others: str, **values: str) -> Iterator[RecordedRun]:
        """The runs whose match has these values, the newest first.

        others: further conditions in MLflow's syntax. Raises InputError where MLflow cannot read
        the filter, and where the store can no longer be reached.
        """
        equal = (f"tags.{_tag(name)} = '{value}'" for name, value in values.items())
        for run in self._search(*equal, *others):
            tags = {name: run.data.tags.get(_tag(name), "") for name in _FIELDS}
            if all(map(str.isalnum, tags.values())):  # else somebody has edited them
                yield RecordedRun(run.info.run_name, Path(run.data.tags["results"]), Match(**tags))

    def newest_of_each(self, name: str, *others: str, **values: str) -> Iterator[RecordedRun]:
        """The newest of these runs for each value of a field of their match, the newest first."""
        seen: dict[str, None] = {}
        while len(seen) < _MAX_CONDITIONS:
            unseen = [f"tags.{_tag(name)} != '{value}'" for value in seen]
            run = next(self.newest_first(*unseen, *others, **values), None)
            if run is None:
                return
            seen[getattr(run.match, name)] = None
            yield run
        for run in self.newest_first(*unseen, *others, **values):  # one by one from here on
            if (value := getattr(run.match, name)) not in seen:
                seen[value] = None
                yield run

    def _search(self, *conditions: str) -> Iterator[Run]:
        wanted = ["attributes.status = 'FINISHED'", *conditions]
        if self.filter:
            wanted.append(self.filter)
        token, size = None, 1
        while True:
            try:
                page = self.client.search_runs(
                    [self.experiment_id],
                    " and ".join(wanted),
                    max_results=size,
                    order_by=["attributes.start_time DESC"],
                    page_token=token,
                )
            except MlflowException as error:
                if not self.filter:
                    raise InputError(
                        "tracking.uri", f"cannot search the MLflow store ({error})"
                    ) from error
                raise InputError(
                    "filter", f"MLflow cannot read it ({error})", value=self.filter
                ) from error
            yield from page
            token, size = page.token, min(10 * size, _PAGE)
            if not token:
                return


def _tag(name: str) -> str:
    return f"match_{name}"


def find_run(store: dict[str, str], kind: str, sweep: str) -> str | None:
    """The id of a sweep's newest run of a kind; None where there is none, or no store.

    store: the arguments of `open_store`. kind: the run's tag `kind`.
    """
    try:
        client, experiment_id = open_store(**store)
        wanted = f"tags.kind = '{kind}' and tags.sweep = '{sweep}'"
        runs = client.search_runs([experiment_id], wanted, max_results=1)
    except STORE_ERRORS:
        return None
    return runs[0].info.run_id if runs else None


def results_folder(client: MlflowClient, run_id: str) -> Path:
    """The results folder of a training run. Raises InputError where `run_id` is not one's id."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise InputError(
            "runs", f"{run_id} is neither a results folder nor the id of a run in the MLflow store"
        ) from error
    if run.data.tags.get("kind") != "train":
        raise InputError("runs", f"{run_id} is not a training run")
    return Path(run.data.tags["results"])
