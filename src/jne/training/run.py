"""A training run: the folder it goes to, what it writes there and to MLflow, what it shows."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.contents import contents_of
from jne.data.datamodule import EncodingData
from jne.data.prepared import Source, prepared_folder
from jne.data.scaling import whitening
from jne.fitting.banded import Banded
from jne.measuring.share import MeasuredShare
from jne.results.contents import (
    encoder_files,
    is_linear,
    roi_table,
    summarise,
    write_encoder,
    write_results,
)
from jne.results.evidence import EVIDENCE
from jne.results.folder import (
    RunFolder,
    check_ours,
    earlier_attempts,
    finished_status,
    free_folder,
    move_log,
    new_run_key,
)
from jne.results.halves import HALVES, agreement, of_all_voxels
from jne.results.shares import SHARES
from jne.results.spaces import ALL, space_metrics, space_regions, write_spaces
from jne.roi import check_known
from jne.runs.folders import discard_if_empty
from jne.runs.overrides import is_shard
from jne.runs.session import (
    hydra_folder,
    open_session,
    show_locations,
    sweep_name,
    task_overrides,
)
from jne.runs.sweep import write_job_pointer
from jne.stages import Stages, digest_of
from jne.tracking import TrackedRun, dataset_of
from jne.training import figures
from jne.training.config import TrainConfig
from jne.training.params import all_params, match_of, short_params
from jne.training.shown import (
    say_decay,
    say_halves,
    say_penalty_ends,
    say_spaces,
    say_verdict,
    show_regions,
)
from jne.training.steps import Outcome
from jne.utils.machine import peak_memory_gb
from jne.utils.progress import say
from jne.utils.tables import read_table, write_table

_ROWS_LOOKED_AT = 2000


class TrainingRun:
    """One run of train.py, open: its folder and its MLflow run."""

    def __init__(self, config: TrainConfig, folder: RunFolder, tracked: TrackedRun) -> None:
        self.config, self.folder, self.tracked = config, folder, tracked
        self.stages = Stages(config.stages, lambda used: folder.note(stages=used))
        self._warnings: list[str] = []
        self._started = self._data_ready = time.monotonic()

    @property
    def path(self) -> Path:
        return self.folder.path

    def describe(self, data: EncodingData) -> None:
        """Record the sizes and the origin of the data, and warn of what is odd about them.

        If an earlier attempt at this run used other data, training restarts, as a new MLflow run.
        Raises InputError where the config names an ROI that the data does not have.
        """
        check_rois(self.config, data)
        rows = data.rows
        if len(data.parts) > 1:  # test, all; of the others, those of the first fold
            rows = {**data.parts[0].rows, "test": rows["test"]}
        sizes: dict[str, object] = {f"n_{split}": len(chosen) for split, chosen in rows.items()}
        sizes |= {"n_features": data.features.shape[1], "n_voxels": len(data.voxel_status)}
        prepared, previous = data.prepared.folder, self.folder.previous.get("prepared")
        if previous and Path(previous).name != prepared.name:
            key = new_run_key()
            # First: if a kill comes after the new run is created, it is found by its key.
            self.folder.note(prepared=str(prepared), run_key=key, mlflow_run_id=None)
            self.tracked.restart_as_new_run(key)
            self.folder.note(mlflow_run_id=self.tracked.run_id)
        self._contents = contents_of(data.prepared)
        if len(data.parts) > 1:
            cut = [self._contents["stimuli"], len(data.parts)]
            self._contents = {**self._contents, "stimuli": digest_of(cut)}
        self.folder.note(prepared=str(prepared), contents=self._contents)
        self.tracked.log_params(sizes)
        self.tracked.log_input(dataset_of(data.prepared))
        left_out = pd.Series(data.voxel_status).value_counts().drop("ok")
        for status, count in left_out.items():
            say(
                f"{count} of {len(data.voxel_status)} voxels have {status} responses: "
                f"they stay in the tables, with NaN as their scores",
                style="yellow",
            )
        for sentence in data.prepared.warnings:
            self.warn(sentence)
        if self.config.data.get("scale_features", "each") == "each":
            self.warn(whitening(data.prepared.features[data.rows["train"][:_ROWS_LOOKED_AT]]))
        self._data_ready = time.monotonic()

    def warn(self, sentence: str) -> None:
        """Say it, if there is something to say, and keep it for the report."""
        if sentence:
            self._warnings.append(sentence)
            say(sentence, style="yellow", soft_wrap=True)

    def save(
        self,
        source: Source,
        outcome: Outcome,
        baseline: Mapping[str, NDArray[np.float32]],
        share: MeasuredShare | None,
        halves: pd.DataFrame | None = None,
        banded: Banded | None = None,
    ) -> float:
        """Write, draw and log all results, and show the table by ROI.

        baseline: columns (V',) of `jne.fitting.baseline`. share: None where the data have none.
        halves: of `jne.training.halves`, if asked for. banded: what feature spaces explain.
        Returns the best validation loss, which sweepers of hyperparameters minimise.
        """
        measured = time.monotonic()
        data, scores, nonlinearity = outcome.data, outcome.scores, outcome.nonlinearity
        history = outcome.history
        banded = banded or Banded({}, {})
        more = {} if share is None else share.columns
        voxels = outcome.voxels({**baseline, **banded.columns, **more})
        spaces = None
        if data.feature_spaces is not None:
            measured_in = outcome.of_spaces(banded.of_spaces)
            spaces = write_spaces(self.path, voxels, data.feature_spaces, measured_in)
        if share is not None:
            has_signal = voxels["signal_share"].notna()
            voxels["signal_from"] = np.where(has_signal, share.source, "")
            share.regions.save(self.path / SHARES)
        evidence = outcome.evidence
        if evidence is not None:
            evidence.regions.save(self.path / EVIDENCE)
            if evidence.nonlinear_in is not None:
                voxels["nonlinear_in"] = ""
                voxels.loc[data.kept, "nonlinear_in"] = evidence.nonlinear_in
        regions = roi_table(
            voxels,
            None if share is None else share.regions,
            None if evidence is None else evidence.regions,
        )
        summary = summarise(voxels, self.config.stats.alpha, regions)
        summary["metrics"] |= {
            "train/best_epoch": history.best_epoch,
            "train/epochs": len(history.epochs),
        }
        if history.decays is not None:
            summary["metrics"]["train/weight_decay"] = history.weight_decay
            summary["weight_decays"] = history.decays.to_dict("records")
            say_decay(history.decays)
        if halves is not None:
            write_table(self.path / HALVES, halves)
            agreed = agreement(halves, voxels["roi"].fillna("").astype(str))
            of_all = of_all_voxels(agreed)
            summary["metrics"] |= {f"halves/{name}": r for name, r in of_all.items()}
        if spaces is not None:
            of_spaces = space_regions(spaces, voxels).loc[[ALL]].droplevel("roi")
            summary["metrics"] |= space_metrics(of_spaces)
        if self._warnings:
            summary["data_warnings"] = self._warnings
        write_results(
            self.path,
            voxels=voxels,
            stimuli=_tested(data),
            epochs=history.epochs,
            trajectory=history.trajectory,
            arrays={
                "features": _features(data),
                "responses": data.all_voxels(scores.responses),
                "predictions": data.all_voxels(scores.predictions),
            },
            summary=summary,
            space=data.prepared.space,
            images=source.images_path,
            about=asdict(source.about),
        )
        scaling = ("feature_mean", "feature_scale", "response_mean", "response_scale")
        for name, fitted, part in zip(
            encoder_files(len(outcome.fits)), outcome.fits, data.parts, strict=True
        ):
            write_encoder(
                self.path / name,
                self.config.encoder,
                fitted.encoder,
                {scale: getattr(part, scale) for scale in scaling},
            )
        write_table(self.path / "rois.csv", regions)
        drawn = figures.draw_run(
            self.folder.figures,
            self.config.name,
            voxels,
            read_table(self.path / "epochs.csv"),
            history.best_epoch,
            nonlinearity.jne_ss,
            history.trajectory,
        )
        durations = {
            "time/prepare_s": self._data_ready - self._started,
            "time/fit_test_s": measured - self._data_ready - nonlinearity.seconds,
            "time/jacobian_s": nonlinearity.seconds,
            "time/record_s": time.monotonic() - measured,
            "memory/peak_gb": peak_memory_gb(),
        }
        self._log(summary["metrics"] | durations, drawn)
        match = match_of(self.config, self._contents, is_linear(voxels))
        for name, value in match.tags().items():
            self.tracked.tag(name, value)
        self.folder.note(**{name: round(value, 3) for name, value in durations.items()})
        self.folder.note(val_loss=history.best_loss)
        show_regions(self.config.name, regions)
        if spaces is not None:
            say_spaces(voxels, regions, of_spaces)
        say_verdict(voxels, regions)
        if halves is not None:
            say_halves(agreed)
        say_penalty_ends(voxels)
        show_locations(self.config, self.folder, self.tracked)
        drawn_by_roi = "rms_deviation" if nonlinearity.jne_ss is None else "jne"
        picture = self.folder.figures / f"{drawn_by_roi}_by_roi.png"
        say(f"picture    {picture}", soft_wrap=True)
        return history.best_loss

    def _log(self, metrics: dict[str, float], drawn: list[Path]) -> None:
        self.tracked.log_metrics(metrics)
        for figure in drawn:
            self.tracked.log_file(figure, "figures")
        for table in ("rois.csv", "epochs.csv", "trajectory.csv", "summary.json"):
            if (self.path / table).exists():
                self.tracked.log_file(self.path / table, "tables")
        if self.config.tracking.log_model:
            self.tracked.log_model()


def _features(data: EncodingData) -> NDArray[np.float32]:
    """(N, D) of the test stimuli, each standardised as for the encoder that tests it."""
    features = np.empty((len(data.rows["test"]), data.n_features), dtype=np.float32)
    for part in data.parts:
        at = np.searchsorted(data.rows["test"], part.rows["test"])
        features[at] = part.split("test")[0].numpy()
    return features


def _tested(data: EncodingData) -> pd.DataFrame:
    """The rows of the test stimuli; with folds, a column `fold`: that which tested each, from 1."""
    stimuli = data.prepared.stimuli.iloc[data.rows["test"]]
    if len(data.parts) == 1:
        return stimuli
    fold = np.zeros(len(data.prepared.stimuli), dtype=np.int64)
    for k, part in enumerate(data.parts, start=1):
        fold[part.rows["test"]] = k
    return stimuli.assign(fold=fold[data.rows["test"]])


def check_rois(config: TrainConfig, data: EncodingData) -> None:
    """Raise InputError where the config names an ROI that the data does not have."""
    for key in ("voxels", "trajectory"):
        chosen = getattr(config.jacobian, key)
        if isinstance(chosen, list):
            check_known(chosen, data.prepared.voxels["roi"], f"jacobian.{key}")


@contextmanager
def open_training_run(config: TrainConfig, folder: Path) -> Iterator[TrainingRun]:
    """The folder and the MLflow run of a training run, with statuses that are true at the end."""
    # Without `shard`: a run that several jobs computed is the run that one would have
    settings = config.model_dump(
        mode="json", exclude={"sweep": True, "resume": True, "jacobian": {"shard"}}
    )
    overrides = [override for override in task_overrides() if not is_shard(override)]
    with open_session(config, settings, folder, config.name, "train", config.identity()) as (
        run_folder,
        tracked,
    ):
        params = short_params(config)
        run_folder.note(name=config.name, params=params, overrides=overrides)
        tracked.log_params(all_params(config) | params)
        yield TrainingRun(config, run_folder, tracked)


def folder_of(config: TrainConfig, source: Source) -> Path:
    """Where this run goes: the folder Hydra made for it, or that of an earlier attempt at it.

    An earlier attempt may be in Hydra's own folder, which already exists where SLURM restarts a
    job; among the runs of the same sweep; and with `resume`, or for a shard, among all single runs.
    One that is finished stays as it is: where it had other data, this run goes to a new folder.

    Raises InputError where Hydra's own folder holds a user's files.
    """
    own = hydra_folder()
    check_ours(own)
    attempts = earlier_attempts([own], config.identity())
    folder = _to_continue(attempts, config, source)
    if folder is None and (config.resume or sweep_name() or config.jacobian.shard):
        # Newest first: the name of a single run begins with its time.
        siblings = sorted(own.parent.iterdir(), reverse=True)
        attempts = earlier_attempts(siblings, config.identity())
        folder = _to_continue(attempts, config, source)
    if folder is None:
        folder = free_folder(own, config.identity())
        if attempts:
            message = f"the data are no longer those of {attempts[0]}, which stays as it is: "
            say(f"{message}this run goes to {folder}", "yellow", soft_wrap=True)
    if folder != own:
        move_log(folder)
        discard_if_empty(own)
    if sweep_name():
        write_job_pointer(folder)
    return folder


def _to_continue(attempts: Sequence[Path], config: TrainConfig, source: Source) -> Path | None:
    """The first attempt that is not finished, or is finished with the data that there are now."""
    statuses = {path: finished_status(path) for path in attempts}
    if not any(statuses.values()):
        return next(iter(statuses), None)
    now = prepared_folder(source, config.prepared).name
    for path, status in statuses.items():
        if status is None or Path(status.get("prepared", now)).name == now:
            return path
    return None


def finished_loss(folder: Path) -> float | None:
    """The best validation loss if the run in `folder` is finished, after saying so; else None."""
    status = finished_status(folder)
    if status is None or not isinstance(status.get("val_loss"), float):
        return None
    say(f"already finished: {folder}", soft_wrap=True)
    return status["val_loss"]
