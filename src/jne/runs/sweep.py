"""A sweep as a whole: before its first job, around each job, and after its last.

Hydra launches the jobs, and each job writes its own results folder and MLflow run.

jne.cli imports this module in every script, also to print --help. So whatever takes long to import
(torch, MLflow, pandas, matplotlib) is imported in the functions that use it.
"""

import hashlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from jne.credentials import hide_credentials, without_credentials
from jne.errors import InputError
from jne.runs.experiment import Command
from jne.runs.launchers import Launcher, launcher_of
from jne.runs.overrides import is_bookkeeping, is_grid, jobs_of
from jne.utils.signals import in_one_line

if TYPE_CHECKING:
    from jne.tracking import TrackedRun

PARENT = "JNE_PARENT_RUN"  # environment variable of a job: the id of the MLflow run of its sweep
_KINDS = {"sweep.csv": "table", "best.csv": "chosen"}

_log = logging.getLogger(__name__)
_launched: "SweepCallback | None" = None  # by this process
_folder_lock = ExitStack()  # holds the lock of the launched sweep's folder


class SweepCallback(Callback):
    """Hydra's callback. It is pickled into every job, so it holds only plain values."""

    def __init__(self) -> None:
        self.folder = Path()
        self.store: dict[str, str] = {}
        self.parent: str | None = None
        self.launcher = Launcher()
        self.jobs: list[list[str]] | None = None
        """The overrides of each job, in the order of the jobs; None where a sweeper makes them as
        it goes."""
        self.command = Command()
        self.swept = False
        """Whether the sweeper came to its end."""

    # --- in the process that launches the sweep ---

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            self._start(config)
        except (InputError, HydraException) as error:
            sys.exit(f"error: {' '.join(str(error).split())}")
        except Exception:
            # Hydra would turn it into a warning, and the jobs would run without a record.
            sys.stderr.write(hide_credentials(traceback.format_exc()))
            sys.exit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.swept = True

    def _start(self, config: DictConfig) -> None:
        global _launched
        from jne.config import ScriptConfig
        from jne.results.folder import check_parent, locked
        from jne.tracking import (
            STORE_ERRORS,
            close_orphaned_runs,
            first_line,
            open_store,
            save_views,
        )
        from jne.utils.files import make_folder

        self.jobs = jobs_of(config) if is_grid(config) else None
        self.command = Command.from_config(config)
        self.launcher = launcher_of(config)
        self.launcher.check()
        self.folder = Path(config.hydra.sweep.dir).absolute()
        check_parent(self.folder, "hydra.sweep.dir")
        tracking = OmegaConf.to_container(config.tracking, resolve=True)
        script = ScriptConfig.model_validate({"tracking": tracking, "output": config.output})
        self.store = script.store
        _drop_credentials(config)  # which Hydra writes to multirun.yaml
        try:
            # Before the jobs start: two processes must not make one store.
            client, experiment_id = open_store(**self.store)
            for name in close_orphaned_runs(client, experiment_id):
                print(f"closed as KILLED, because its process has died: {name}")
            save_views(client, experiment_id, self.folder.name)
        except STORE_ERRORS as error:
            if script.tracking.on_unreachable != "continue":
                sys.exit(f"error: {first_line(error)}")
        _folder_lock.enter_context(locked(make_folder(self.folder), wait=1.0))
        if script.tracking.nested:
            self.parent = self._open_run().run_id
        _launched = self
        if self.launcher.shares_terminal:
            number = "jobs" if self.jobs is None else f"{len(self.jobs)} jobs"
            print(f"{number} in {self.folder}; each prints a line when it ends", flush=True)

    def _open_run(self) -> "TrackedRun":
        """Open the sweep's own MLflow run: the existing one, or else a new one."""
        from jne.tracking import TrackedRun, find_run

        tags = {"kind": "sweep", "sweep": self.folder.name, "results": str(self.folder)}
        name = f"sweep_{self.folder.name}"
        # An unreachable store is no reason to lose the jobs.
        tracked = TrackedRun(self.folder, self.store, "continue", name, tags)
        tracked.start(find_run(self.store, tags["kind"], tags["sweep"]))
        return tracked

    def finish(self) -> bool | None:
        """Write, record and show the sweep's table and figure.

        Returns whether all jobs are finished; None if no job explains why the sweep ended: none was
        started, or a search was stopped by something else.
        """
        from jne.runs import sweep_table

        if self.launcher.wait is not None:
            self.launcher.wait(self.folder)
        if self.jobs is None:
            paths = sorted(self.folder.glob("*/status.json"), key=_job_number)
            statuses = [self._status_in(path.parent) for path in paths]
            jobs = [status.get("overrides", []) for status in statuses]
        else:
            jobs, statuses = self.jobs, [self._status(job) for job in self.jobs]
        if not any(statuses):
            if self.parent is not None:
                self._open_run().end("FAILED")
            return None
        files, choices = sweep_table.write(self.folder, self.command)
        sweep_table.show(self.folder.name, jobs, statuses, choices)
        n_finished = sum(status.get("status") == "FINISHED" for status in statuses)
        n_unfinished = len(statuses) - n_finished
        tracked = self._open_run()
        counts = {"jobs/finished": n_finished, "jobs/not_finished": n_unfinished}
        tracked.log_metrics(counts, tracked.next_step("jobs/finished"))
        for file in files:
            tracked.log_file(file)
        tracked.end("FAILED" if n_unfinished else "FINISHED")
        self._show_locations(files, tracked.experiment_id)
        if choices:
            sweep_table.show_choices(self.folder, choices, self.command)
        if n_unfinished:
            print(
                f"{n_unfinished} of {len(statuses)} jobs are not finished; to continue, run the "
                f"same command with sweep={self.folder.name} or resume=true"
            )
        if self.jobs is None and not self.swept and not n_unfinished:
            return None
        return not n_unfinished

    def _status(self, job: list[str]) -> dict[str, Any]:
        """The status of a job and its `folder`; {} if it never started."""
        folder = run_of(self.folder, job)
        return self._status_in(folder) if folder is not None else {}

    def _status_in(self, folder: Path) -> dict[str, Any]:
        from jne.results.folder import is_abandoned, status_of

        abandoned = is_abandoned(folder)  # before the status is read: the job may end in between
        status = status_of(folder)
        if status.get("status") == "RUNNING" and abandoned:
            status["status"] = "KILLED"
        if "shard" in status and status["status"] == "FINISHED":
            status |= {"status": "SHARD", "error": f"{status['shard']} is done, the run is not"}
        return status | {"folder": str(folder)}

    def _show_locations(self, files: list[Path], experiment_id: str) -> None:
        from jne.tracking import ui_hint

        print(f"sweep      {self.folder}")
        for file in files:
            print(f"{_KINDS.get(file.name, 'figure'):<10} {file}")
        if not experiment_id:  # MLflow was never reached
            return
        command, page = ui_hint(self.store["uri"], experiment_id, self.folder.name)
        if command:
            print(f"MLflow UI  {command}")
        print(f"open       {page}")

    # --- in the process of a job ---

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        job_pointer().unlink(missing_ok=True)  # left by an earlier attempt
        if self.parent is not None:
            os.environ[PARENT] = self.parent
        if self.launcher.shares_terminal:
            from jne.utils.progress import console

            console.quiet = True

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        _drop_credentials(job_return.cfg)  # which some launchers write to a file
        name = f"job {config.hydra.job.num} {config.name}"
        if job_return.status.name == "COMPLETED":
            if self.launcher.shares_terminal:
                from jne.runs import sweep_table

                status = self._status(HydraConfig.get().overrides.task)
                print(f"✓ {name}  {sweep_table.in_short(status)}", flush=True)
            return
        error = job_return._return_value  # the property `return_value` would raise it
        if not job_pointer().exists():
            _write_refused_job(Path(config.hydra.runtime.output_dir), error)
        # Hydra shows only the first failure of a sweep.
        if isinstance(error, InputError):
            text = short = str(error)
        else:
            text, short = "".join(traceback.format_exception(error)), in_one_line(error)
        line = f"✗ {name}  {hide_credentials(short)}"
        _log.error("%s: %s", name, hide_credentials(text), extra={"on_terminal": line})


def finish() -> bool | None:
    """End the sweep that this process launched; whether all its jobs are finished.

    None if there is no sweep, or none of its jobs was started.
    """
    global _launched
    launched, _launched = _launched, None
    os.environ.pop(PARENT, None)
    with _folder_lock:
        return launched.finish() if launched is not None else None


def _drop_credentials(config: DictConfig) -> None:
    """Take the password out of an address that a config file holds."""
    if config.tracking.uri and not OmegaConf.is_interpolation(config.tracking, "uri"):
        config.tracking.uri = without_credentials(config.tracking.uri)


def write_job_pointer(folder: Path, job: Sequence[str] | None = None) -> None:
    """Tell the sweep which of its folders holds the run of this job, or of one of its others.

    job: the overrides of the other.
    """
    from jne.utils.files import write_json

    pointer = job_pointer(job)
    write_json(pointer, str(folder.relative_to(pointer.parent)))


def job_pointer(job: Sequence[str] | None = None) -> Path:
    """The file that names the folder of this job's run, or of that of a `job` of this sweep."""
    hydra = HydraConfig.get()
    overrides = hydra.overrides.task if job is None else job
    return _pointer_file(Path(hydra.sweep.dir).absolute(), overrides)


def run_of(sweep: Path, job: Sequence[str]) -> Path | None:
    """The folder of a job's run; None if the job never started."""
    try:
        return sweep / json.loads(_pointer_file(sweep, job).read_text())
    except FileNotFoundError:
        return None


def _job_number(status: Path) -> tuple[int, str]:
    """A folder's name begins with the number of its job."""
    number = status.parent.name.partition("_")[0]
    return int(number) if number.isdecimal() else 0, status.parent.name


def _pointer_file(sweep: Path, job: Sequence[str]) -> Path:
    """A job is known by what it computes: its number changes if jobs are added or reordered."""
    computed = sorted(override for override in job if not is_bookkeeping(override))
    digest = hashlib.sha256(repr(computed).encode()).hexdigest()[:16]
    return sweep / f".{digest}.job.json"


def _write_refused_job(path: Path, error: BaseException) -> None:
    """Make a results folder at `path` for a job that failed before it had one."""
    from jne.results.folder import free_folder, move_log
    from jne.utils.files import write_json

    folder = free_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    move_log(folder)
    overrides = list(map(hide_credentials, HydraConfig.get().overrides.task))
    failed = {"status": "FAILED", "error": in_one_line(error), "overrides": overrides}
    write_json(folder / "status.json", failed)
    write_job_pointer(folder)
