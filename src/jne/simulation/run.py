"""A simulation's record: what it writes to its folder and to MLflow."""

from pathlib import Path

import pandas as pd
from rich.table import Table

from jne.runs.session import open_session, show_locations
from jne.simulation import figures
from jne.simulation.base import Study, means
from jne.simulation.config import SimulateConfig
from jne.utils.files import write_json
from jne.utils.progress import console, stage_progress
from jne.utils.tables import write_table


def record_study(config: SimulateConfig, name: str, study: Study, folder: Path) -> None:
    """Run one simulation and write its table, its scalars and its figure."""
    settings = {"simulation": {name: study.model_dump(mode="json")}}
    with open_session(config, settings, folder, name, "simulation") as (run_folder, tracked):
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
        figure = figures.draw(name, study, table, run_folder.figures)
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
        show_locations(config, run_folder, tracked)


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
