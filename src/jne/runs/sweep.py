"""A sweep as one thing: what became of each of its jobs, and its table and figure.

Hydra launches the jobs; every job writes its own results folder and MLflow run. What is here runs
around them: before the first, at the start and end of each, and after the last.
"""

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jne.errors import InputError
from jne.runs.session import PARENT

_BOOKKEEPING = ("resume", "sweep", "output", "tracking.", "hydra")  # no part of what a job computes
_QUEUE_SECONDS = 10

_log = logging.getLogger(__name__)
_launched: "SweepCallback | None" = None  # by this process
_claim = ExitStack()  # its lock on the sweep's folder


class SweepCallback(Callback):
    """Hydra's callback; it is pickled into every job, so it holds plain values alone."""

    def __init__(self) -> None:
        self.folder = Path()
        self.store: dict[str, str] = {}
        self.parent: str | None = None
        self.on_slurm = False
        self.jobs: list[list[str]] = []
        """The overrides of each job, in their order."""

    # --- where the sweep is launched ---

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _launched
        from mlflow.exceptions import MlflowException

        from jne.config import ScriptConfig
        from jne.results.folder import locked
        from jne.tracking.store import close_orphaned_runs, open_store, save_views
        from jne.utils.files import make_folder

        self.jobs = _jobs(config)
        self.on_slurm = config.hydra.launcher._target_.endswith("SlurmLauncher")
        self.folder = Path(config.hydra.sweep.dir).absolute()
        plain = OmegaConf.to_container(config.tracking, resolve=True)
        script = ScriptConfig.model_validate({"tracking": plain, "output": config.output})
        self.store = script.store
        try:
            # Before the jobs: two processes must not make one store.
            client, experiment_id = open_store(**self.store)
            for name in close_orphaned_runs(client, experiment_id):
                print(f"closed as KILLED, its process is gone: {name}")
            save_views(client, experiment_id, self.folder.name)
        except (InputError, MlflowException) as error:
            if script.tracking.on_unreachable != "continue":
                sys.exit(f"error: {str(error).splitlines()[0]}")
        try:
            _claim.enter_context(locked(make_folder(self.folder), wait=1.0))
        except InputError as error:
            sys.exit(f"error: {error}")
        if script.tracking.nested:
            self.parent = self._tracked().run_id
        _launched = self

    def _tracked(self):
        """The sweep's own MLflow run, open: the one there is, else a new one."""
        from jne.tracking.store import TrackedRun, find_run

        tags = {"kind": "sweep", "sweep": self.folder.name, "results": str(self.folder)}
        name = f"sweep_{self.folder.name}"
        # Jobs come first: that this run cannot be made is no reason to lose them.
        tracked = TrackedRun(self.folder, self.store, "continue", name, tags)
        tracked.start(find_run(self.store, tags["kind"], tags["sweep"]))
        return tracked

    def finish(self) -> bool | None:
        """Table and figure of the sweep, shown, written and recorded.

        Whether all jobs are finished; None where not one was started.
        """
        from jne.runs import sweep_table
        from jne.tracking.store import ui_hint

        if self.on_slurm:
            self.wait_for_slurm()
        statuses = [self._status(job) for job in self.jobs]
        if not any(statuses):
            if self.parent is not None:
                self._tracked().end("FAILED")
            return None
        table = sweep_table.write(self.folder)
        sweep_table.show(self.folder.name, self.jobs, statuses)
        n_finished = sum(status.get("status") == "FINISHED" for status in statuses)
        tracked = self._tracked()
        failed = len(statuses) - n_finished
        tracked.log_metrics({"jobs/finished": n_finished, "jobs/not_finished": failed})
        for file in table:
            tracked.log_file(file)
        tracked.end("FAILED" if failed else "FINISHED")
        command, page = ui_hint(self.store["uri"], tracked.experiment_id, self.folder.name)
        places = [("sweep", self.folder), *(("table" if f.suffix == ".csv" else "figure", f)
                  for f in table), ("compare", command), ("at", page)]  # fmt: skip
        for what, place in places:
            if place:
                print(f"{what:<8} {place}")
        if failed:
            print(f"{failed} of {len(statuses)} jobs are not finished; to go on: the same command "
                  f"with sweep={self.folder.name} or resume=true")  # fmt: skip
        return not failed

    def wait_for_slurm(self) -> None:
        """Wait for the jobs in the queue: at the first one that was killed submitit gives up."""
        from jne.tracking.store import slurm_job_ended

        arrays = {path.name.split("_")[0] for path in self.folder.glob(".submitit/[0-9]*")}
        with suppress(KeyboardInterrupt):
            while not all(slurm_job_ended(array) for array in arrays):
                time.sleep(_QUEUE_SECONDS)

    def _status(self, job: list[str]) -> dict:
        """What is known of a job: {} where it never started."""
        from jne.results.folder import is_abandoned, status_of

        try:
            place = self.folder / json.loads(_place(self.folder, job).read_text())
        except FileNotFoundError:
            return {}
        gone = is_abandoned(place)  # asked first: one that ends now is not gone
        status = status_of(place)
        if status.get("status") == "RUNNING" and gone:
            status["status"] = "KILLED"
        return status | {"folder": str(place)}

    # --- in the job's process ---

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode.name != "MULTIRUN":
            return
        job_pointer().unlink(missing_ok=True)  # an earlier attempt's
        if self.parent is not None:
            os.environ[PARENT] = self.parent
        if "n_jobs" in config.hydra.launcher:  # joblib: bars of several jobs on one terminal
            from jne.utils.progress import console

            console.quiet = True

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        if config.hydra.mode.name != "MULTIRUN":
            return
        name = f"{config.hydra.job.num} {config.name}"
        if job_return.status.name == "COMPLETED":
            if "n_jobs" in config.hydra.launcher:
                print(f"✓ job {name}", flush=True)
            return
        error = job_return._return_value  # `return_value` would raise it
        if not job_pointer().exists():
            _keep_refusal(Path(config.hydra.runtime.output_dir), error)
        # Hydra shows the first failure of a sweep alone.
        _log.error("job %s: %s", name, error,
                   exc_info=None if isinstance(error, InputError) else error)  # fmt: skip


def write_job_pointer(folder: Path) -> None:
    """Tell the sweep of this job in which of its folders the job's run is."""
    from jne.utils.files import write_json

    write_json(job_pointer(), folder.name)


def job_pointer() -> Path:
    """The file that says so."""
    hydra = HydraConfig.get()
    return _place(Path(hydra.sweep.dir).absolute(), hydra.overrides.task)


def _place(sweep: Path, job: Sequence[str]) -> Path:
    computed = sorted(one for one in job if not is_bookkeeping(one))
    digest = hashlib.sha256(repr(computed).encode()).hexdigest()[:16]
    return sweep / f".{digest}.place.json"


def is_bookkeeping(override: str) -> bool:
    return override.lstrip("+~").startswith(_BOOKKEEPING)


def _keep_refusal(own: Path, error: BaseException) -> None:
    """A folder for a job that was refused before it had one."""
    from jne.results.folder import free_folder, in_one_line, move_log
    from jne.utils.files import write_json

    folder = free_folder(own)
    folder.mkdir(parents=True, exist_ok=True)
    move_log(folder)
    write_json(folder / "status.json", {"status": "FAILED", "error": in_one_line(error)})
    write_job_pointer(folder)


def _jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, as Hydra's own sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    return BasicSweeper.split_arguments(parsed, None)[0]


def finish() -> bool | None:
    """End the sweep that this process launched; whether all its jobs are finished.

    None where there is no sweep, or not one job of it was started.
    """
    global _launched
    launched, _launched = _launched, None
    os.environ.pop(PARENT, None)
    with _claim:
        return launched.finish() if launched is not None else None
