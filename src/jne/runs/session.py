"""What every script's run has: a folder and an MLflow run, opened and closed together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from jne.config import ScriptConfig
from jne.credentials import hide_credentials
from jne.errors import InputError
from jne.results.folder import RunFolder, open_run
from jne.runs.feature_choices import check_one_choice
from jne.runs.folders import discard_if_empty
from jne.runs.sweep import PARENT
from jne.tracking import RUN_KEY, TrackedRun, close_orphaned_runs, track, ui_hint
from jne.utils import slurm
from jne.utils.files import writing
from jne.utils.progress import say
from jne.utils.signals import TERMINATED, Stopped

Config = TypeVar("Config")
Checked = TypeVar("Checked")


@contextmanager
def open_session(
    config: ScriptConfig,
    settings: dict[str, Any],
    folder: Path,
    name: str,
    kind: str,
    identity: str = "",
) -> Iterator[tuple[RunFolder, TrackedRun]]:
    """Yield a run's folder and its MLflow run, and set the final status of both.

    settings: the content of config.yaml. kind: train, report or simulation. identity: what all
    attempts at one run have in common. Runs in MLflow whose process has died are closed.

    Raises InputError where another process is writing to the folder, where that is no folder of
    this run, and where the MLflow store cannot be opened.
    """
    tags = {"kind": kind, "results": str(folder), "sweep": sweep_name(), "host": gethostname()}
    job = slurm.job_id()
    if job is not None:
        tags["slurm_job"] = job
    if PARENT in os.environ:
        tags["mlflow.parentRunId"] = os.environ[PARENT]
    with (
        preempted_by_slurm(),
        open_run(folder, settings, identity, kind) as run_folder,
        track(
            config.store,
            config.tracking.on_unreachable,
            name,
            tags | {RUN_KEY: run_folder.status["run_key"]},
            folder,
            run_folder.status.get("mlflow_run_id"),
        ) as tracked,
        writing(folder),
    ):
        if tracked.run_id is not None:
            run_folder.note(mlflow_run_id=tracked.run_id)
        if run_folder.attempt > 1:
            tracked.tag("attempt", str(run_folder.attempt))
        if not sweep_name() and tracked.client is not None:  # a sweep does it before its jobs
            close_orphaned_runs(tracked.client, tracked.experiment_id)
        tracked.log_file(run_folder.path / "config.yaml")
        yield run_folder, tracked


@contextmanager
def preempted_by_slurm() -> Iterator[None]:
    """Where SLURM ends the block by a signal, wait for its kill: it then requeues the job."""
    try:
        yield
    except Stopped as end:
        if slurm.job_id() is not None and end.code == TERMINATED:
            say("everything is written; waiting for SLURM to end the job")
            slurm.wait_for_kill()
        raise


def show_locations(config: ScriptConfig, folder: RunFolder, tracked: TrackedRun) -> None:
    """Print where the results are and, if MLflow was ever reached, how to see them in its UI."""
    say(f"results    {folder.path}", soft_wrap=True)
    say(f"figures    {folder.figures}", soft_wrap=True)
    if not tracked.experiment_id:
        return
    command, page = ui_hint(config.tracking_uri, tracked.experiment_id)
    if command:
        say(f"MLflow UI  {command}", soft_wrap=True, highlight=False)
    say(f"open       {page}", soft_wrap=True, highlight=False)


def hydra_folder() -> Path:
    """The absolute path of the folder that Hydra made for this job."""
    return Path(HydraConfig.get().runtime.output_dir).absolute()


def check_or_discard_folder(check: Callable[[Config], Checked], composed: Config) -> Checked:
    """`check(composed)`; if it refuses the config, remove the empty folder that Hydra made."""
    try:
        check_one_choice(composed)
        return check(composed)
    except InputError:
        discard_if_empty(hydra_folder())
        raise


def sweep_name() -> str:
    """The name of the sweep that this job belongs to; empty for a single run."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else ""


def task_overrides() -> list[str]:
    """The overrides of this job, as on the command line."""
    return list(map(hide_credentials, HydraConfig.get().overrides.task))
