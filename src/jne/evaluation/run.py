"""What a report writes to its folder and to MLflow."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jne.evaluation.config import EvaluateConfig
from jne.evaluation.html import DPI
from jne.evaluation.report import Figures, Findings, Key, sentences
from jne.evaluation.sections.base import Section, SectionResults, concat_subjects
from jne.evaluation.subjects import Subject
from jne.evaluation.voxels import SubjectData
from jne.plots.writers import figure_writer
from jne.results.folder import RunFolder
from jne.runs.session import open_session
from jne.stages import Stages
from jne.tracking import TrackedRun
from jne.utils.files import atomic_file, make_folder, write_json
from jne.utils.progress import say, stage_progress
from jne.utils.tables import write_large_table, write_table

_FEW_SUBJECTS = 3
"""Whose figures are written before other processes have started."""


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
    left_out = [line for subject in subjects for line in subject.left_out]
    settings = config.model_dump(mode="json") | {"read": read, "left_out": left_out}
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
        stages = Stages(config.stages, lambda used: run_folder.note(stages=used))
        yield Report(run_folder, tracked, stages)


class Report:
    """Writes a report to its folder and to MLflow."""

    def __init__(self, folder: RunFolder, tracked: TrackedRun, stages: Stages) -> None:
        self.folder, self.tracked, self.stages = folder, tracked, stages
        self.voxel_table = "voxels.csv"
        """The file of the voxel table, below tables/. It is too large for MLflow."""
        self.files: dict[Section, dict[str, list[str]]] = {}
        """The other files of each section, by what they hold."""
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
                for name, description in result.section.write_files(data, path).items():
                    names = self.files.setdefault(result.section, {}).setdefault(description, [])
                    names += [name] if name not in names else []
            metrics |= result.section.scalars(result.tables)
        metrics = {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
        write_json(path / "summary.json", {"metrics": metrics})
        self.tracked.log_file(path / "summary.json", "tables")
        self.tracked.log_metrics(metrics)

    def draw(self, subjects: Sequence[SubjectData], results: Sequence[SectionResults]) -> Figures:
        """All figures, as figures/SUBJECT_NAME.png and .pdf."""
        figures: dict[Key, dict[str, Path]] = {}
        many = len(subjects) > _FEW_SUBJECTS
        with stage_progress() as progress, figure_writer(DPI, in_processes=many) as write:
            task = progress.add_task("figures", total=len(results), unit="")
            for result in results:
                section = result.section
                progress.update(task, step=section.title)
                if len(subjects) > 1:
                    drawn = section.figures_across(subjects, result.tables)
                    figures[section, None] = self._write(write, "all_subjects", drawn)
                for data in subjects:
                    drawn = section.figures(data, result.by_subject[data.name])
                    figures[section, data.name] = self._write(write, data.file_name, drawn)
                progress.advance(task)
        for paths in figures.values():
            for path in paths.values():
                self.tracked.log_file(path, "figures")
        return figures

    def _write(
        self, write: Callable[[Figure, Path], None], prefix: str, drawn: Mapping[str, Figure]
    ) -> dict[str, Path]:
        paths = {}
        for name, figure in drawn.items():
            paths[name] = self._new(self.folder.figures / f"{prefix}_{name}.png")
            write(figure, paths[name])
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
