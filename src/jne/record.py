"""What every script's run has: a results folder and an MLflow run, opened and closed as one."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from jne.errors import InputError
from jne.progress import console
from jne.run_folder import TERMINATED, RunFolder, open_run
from jne.script_config import ScriptConfig
from jne.sweep import PARENT
from jne.tracking import TrackedRun, track, ui_hint

_GRACE_SECONDS = 600  # more than any cluster leaves a job between its signal and the kill


@contextmanager
def opened(
    config: ScriptConfig, settings: dict, folder: Path, name: str, kind: str, identity: str = ""
) -> Iterator[tuple[RunFolder, TrackedRun]]:
    """A results folder and an MLflow run whose statuses are true when they close."""
    tags = {"kind": kind, "results": str(folder), "sweep": sweep_name(), "host": gethostname()}
    if "SLURM_JOB_ID" in os.environ:
        tags["slurm_job"] = os.environ["SLURM_JOB_ID"]
    if PARENT in os.environ:
        tags["mlflow.parentRunId"] = os.environ[PARENT]
    try:
        with (
            open_run(folder, settings, identity) as run_folder,
            track(
                config.store,
                config.tracking.required,
                name,
                tags,
                folder,
                run_folder.status.get("mlflow_run_id"),
            ) as tracked,
        ):
            if tracked.run_id is not None:
                run_folder.note(mlflow_run_id=tracked.run_id)
            if run_folder.attempt > 1:
                tracked.tag("attempt", str(run_folder.attempt))
            tracked.log_file(run_folder.path / "config.yaml")
            yield run_folder, tracked
    except SystemExit as end:
        # SLURM puts a preempted job back into the queue only if it has to kill it: a job that
        # ends by itself in its time of grace counts as over. All is written; wait for the kill.
        if "SLURM_JOB_ID" in os.environ and end.code == TERMINATED:
            console.print("all is written; waiting for SLURM to end the job")
            time.sleep(_GRACE_SECONDS)
        raise


def show_places(config: ScriptConfig, folder: RunFolder, tracked: TrackedRun) -> None:
    console.print(f"results  {folder.path}", soft_wrap=True)
    console.print(f"figures  {folder.figures}", soft_wrap=True)
    command, page = ui_hint(config.tracking_uri, tracked.experiment_id)
    if command:
        console.print(f"compare  {command}", soft_wrap=True, highlight=False)
    console.print(f"at       {page}", soft_wrap=True, highlight=False)


def hydra_folder() -> Path:
    """The folder that Hydra made for this job, absolute."""
    return Path(HydraConfig.get().runtime.output_dir).absolute()


def check(checker: Callable[[DictConfig], Any], composed: DictConfig) -> Any:
    """`checker(composed)`; a config that is refused leaves no empty run folder behind."""
    try:
        return checker(composed)
    except InputError:
        folder = hydra_folder()
        if not any(folder.iterdir()):
            folder.rmdir()
        raise


def sweep_name() -> str:
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode.name == "MULTIRUN" else ""
