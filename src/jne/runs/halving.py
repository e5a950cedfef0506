"""Successive halving over a grid (Jamieson & Talwalkar 2016), as a sweeper of Hydra.

Each round trains all settings that are left for a few epochs and keeps the best 1/eta of each group
(subject and encoder) by their validation loss; the next round has eta times as many epochs. A group
with at most eta settings left waits for the end, where the settings of all groups are trained in
full. So every run in the sweep's own folder is complete: it is the run that the same overrides give
without a sweep. The short runs are in its subfolder `trials`; they measure no Jacobians.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from jne.errors import InputError
from jne.runs.choice import Candidate, Items, Settings, ranked, settings_of
from jne.runs.overrides import NOT_MEASURED, grid
from jne.runs.sweep import TRIALS, run_of

Jobs = dict[tuple[str, ...], Settings]
"""What is left of the grid: the overrides of each job, and what its config says."""


class Halving(Sweeper):
    """See conf/hydra/sweeper/halving.yaml."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, epochs: int, eta: int, params: dict[str, str] | None = None) -> None:
        self.epochs, self.eta, self.params = epochs, eta, params or {}
        self.n_launched = 0

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run all rounds. A job that fails drops its setting, and the others continue."""
        _check_number("epochs", self.epochs, 1)
        _check_number("eta", self.eta, 2)
        overrides = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        configs = {tuple(job): self._composed(job) for job in grid(overrides)}
        full_epochs = {config["trainer"]["max_epochs"] for config in configs.values()}
        if len(full_epochs) > 1:
            raise InputError(
                "trainer.max_epochs",
                "hydra/sweeper=halving shortens the training by itself; give it a single value",
            )
        if any(config["jacobian"].get("shard") for config in configs.values()):
            raise InputError(
                "jacobian.shard",
                "with hydra/sweeper=halving a run is one job; compute the chosen "
                "one in shards afterwards",
            )
        folder = Path(self.config.hydra.sweep.dir).absolute()
        OmegaConf.save(self.config, folder / "multirun.yaml")

        jobs = {job: settings_of(config) for job, config in configs.items()}
        epochs = self.epochs
        while epochs < min(full_epochs) and (tried := self._too_many(jobs)):
            trials = {job: [*job, *self._short(epochs)] for job in tried}
            print(f"trials     {len(trials)} jobs of at most {epochs} epochs", flush=True)
            self._launch(list(trials.values()))
            kept = self._best(folder, tried, trials)
            jobs = {job: jobs[job] for job in jobs if job not in tried or job in kept}
            epochs *= self.eta
        print(f"in full    {len(jobs)} jobs of at most {min(full_epochs)} epochs", flush=True)
        self._launch([list(job) for job in jobs])

    def _composed(self, job: Sequence[str]) -> dict[str, Any]:
        """The config of a job. Raises Hydra's exception for one that cannot be composed."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
        with open_dict(config):
            del config["hydra"]
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def _too_many(self, jobs: Jobs) -> Jobs:
        """The jobs of the groups with more than eta settings."""
        counts = _n_settings(jobs)
        return {job: of for job, of in jobs.items() if counts[of.group] > self.eta}

    def _short(self, epochs: int) -> list[str]:
        """What makes a job a trial: few epochs, nothing measured, and another place."""
        sweep = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(sweep, dict)
        return [
            f"trainer.max_epochs={epochs}",
            *NOT_MEASURED,
            f"hydra.sweep.subdir='{TRIALS}/{sweep['subdir']}'",
            f"tracking.experiment='{self.config.tracking.experiment}_{TRIALS}'",
        ]

    def _launch(self, batch: list[list[str]]) -> None:
        if batch:
            self.launcher.launch(batch, initial_job_idx=self.n_launched)
            self.n_launched += len(batch)

    def _best(self, sweep: Path, jobs: Jobs, trials: Mapping[tuple[str, ...], list[str]]) -> Jobs:
        """The jobs of the best 1/eta of each group's settings, rounded up."""
        from jne.results.folder import finished_status

        candidates = []
        for job, settings in jobs.items():
            folder = run_of(sweep, trials[job])
            status = finished_status(folder) if folder is not None else None
            if folder is not None and status is not None:
                candidates.append(Candidate(folder, settings, status["val_loss"], "", job))
        counts = _n_settings(jobs)
        kept = {
            (group, replicates[0].settings.setting)
            for group, settings in ranked(candidates).items()
            for replicates in settings[: ceil(counts[group] / self.eta)]
        }
        return {job: of for job, of in jobs.items() if (of.group, of.setting) in kept}


def _n_settings(jobs: Jobs) -> dict[Items, int]:
    """How many settings each group has."""
    settings: dict[Items, set[Items]] = {}
    for of in jobs.values():
        settings.setdefault(of.group, set()).add(of.setting)
    return {group: len(found) for group, found in settings.items()}


def _check_number(key: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(
            f"hydra.sweeper.{key}", f"input should be a number from {least} up", value=value
        )
