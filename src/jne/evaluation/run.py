"""The runs that a report reads, and what it writes to its folder and to MLflow."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from jne.errors import InputError
from jne.evaluation.config import EvaluateConfig
from jne.evaluation.html import DPI
from jne.evaluation.report import Figures, Findings, Key, sentences
from jne.evaluation.sections.base import SectionResults, concat_subjects
from jne.evaluation.subjects import Subject, by_subject, has_twins, is_linear
from jne.evaluation.voxels import SubjectData
from jne.plots.style import STYLE, save
from jne.results import Results
from jne.results.folder import RunFolder, finished_status
from jne.runs.choice import RUN_SEPARATOR
from jne.runs.session import open_session
from jne.tracking import TrackedRun, newest_runs, open_store, results_folder
from jne.utils.files import atomic_file, make_folder, write_json
from jne.utils.progress import say, stage_progress
from jne.utils.reading import reading
from jne.utils.tables import read_table, write_large_table, write_table


def chosen_subjects(config: EvaluateConfig) -> list[Subject]:
    """The runs that `runs` names, by subject. Raises InputError where one cannot be read."""
    if isinstance(config.runs, str):
        of_all = config.runs == "newest_of_all_data"
        folders = newest_runs(*open_store(**config.store), config.filter, of_all)
    elif config.filter:
        raise InputError(
            "filter",
            "a filter selects among runs=newest; leave out filter or runs",
            value=config.filter,
        )
    else:
        folders = [folder for name in config.runs for folder in _named_folders(config, name)]
    return by_subject([Results(folder) for folder in folders], config.by)


def _named_folders(config: EvaluateConfig, name: str) -> list[Path]:
    """A results folder, given by its path or by the MLflow id of its run; or those of a sweep."""
    path = Path(name)
    if path.suffix == ".csv":
        return _chosen_folders(path)
    if path.is_dir():
        finished = [folder for folder in sorted(path.iterdir()) if finished_status(folder)]
        return [path] if (path / "status.json").exists() or not finished else finished
    client, _ = open_store(**config.store)
    return [results_folder(client, name)]


def _chosen_folders(file: Path) -> list[Path]:
    """The runs that a sweep chose by their validation loss, from its best.csv.

    Of a linear encoder, or with control=twins, only the first seed counts: a report has one such
    run per subject.
    """
    with reading(file, "runs"):
        table = read_table(file)
    if "runs" not in table:
        raise InputError("runs", f"{file} has no column 'runs'; name the best.csv of a sweep")
    named = [names for names in table["runs"].dropna().astype(str) if names]
    if not named:
        raise InputError("runs", f"{file} names no run")
    folders: list[Path] = []
    for names in named:
        of_setting = [file.parent / name for name in names.split(RUN_SEPARATOR)]
        first = Results(of_setting[0])
        folders += of_setting[:1] if is_linear(first) or has_twins(first) else of_setting
    return folders


@contextmanager
def open_report(
    config: EvaluateConfig, subjects: Sequence[Subject], folder: Path
) -> Iterator["Report"]:
    """The report's folder and MLflow run, with references to the runs that it reads."""
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
                "data": ", ".join(dict.fromkeys(subject.data_set for subject in subjects)),
                "voxels": config.voxels,
                "clusters": config.selectivity.clusters,
                "seed": config.seed,
            }
        )
        ids = [run["mlflow_run_id"] for runs in read.values() for run in runs]
        tracked.tag("reads", " ".join(filter(None, ids)))
        yield Report(run_folder, tracked)


class Report:
    """Writes a report to its folder and to MLflow."""

    def __init__(self, folder: RunFolder, tracked: TrackedRun) -> None:
        self.folder, self.tracked = folder, tracked
        self.voxel_table = "voxels.csv"
        """The file of the voxel table, below tables/. It is too large for MLflow."""
        self._taken: set[Path] = set()

    def write_tables(
        self, subjects: Sequence[SubjectData], results: Sequence[SectionResults]
    ) -> None:
        """Tables, scalars, and the other files of the sections."""
        path = self.folder.path
        tables = make_folder(path / "tables")
        voxels = concat_subjects({data.name: data.voxels for data in subjects})
        self.voxel_table = write_large_table(self._new(tables / "voxels"), voxels).name
        metrics: dict[str, float] = {}
        for result in results:
            for name, table in result.tables.items():
                file = self._new(tables / f"{name}.csv")
                write_table(file, table)
                self.tracked.log_file(file, "tables")
            for data in subjects:
                result.section.write_files(data, path)
            metrics |= result.section.scalars(result.tables)
        metrics = {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
        write_json(path / "summary.json", {"metrics": metrics})
        self.tracked.log_file(path / "summary.json", "tables")
        self.tracked.log_metrics(metrics)

    def draw(self, subjects: Sequence[SubjectData], results: Sequence[SectionResults]) -> Figures:
        """All figures, as figures/SUBJECT_NAME.png and .pdf."""
        figures: dict[Key, dict[str, Path]] = {}
        with matplotlib.rc_context(STYLE), stage_progress() as progress:
            task = progress.add_task("figures", total=len(results), unit="sections")
            for result in results:
                section = result.section
                if len(subjects) > 1:
                    drawn = section.figures_across(subjects, result.tables)
                    figures[section, None] = self._save("all_subjects", drawn)
                for data in subjects:
                    drawn = section.figures(data, result.by_subject[data.name])
                    figures[section, data.name] = self._save(data.file_name, drawn)
                progress.advance(task)
        return figures

    def _save(self, prefix: str, drawn: Mapping[str, Figure]) -> dict[str, Path]:
        paths = {}
        for name, figure in drawn.items():
            path = self._new(self.folder.figures / f"{prefix}_{name}.png")
            paths[name] = save(figure, path, dpi=DPI, pdf=True)
            self.tracked.log_file(path, "figures")
        return paths

    def _new(self, path: Path) -> Path:
        """`path`. Raises ValueError where another section has a table or figure of this name."""
        if path in self._taken:
            raise ValueError(f"two sections of the report write {path.name}")
        self._taken.add(path)
        return path

    def finish(self, page: str, findings: Findings) -> None:
        """Write the page, and show the findings on the console."""
        path = self.folder.path / "report.html"
        with atomic_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
        self.tracked.log_file(path)
        for sentence in sentences(findings):
            say(f"• {sentence}", highlight=False)
        say(f"report   {path}", soft_wrap=True, highlight=False)
        opened = f"jne open {shlex.quote(str(self.folder.path))}"
        say(f"open     {opened}", soft_wrap=True, highlight=False)
