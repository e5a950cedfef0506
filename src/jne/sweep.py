"""A sweep as one thing: what became of each of its jobs, and its table and figure.

Hydra launches the jobs; every job writes its own results folder and MLflow run. What is here runs
around them: before the first, at the end of each, and after the last.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from jne.errors import InputError

PARENT = "JNE_PARENT_RUN"  # in the environment of a job whose MLflow run has a parent
_BOOKKEEPING = ("resume", "sweep", "output", "tracking.", "hydra")  # no part of what a job computes

_log = logging.getLogger(__name__)
_launched: "SweepRecord | None" = None  # by this process
_claim = ExitStack()  # its lock on the sweep's folder


class SweepRecord(Callback):
    """Hydra's callback; it is pickled into every job, so it holds plain values alone."""

    def __init__(self) -> None:
        self.folder = Path()
        self.store: dict[str, str] = {}
        self.required = "start"
        self.parent: str | None = None
        self.jobs: list[list[str]] = []
        """The overrides of each job, in their order."""

    # --- where the sweep is launched ---

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global _launched
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        from jne.files import make_folder
        from jne.run_folder import claimed
        from jne.script_config import ScriptConfig
        from jne.tracking import close_dead, open_store, save_views

        overrides = list(config.hydra.overrides.task)
        parsed = OverridesParser.create().parse_overrides(overrides)
        self.jobs = BasicSweeper.split_arguments(parsed, None)[0]
        self.folder = Path(config.hydra.sweep.dir).absolute()
        plain = OmegaConf.to_container(config.tracking, resolve=True)
        script = ScriptConfig.model_validate({"tracking": plain, "output": config.output})
        self.store, self.required = script.store, script.tracking.required
        try:
            # Before the jobs: two processes must not make one store.
            client, experiment_id = open_store(**self.store)
            for name in close_dead(client, experiment_id):
                print(f"closed as KILLED, its process is gone: {name}")
            save_views(client, experiment_id, self.folder.name)
        except InputError as error:
            if self.required != "never":
                sys.exit(f"error: {error}")
        try:
            _claim.enter_context(claimed(make_folder(self.folder), wait=1.0))
        except InputError as error:
            sys.exit(f"error: {error}")
        if script.tracking.nested:
            self.parent = self._tracked().run_id
        _launched = self

    def _tracked(self):
        """The sweep's own MLflow run, open: the one there is, else a new one."""
        from jne.tracking import TrackedRun, find_run

        tags = {"kind": "sweep", "sweep": self.folder.name, "results": str(self.folder)}
        name = f"sweep_{self.folder.name}"
        tracked = TrackedRun(self.folder, self.store, self.required, name, tags)
        tracked.start(find_run(self.store, tags["kind"], tags["sweep"]))
        return tracked

    def finish(self) -> bool:
        """Table and figure of the sweep, shown, written and recorded. Whether a job was started."""
        from jne import sweep_table
        from jne.tracking import ui_hint

        statuses = self._statuses()
        if not any(statuses):
            return False
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
        return True

    def _statuses(self) -> list[dict]:
        """What is known of every job: {} where it never started."""
        from jne.run_folder import abandoned

        found: dict[tuple[str, ...], dict] = {}
        for path in self.folder.glob("*/status.json"):
            gone = abandoned(path.parent)  # asked first: one that ends now is not gone
            status = json.loads(path.read_text())
            if status["status"] == "RUNNING" and gone:
                status["status"] = "KILLED"
            job = _computed(status.get("overrides", ()))
            if job not in found or status["status"] == "FINISHED":
                found[job] = status | {"folder": str(path.parent)}
        return [found.get(_computed(job), {}) for job in self.jobs]

    # --- in the job's process ---

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        if self.parent is not None:
            os.environ[PARENT] = self.parent
        if "n_jobs" in config.hydra.launcher:  # joblib: bars of several jobs on one terminal
            from jne.progress import console

            console.quiet = True

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        if config.hydra.mode.name != "MULTIRUN":
            return
        from jne.files import write_json

        folder = Path(config.hydra.runtime.output_dir)
        name = f"{config.hydra.job.num} {config.name}"
        if job_return.status.name == "COMPLETED":
            if "n_jobs" in config.hydra.launcher:
                print(f"✓ job {name}", flush=True)
            return
        error = job_return._return_value  # `return_value` would raise it
        folder.mkdir(parents=True, exist_ok=True)  # a refused job has left none
        # Hydra shows the first failure of a sweep alone.
        _log.error("job %s: %s", name, error,
                   exc_info=None if isinstance(error, InputError) else error)  # fmt: skip
        if not (folder / "status.json").exists():  # refused before it had a folder of its own
            told = {"status": "FAILED", "error": f"{type(error).__name__}: {error}"}
            overrides = list(config.hydra.overrides.task)
            write_json(folder / "status.json", told | {"overrides": overrides})


def _computed(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that say what a job computes, in one order."""
    return tuple(sorted(one for one in overrides if not one.lstrip("+~").startswith(_BOOKKEEPING)))


def finish() -> bool:
    """End the sweep that this process launched; whether it did, and a job of it was started."""
    global _launched
    launched, _launched = _launched, None
    os.environ.pop(PARENT, None)
    with _claim:
        return launched is not None and launched.finish()
