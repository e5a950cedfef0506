"""An evaluation's record: the runs it reads, and what it writes to its folder and to MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from hydra.utils import instantiate

from jne.errors import InputError
from jne.evaluation import figures as figures_module
from jne.evaluation import report
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.subjects import Subject, by_subject
from jne.evaluation.tables import SubjectTables, joined
from jne.features.images import Images
from jne.plots.style import STYLE, save
from jne.results import Results
from jne.results.folder import RunFolder
from jne.runs.session import open_session
from jne.tracking import TrackedRun, newest_runs, open_store, results_folder
from jne.utils.files import make_folder, write_array, write_json
from jne.utils.progress import console
from jne.utils.tables import write_table


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
            one.name: figures_module.draw_subject(one, _images(subject), self.folder.figures)
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
        from jne.plots import brain  # nilearn takes seconds to import

        space = subject.nonlinear.space
        if not brain.has_place(one.voxels, space):
            return {}
        synthetic = subject.nonlinear.config["data"]["_target_"].endswith(".Synthetic")
        pictures = {}
        for name, (column, label, cmap) in figures_module.MAPS.items():
            values = one.voxels[column].to_numpy()
            brain.write_maps(
                self.folder.path / "maps", f"{one.name}_{name}", one.voxels, values, space
            )
            with matplotlib.rc_context(STYLE):
                figure = brain.draw(
                    one.voxels,
                    values,
                    space,
                    label=label,
                    cmap=cmap,
                    vmax=figures_module.map_limit(values),
                    note="synthetic data" if synthetic else "",
                )
                path = self.folder.figures / f"{one.name}_map_{name}.png"
                pictures[f"map_{name}"] = save(figure, path, dpi=figures_module.DPI, pdf=True)
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
            {"results": str(run.path), "mlflow_run_id": run.status.get("mlflow_run_id")}
            for run in subject.runs
        ]
        for subject in subjects
    }
    settings = config.model_dump(mode="json") | {"read": read}
    name = f"report_{'_'.join(read)}"
    with open_session(config, settings, folder, name, "report") as (run_folder, tracked):
        tracked.log_params(
            {
                "subject": ", ".join(read),
                "data": subjects[0].nonlinear.config["data"]["name"],
                "voxels": config.voxels,
                "clusters": config.selectivity.clusters,
                "seed": config.seed,
            }
        )
        ids = [run["mlflow_run_id"] for runs in read.values() for run in runs]
        tracked.tag("reads", " ".join(filter(None, ids)))
        yield Report(config, subjects, run_folder, tracked)


def chosen_subjects(config: EvaluateConfig) -> list[Subject]:
    """The runs that `runs` names, by subject. Raises InputError where one cannot be read."""
    if config.runs == "newest":
        folders = newest_runs(*open_store(**config.store), config.filter)
    elif config.filter:
        raise InputError(f"filter={config.filter} chooses among runs=newest; leave one of them out")
    else:
        folders = [_named_folder(config, name) for name in config.runs]
    return by_subject([Results(folder) for folder in folders])


def _named_folder(config: EvaluateConfig, name: str) -> Path:
    """A results folder, or that of the run with this MLflow id."""
    if Path(name).is_dir():
        return Path(name)
    client, _ = open_store(**config.store)
    return results_folder(client, name)
