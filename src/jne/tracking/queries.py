"""Runs found in an MLflow store."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from jne.errors import InputError
from jne.tracking.store import STORE_ERRORS, open_store


def find_run(store: dict[str, str], kind: str, sweep: str) -> str | None:
    """The id of a sweep's newest run of a kind; None where there is none, or no store.

    store: the arguments of `open_store`. kind: the run's tag `kind`.
    """
    try:
        client, experiment_id = open_store(**store)
        wanted = f"tags.kind = '{kind}' and tags.sweep = '{sweep}'"
        found = client.search_runs([experiment_id], wanted, max_results=1)
    except STORE_ERRORS:
        return None
    return found[0].info.run_id if found else None


def newest_runs(
    client: MlflowClient, experiment_id: str, filter_string: str, of_all_data: bool = False
) -> list[Path]:
    """The results folders of the newest linear and nonlinear training run of each subject.

    Only finished runs on the data of the newest run count, without null controls. A nonlinear run
    comes with the newest run of each other seed whose other parameters are equal, and with the
    newest such run with control=twins. filter_string: in MLflow's filter syntax; '' for none.
    of_all_data: whether runs on any data count, and the newest of each data set are found.

    Raises InputError where no run is left or MLflow cannot read the filter.
    """
    conditions = (
        "attributes.status = 'FINISHED'",
        "tags.kind = 'train'",
        "params.shuffle = 'False'",
        "params.encoder != 'ridge'",  # a baseline; every run has it
        filter_string,
    )
    try:
        found = client.search_runs(
            [experiment_id],
            " and ".join(filter(None, conditions)),
            max_results=5000,
            order_by=["attributes.start_time DESC"],
        )
    except MlflowException as error:
        raise InputError(
            "filter", f"MLflow cannot read it ({error})", value=filter_string
        ) from error
    plain = [run for run in found if not _has_twins(run)]
    if not plain:
        key, value = ("filter", filter_string) if filter_string else ("runs", "newest")
        raise InputError(key, "no finished training run in the MLflow experiment", value)
    data = plain[0].data.params["data"]
    newest: dict[tuple[str, ...], Run] = {}
    for run in plain:
        params = run.data.params
        if params["data"] != data and not of_all_data:
            continue
        encoder = (params["data"], params["subject"], params["encoder"])
        first = newest.setdefault(encoder, run)
        if params["encoder"] != "linear" and _equal_but_for_seed(run, first):
            newest.setdefault((*encoder, params["seed"]), run)
    for run in filter(_has_twins, found):
        encoder = tuple(run.data.params[key] for key in ("data", "subject", "encoder"))
        if encoder in newest and _equal_but_for_seed(run, newest[encoder]):
            newest.setdefault((*encoder, "twins"), run)
    by_subject = sorted(
        newest.values(), key=lambda run: (run.data.params["data"], run.data.params["subject"])
    )
    return list(dict.fromkeys(Path(run.data.tags["results"]) for run in by_subject))


def _equal_but_for_seed(first: Run, second: Run) -> bool:
    """Parameters that only one of them has do not count: earlier versions recorded fewer."""
    settings, other = _settings(first), _settings(second)
    return all(other.get(key, value) == value for key, value in settings.items())


def _settings(run: Run) -> dict[str, str]:
    """The parameters without the seed and the control, which earlier versions did not have."""
    params = run.data.params
    return {key: params[key] for key in params if key != "seed" and key.split(".")[0] != "control"}


def _has_twins(run: Run) -> bool:
    return run.data.params.get("control") == "twins"


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
