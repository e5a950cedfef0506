"""A training run's record: what it writes to its folder and to MLflow, and how it goes on."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from rich.table import Table

from jne import plots
from jne.callbacks import BestWeights, EpochRecord, JacobianNonlinearity, TestScores
from jne.config import TrainConfig
from jne.data.module import EncodingData
from jne.errors import InputError
from jne.files import read_table, write_table
from jne.machine import peak_memory_gb
from jne.progress import console
from jne.record import hydra_folder, opened, show_places, sweep_name
from jne.results import (
    load_weights,
    roi_table,
    summarise,
    voxel_table,
    write_encoder,
    write_results,
)
from jne.roi import check_known
from jne.run_folder import RunFolder, earlier_attempts, finished, free_folder, move_log
from jne.sweep import note_place
from jne.tracking import TrackedRun, close_dead
from jne.training import EncodingModule

# Lightning tells at every start which accelerators it did not find.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Lightning 2.6 under torch 2.15, and where SLURM is installed; nothing that a user can change.
warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
warnings.filterwarnings("ignore", message="The `srun` command is available")


class Record:
    """What a run writes, to its folder and to MLflow."""

    def __init__(self, config: TrainConfig, folder: RunFolder, tracked: TrackedRun) -> None:
        self.config, self.folder, self.tracked = config, folder, tracked
        self._started = time.monotonic()

    def describe(self, data: EncodingData) -> None:
        """Sizes and provenance of the data, once it is open; a warning for voxels left out.

        Raises InputError where the config names an ROI that the data has not.
        """
        chosen = self.config.jacobian.voxels
        if isinstance(chosen, list):
            check_known(chosen, data.prepared.voxels["roi"], "jacobian.voxels")
        sizes = {f"n_{split}": len(rows) for split, rows in data.rows.items()}
        sizes |= {"n_features": data.features.shape[1], "n_voxels": len(data.voxel_status)}
        prepared, before = data.prepared.folder, self.folder.before.get("prepared")
        if before and Path(before).name != prepared.name:  # of an attempt on other data
            (self.folder.path / "last.ckpt").unlink(missing_ok=True)
            self.tracked.start_anew()
            self.folder.note(mlflow_run_id=self.tracked.run_id)
        self.folder.note(prepared=str(prepared))
        self.tracked.log_params(sizes)
        left_out = pd.Series(data.voxel_status).value_counts().drop("ok")
        for status, count in left_out.items():
            console.print(
                f"[yellow]{count} of {len(data.voxel_status)} voxels have {status} responses: "
                f"kept in the tables, NaN in their scores[/yellow]"
            )
        self._fit_started = time.monotonic()

    def finish(
        self,
        data: EncodingData,
        module: EncodingModule,
        epochs: EpochRecord,
        best: BestWeights,
        scores: TestScores,
        nonlinearity: JacobianNonlinearity,
    ) -> float:
        """Write, draw and log everything, and show the table. Returns the best validation loss."""
        ended = time.monotonic()
        path, config = self.folder.path, self.config
        jne_ss = np.load(path / "jne_ss.npy", mmap_mode="r")
        voxels = voxel_table(
            data.prepared.voxels,
            data.voxel_status,
            data.kept,
            {"r2": scores.r2, "p": scores.p, "p_fdr": scores.p_fdr},
            nonlinearity.columns,
        )
        features, responses = (tensor.numpy() for tensor in data.split("test"))
        arrays = {"features": features}
        for name, values in (("responses", responses), ("predictions", scores.predictions)):
            arrays[name] = values
            if len(data.kept) < jne_ss.shape[1]:
                arrays[name] = np.full(jne_ss.shape, np.nan, dtype=np.float32)
                arrays[name][:, data.kept] = values
        stimuli = data.prepared.stimuli.iloc[data.rows["test"]]
        summary = summarise(voxels, config.stats.alpha)
        summary["metrics"] |= {"train/best_epoch": best.epoch, "train/epochs": len(epochs.rows)}
        write_results(path, voxels, stimuli, epochs.rows, arrays, summary, data.prepared.space)
        write_encoder(
            path,
            config.encoder,
            module.encoder,
            {
                name: getattr(data, name)
                for name in ("feature_mean", "feature_scale", "response_mean", "response_scale")
            },
        )
        regions = roi_table(voxels)
        write_table(path / "rois.csv", regions)
        figures = plots.draw_run(
            self.folder.figures,
            config.name,
            voxels,
            read_table(path / "epochs.csv"),
            best.epoch,
            jne_ss,
        )

        durations = {
            "time/prepare_s": self._fit_started - self._started,
            "time/fit_test_s": ended - self._fit_started - nonlinearity.seconds,
            "time/jacobian_s": nonlinearity.seconds,
            "time/record_s": time.monotonic() - ended,
            "memory/peak_gb": peak_memory_gb(),
        }
        self.folder.note(**{name: round(value, 3) for name, value in durations.items()})
        self.tracked.log_metrics(summary["metrics"] | durations)
        for figure in figures:
            self.tracked.log_file(figure, "figures")
        for table in ("rois.csv", "epochs.csv", "summary.json"):
            self.tracked.log_file(path / table, "tables")
        self.folder.note(val_loss=best.loss)
        self._show(regions)
        return best.loss

    def _show(self, regions: pd.DataFrame) -> None:
        table = Table(title=self.config.name, title_justify="left")
        table.add_column("ROI")
        for heading in ("voxels", "R²", "JNE", "mean deviation", "JNE-SS"):
            table.add_column(heading, justify="right")
        for row in regions.itertuples():
            if row.roi == "all":
                table.add_section()
            values = (row.r2, row.jne, row.mean_deviation, row.jne_ss_mean)
            table.add_row(row.roi, str(row.n_voxels), *map(_shown, values))
        console.print(table)
        show_places(self.config, self.folder, self.tracked)


def _shown(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


@contextmanager
def record(config: TrainConfig, folder: Path) -> Iterator[Record]:
    """The record of a training run."""
    settings = config.model_dump(mode="json", exclude={"sweep", "resume"})
    identity = config.identity()
    with opened(config, settings, folder, config.name, "train", identity) as (run_folder, tracked):
        params = _params(config)
        run_folder.note(params=params, overrides=list(HydraConfig.get().overrides.task))
        tracked.log_params(params)
        if not sweep_name() and not tracked.lost:  # a sweep has done it before its jobs
            close_dead(tracked.client, tracked.experiment_id)
        yield Record(config, run_folder, tracked)


def folder_of(config: TrainConfig) -> Path:
    """Where this run goes: Hydra's folder for it, or that of an earlier attempt at the same run.

    An earlier attempt is looked for in Hydra's own folder, which is there already where SLURM
    starts a job again, among the runs of its sweep, and by `resume` among all single runs.
    """
    own = hydra_folder()
    found = earlier_attempts([own], config.identity())
    if not found and (config.resume or sweep_name()):
        # By name: that of a single run begins with its time.
        found = earlier_attempts(sorted(own.parent.iterdir(), reverse=True), config.identity())
    folder = found[0] if found else free_folder(own, config.identity())
    if folder != own:
        move_log(folder)
        if not any(own.iterdir()):
            own.rmdir()
    if sweep_name():
        note_place(folder)
    return folder


def result_of(folder: Path) -> float | None:
    """The best validation loss of a run that is finished, which is told; else None."""
    status = finished(folder)
    if status is None:
        return None
    console.print(f"finished already: {folder}", soft_wrap=True)
    return status["val_loss"]


def restore(
    saved: dict, module: EncodingModule, epochs: EpochRecord, best: BestWeights, max_epochs: int
) -> bool:
    """Whether training is over in this checkpoint; its record and best weights are then put back.

    Lightning would train one more epoch before it stops again.
    """
    states = saved.get("callbacks", {})
    rows = states.get("EpochRecord", {}).get("rows", ())
    if not states.get("LastCheckpoint", {}).get("over") and len(rows) < max_epochs:
        return False
    epochs.load_state_dict(states["EpochRecord"])
    best.load_state_dict(states["BestWeights"])
    module.encoder.load_state_dict(best.weights)
    return True


def checked_checkpoint(path: Path, module: EncodingModule) -> dict:
    """A checkpoint that fits the module. Raises InputError where it is damaged or another's."""
    checkpoint = load_weights(path)
    saved = checkpoint.get("state_dict", {})
    own = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in saved.items()}
    if shapes != {name: tuple(value.shape) for name, value in own.items()}:
        raise InputError(f"checkpoint={path} holds another encoder than this config describes")
    return checkpoint


def _layer(config: TrainConfig) -> object:
    found = config.data.get("layer")
    if found is None:
        found = config.features.get("layer")
    return "-" if found is None else found


def _params(config: TrainConfig) -> dict[str, object]:
    encoder, optimizer = config.encoder, config.optimizer
    linear = encoder.get("placement", config.placement) == "none"
    return {
        "subject": config.subject,
        "data": config.data["name"],
        "features": config.features["name"],
        "layer": _layer(config),
        "encoder": encoder.get("label", encoder["_target_"]).split("_")[0],
        "activation": "none" if linear else config.activation,
        "placement": "none" if linear else config.placement,
        "hidden_width": encoder.get("hidden_width", "-"),
        "n_hidden": encoder.get("n_hidden", "-"),
        "bias": encoder.get("bias", "-"),
        "optimizer": optimizer["_target_"].rsplit(".", 1)[-1],
        "lr": optimizer.get("lr", "-"),
        "batch_size": config.trainer.batch_size or "full",
        "patience": config.trainer.patience,
        "shuffle": config.shuffle,
        "seed": config.seed,
    }
