"""A run's record, from its first line to its last artifact: results folder and MLflow."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname
from typing import Any

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from matplotlib import pyplot as plt
from omegaconf import DictConfig
from rich.table import Table

from jne import plots, report, report_plots, simulation_plots
from jne.callbacks import BestWeights, EpochRecord, JacobianNonlinearity, TestScores
from jne.cohort import Subject, by_subject
from jne.config import EvaluateConfig, ScriptConfig, SimulateConfig, TrainConfig
from jne.data.module import EncodingData
from jne.errors import InputError
from jne.evaluation import SubjectTables, joined
from jne.files import make_folder, read_table, write_array, write_json, write_table
from jne.images import Images
from jne.machine import peak_memory_gb
from jne.progress import console, stage_progress
from jne.results import (
    Results,
    RunFolder,
    earlier_attempts,
    finished,
    load_weights,
    open_run,
    roi_table,
    summarise,
    voxel_table,
)
from jne.roi import check_known
from jne.simulation import Study, means
from jne.sweep import PARENT
from jne.tracking import (
    TrackedRun,
    close_dead,
    newest_runs,
    open_store,
    results_folder,
    track,
    ui_hint,
)
from jne.training import EncodingModule

# Lightning tells at every start which accelerators it did not find.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
# Lightning 2.6 under torch 2.15, and where SLURM is installed; nothing that a user can change.
warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
warnings.filterwarnings("ignore", message="The `srun` command is available")


_GRACE_SECONDS = 600


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
        self.tracked.log_params(sizes)
        prepared = str(data.prepared.folder)
        if self.folder.before.get("prepared") != prepared:  # of other data
            (self.folder.path / "last.ckpt").unlink(missing_ok=True)
        self.folder.note(prepared=prepared)
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
        self.folder.write(voxels, stimuli, epochs.rows, arrays, summary, data.prepared.space)
        self.folder.write_encoder(
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
        _show_places(self.config, self.folder, self.tracked)


def _shown(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


@contextmanager
def record(config: TrainConfig, folder: Path) -> Iterator[Record]:
    """The record of a training run."""
    settings = config.model_dump(mode="json", exclude={"sweep", "resume"})
    identity = config.identity()
    with _opened(config, settings, folder, config.name, "train", identity) as (run_folder, tracked):
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
        others = sorted(own.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        found = earlier_attempts(others, config.identity())
    if not found or found[0] == own:
        return own
    for handler in logging.getLogger().handlers:  # the log goes where the run goes
        if isinstance(handler, logging.FileHandler):
            handler.close()
            handler.baseFilename = str(found[0] / Path(handler.baseFilename).name)
    if not any(own.iterdir()):
        own.rmdir()
    return found[0]


def result_of(folder: Path) -> float | None:
    """The best validation loss of a run that is finished, which is told; else None."""
    status = finished(folder)
    if status is None:
        return None
    console.print(f"finished already: {folder}", soft_wrap=True)
    return status["val_loss"]


def record_study(config: SimulateConfig, name: str, study: Study, folder: Path) -> None:
    """Run one simulation and write its table, its scalars and its figure."""
    settings = {"simulation": {name: study.model_dump(mode="json")}}
    with _opened(config, settings, folder, name, "simulation") as (run_folder, tracked):
        tracked.log_params(study.model_dump(mode="json"))
        with stage_progress() as progress:
            task = progress.add_task(name, total=100, unit="%")
            table = study.run(lambda done: progress.update(task, completed=round(100 * done)))
        metrics = {key: float(value) for key, value in study.summary(table).items()}
        write_table(folder / "table.csv", table)
        write_json(folder / "summary.json", {"metrics": metrics})
        tables = ["table.csv", "summary.json"]
        cells = means(table)
        if cells is not None:
            write_table(folder / "means.csv", cells)
            tables.append("means.csv")
        figure = simulation_plots.draw(name, study, table, run_folder.figures)
        tracked.log_metrics(metrics)
        tracked.log_file(figure, "figures")
        for file in tables:
            tracked.log_file(folder / file, "tables")
        if cells is not None:
            _show_cells(name, cells)
        shown = Table(title=name, title_justify="left", show_header=False)
        for key, value in metrics.items():
            if cells is None or not key.startswith("jne/"):
                shown.add_row(key, f"{value:.4g}")
        if shown.rows:
            console.print(shown)
        _show_places(config, run_folder, tracked)


def _show_cells(name: str, cells: pd.DataFrame) -> None:
    """The means of a study, its innermost key across; a key with one value needs no column."""
    keys = [key for key in cells if key not in ("mean", "standard_error", "n_draws")]
    across = keys.pop()
    rows = [key for key in keys if cells[key].nunique() > 1] or keys[-1:]
    narrow = cells[across].nunique() <= 4  # more columns leave no room for the errors
    shown = [
        f"{mean:.4f}" + (f" ±{error:.4f}".replace("±0", "±") if narrow and error >= 0 else "")
        for mean, error in zip(cells["mean"], cells["standard_error"], strict=True)
    ]
    wide = cells.assign(shown=shown).set_index([*rows, across])["shown"]
    title = f"{name}: mean JNE" + (", ± its standard error over the draws" if narrow else "")
    table = Table(title=title, title_justify="left")
    wide = wide.unstack(across, sort=False).fillna("")
    for column in (*rows, *wide.columns):
        table.add_column(str(column))
    for key, values in zip(wide.index, wide.to_numpy(), strict=True):
        table.add_row(*map(str, key if isinstance(key, tuple) else (key,)), *values)
    console.print(table)


class Report:
    """What evaluate.py writes, to its folder and to MLflow."""

    def __init__(
        self,
        config: EvaluateConfig,
        subjects: list[Subject],
        folder: RunFolder,
        tracked: TrackedRun,
    ) -> None:
        self.config, self.subjects = config, subjects
        self.folder, self.tracked = folder, tracked

    def write(self, found: list[SubjectTables]) -> None:
        """Tables, MoJ, figures, maps and the page; then log them and show what was found."""
        path = self.folder.path
        tables = joined(found)
        for name, table in tables.items():
            write_table(make_folder(path / "tables") / f"{name}.csv", table)
        for one in found:
            write_array(path / f"moj_{one.name}.npy", one.moj.astype(np.float32))
        figures = {
            one.name: report_plots.draw_subject(one, _images(subject), self.folder.figures)
            for subject, one in zip(self.subjects, found, strict=True)
        }
        maps = {
            one.name: self._draw_maps(subject, one)
            for subject, one in zip(self.subjects, found, strict=True)
        }
        page = path / "report.html"
        report.write_report(page, self.config, self.subjects, found, tables, figures, maps)
        metrics = _report_metrics(found, tables)
        write_json(path / "summary.json", {"metrics": metrics})

        self.tracked.log_metrics(metrics)
        self.tracked.log_file(page)
        self.tracked.log_file(path / "summary.json", "tables")
        for name in tables:
            if name != "voxels":  # arrays stay in the folder
                self.tracked.log_file(path / "tables" / f"{name}.csv", "tables")
        for drawn in (*figures.values(), *maps.values()):
            for figure in drawn.values():
                self.tracked.log_file(figure, "figures")
        for line in report.findings(found, tables, self.config):
            console.print(f"• {line}", highlight=False)
        console.print(f"report   {page}", soft_wrap=True, highlight=False)

    def _draw_maps(self, subject: Subject, one: SubjectTables) -> dict[str, Path]:
        """Maps for nilearn, and pictures of them, where the voxels have a place in a brain."""
        if not {"vertex", "k"} & set(one.voxels):
            return {}
        from jne import brain  # nilearn takes seconds to import

        space = subject.nonlinear.space
        if not brain.has_place(one.voxels, space):
            return {}
        synthetic = subject.nonlinear.config["data"]["_target_"].endswith(".Synthetic")
        pictures = {}
        for name, (column, label, cmap) in report_plots.MAPS.items():
            values = one.voxels[column].to_numpy()
            brain.write_maps(
                self.folder.path / "maps", f"{one.name}_{name}", one.voxels, values, space
            )
            with plt.rc_context(plots.STYLE):
                figure = brain.draw(
                    one.voxels,
                    values,
                    space,
                    label=label,
                    cmap=cmap,
                    vmax=report_plots.map_limit(values),
                    note="synthetic data" if synthetic else "",
                )
                path = self.folder.figures / f"{one.name}_map_{name}.png"
                pictures[f"map_{name}"] = plots.save(figure, path, dpi=report_plots.DPI, pdf=True)
        return pictures


def _images(subject: Subject) -> Images | None:
    """The stimuli as images, where the data has them and they are still where they were."""
    if "image" not in subject.nonlinear.stimuli:
        return None
    try:
        return instantiate(subject.nonlinear.config["data"]).images()
    except (InputError, OSError) as error:
        console.print(f"[yellow]no example stimuli in the report: {error}[/yellow]")
        return None


def _report_metrics(
    found: list[SubjectTables], tables: dict[str, pd.DataFrame]
) -> dict[str, float]:
    metrics = {}
    for row in tables["trend"].query("measure == 'jne'").itertuples():
        metrics[f"trend_tau/{row.subject}"] = row.tau
    for row in tables["reliability"].itertuples():
        metrics[f"split_half_r/{row.subject}"] = row.split_half_r
    if "comparison" in tables:
        for row in tables["comparison"].query("roi == 'all'").itertuples():
            metrics[f"r2_map_r/{row.subject}"] = row.r
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


@contextmanager
def record_report(
    config: EvaluateConfig, subjects: list[Subject], folder: Path
) -> Iterator[Report]:
    """The record of an evaluation, tied to the runs it reads."""
    read = {
        subject.name: [
            {"results": str(run.path), "mlflow_run_id": run.status["mlflow_run_id"]}
            for run in subject.runs
        ]
        for subject in subjects
    }
    settings = config.model_dump(mode="json") | {"read": read}
    name = f"report_{'_'.join(read)}"
    with _opened(config, settings, folder, name, "report") as (run_folder, tracked):
        ids = [run["mlflow_run_id"] for runs in read.values() for run in runs]
        tracked.log_params(
            {
                "subject": ", ".join(read),
                "data": subjects[0].nonlinear.config["data"]["name"],
                "voxels": config.voxels,
                "clusters": config.selectivity.clusters,
                "seed": config.seed,
            }
        )
        tracked.tag("reads", " ".join(ids))
        yield Report(config, subjects, run_folder, tracked)


def chosen_subjects(config: EvaluateConfig) -> list[Subject]:
    """The runs that `runs` names, by subject. Raises InputError where one cannot be read."""
    client, experiment_id = open_store(**config.store)
    if config.runs == "newest":
        folders = newest_runs(client, experiment_id, config.filter)
    elif config.filter:
        raise InputError(f"filter={config.filter} chooses among runs=newest; leave one of them out")
    else:
        folders = [
            Path(name) if Path(name).is_dir() else results_folder(client, name)
            for name in config.runs
        ]
    return by_subject([Results(folder) for folder in folders])


@contextmanager
def _opened(
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
    except SystemExit:
        # SLURM puts a preempted job back into the queue only if it has to kill it: a job that
        # ends by itself in its time of grace counts as over. All is written; wait for the kill.
        if "SLURM_JOB_ID" in os.environ:
            time.sleep(_GRACE_SECONDS)
        raise


def _show_places(config: ScriptConfig, folder: RunFolder, tracked: TrackedRun) -> None:
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


def sweep_name() -> str:
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode.name == "MULTIRUN" else ""


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
