"""Runs a study and records it in its folder and in MLflow."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from rich.table import Table

from jne.plots.style import STYLE, save
from jne.results.folder import check_parent
from jne.runs.session import open_session, show_locations
from jne.simulation.base import Study, means
from jne.simulation.config import SimulateConfig
from jne.utils.files import file_name, write_json
from jne.utils.progress import console, print_table, stage_progress
from jne.utils.tables import write_table


def record_study(config: SimulateConfig, name: str, study: Study, folder: Path) -> None:
    """Run a study; write its tables, its scalars and its figure to `folder` and to MLflow."""
    check_parent(folder.parent, "hydra.run.dir")
    keys = study.model_dump(mode="json")
    settings = {"simulation": {name: keys}}
    with open_session(config, settings, folder, name, "simulation") as (run_folder, tracked):
        tracked.log_params(keys)
        with stage_progress() as progress:
            task = progress.add_task(name, total=100, unit="%")
            table = study.run(lambda done: progress.update(task, completed=round(100 * done)))
            progress.update(task, completed=100)
        if study.stages_used:
            run_folder.note(stages=study.stages_used)
        metrics = {key: float(value) for key, value in study.summary(table).items()}
        cells = means(table)
        write_table(folder / "table.csv", table)
        write_json(folder / "summary.json", {"metrics": metrics})
        files = ["table.csv", "summary.json"]
        if cells is not None:
            write_table(folder / "means.csv", cells)
            files.append("means.csv")
        overview = study.overview(table)
        if overview is not None:
            write_table(folder / "overview.csv", overview.reset_index())
            files.append("overview.csv")
        figure = _draw(study, table, run_folder.figures / f"{file_name(name)}.png")
        tracked.log_metrics(metrics)
        if figure is not None:
            tracked.log_file(figure, "figures")
        for file in files:
            tracked.log_file(folder / file, "tables")
        if cells is not None:
            _show_cells(name, cells)
            metrics = {key: v for key, v in metrics.items() if not key.startswith("jne/")}
        if overview is None:
            _show_metrics(name, metrics)
        else:
            _show_overview(name, overview)
        show_locations(config, run_folder, tracked)


def _draw(study: Study, table: pd.DataFrame, path: Path) -> Path | None:
    """Write the study's figure to `path`. Returns `path`; None where the study has no figure."""
    with matplotlib.rc_context(STYLE):
        figure = study.figure(table)
        return None if figure is None else save(figure, path)


def _show_cells(name: str, cells: pd.DataFrame) -> None:
    """Print the means, with the innermost key across; a key with one value needs no column."""
    *keys, across = (key for key in cells if key not in ("mean", "standard_error", "n_draws"))
    rows = [key for key in keys if cells[key].nunique() > 1] or keys[-1:]
    narrow = cells[across].nunique() <= 4  # more columns leave no room for the errors
    texts = [
        f"{mean:.4f}" + (f" ±{error:.4f}".replace("±0", "±") if narrow and error >= 0 else "")
        for mean, error in zip(cells["mean"], cells["standard_error"], strict=True)
    ]
    title = f"{name}: mean JNE" + (", ± its standard error over the draws" if narrow else "")
    table = Table(title=title, title_justify="left")
    by_cell = cells.assign(text=texts).set_index([*rows, across])["text"]
    if rows:
        wide = by_cell.unstack(across, sort=False).fillna("")
    else:  # a single key: one row per value
        rows, wide = [across], by_cell.to_frame("mean JNE")
    for column in (*rows, *wide.columns):
        table.add_column(str(column))
    for key, values in zip(wide.index, wide.to_numpy(), strict=True):
        table.add_row(*map(str, key if isinstance(key, tuple) else (key,)), *values)
    print_table(table)


def _show_overview(name: str, overview: pd.DataFrame) -> None:
    """Print as many columns of numbers as there is room for; overview.csv has all."""
    numbers = overview.select_dtypes("number")
    texts = numbers.map(lambda value: f"{value:.2f}" if value < 10 else f"{value:.0f}")
    texts = texts.mask(numbers.isna(), "")
    widths = [1 + max(len(str(column)), *map(len, texts[column])) for column in texts]
    room = console.width - max(len(str(key)) for key in overview.index) - 1
    n_shown = int((np.cumsum(widths) <= room).sum())
    title = (
        name if n_shown == len(widths) else f"{name}: the first {n_shown} of {len(widths)} scores"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(str(overview.index.name), no_wrap=True)
    for column in texts.columns[:n_shown]:
        table.add_column(str(column), justify="right", no_wrap=True)
    for key, row in zip(overview.index, texts.to_numpy(), strict=True):
        table.add_row(str(key), *row[:n_shown])
    print_table(table)


def _show_metrics(name: str, metrics: dict[str, float]) -> None:
    """Print the scalars, if there are any."""
    if not metrics:
        return
    table = Table(title=name, title_justify="left", show_header=False)
    for key, value in metrics.items():
        table.add_row(key, f"{value:.4g}")
    print_table(table)
