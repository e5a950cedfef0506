"""The table and the figure of a sweep: R2 and JNE over what was swept."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from jne.files import write_table
from jne.plots import STYLE, save

_REPLICATES = ("subject", "seed")  # points of one encoder, not encoders


def write(folder: Path) -> list[Path]:
    """sweep.csv, a row a finished run with what differs among them, and sweep.png; their paths."""
    table = read(folder)
    if table.empty:
        return []
    write_table(folder / "sweep.csv", table)
    return [folder / "sweep.csv", save(draw(table), folder / "sweep.png")]


def read(folder: Path) -> pd.DataFrame:
    """One row a finished run: parameters that differ, metrics of the test, most nonlinear first."""
    params, metrics = [], []
    for path in sorted(folder.glob("*/status.json")):
        status = json.loads(path.read_text())
        if status["status"] == "FINISHED" and "params" in status:
            summary = json.loads((path.parent / "summary.json").read_text())["metrics"]
            params.append(status["params"])
            shown = {name: value for name, value in summary.items()
                     if name.startswith(("r2/", "jne/"))}  # fmt: skip
            metrics.append(shown | {"run": path.parent.name, "seconds": status["seconds"]})
    if not params:
        return pd.DataFrame()
    varied = pd.DataFrame(params)
    varied = varied[[name for name in varied if varied[name].astype(str).nunique() > 1]]
    table = pd.concat([varied, pd.DataFrame(metrics)], axis=1)
    return table.sort_values("jne/mean", ascending=False, kind="stable", ignore_index=True)


def draw(table: pd.DataFrame) -> plt.Figure:
    """R2 and JNE, a row an encoder, a point a subject and seed, a bar their mean."""
    varied = list(table.columns[: table.columns.get_loc("r2/mean")])
    encoders = [name for name in varied if name not in _REPLICATES]
    label = table[encoders].astype(str).agg(" ".join, axis=1) if encoders else pd.Series(
        "all runs", index=table.index
    )  # fmt: skip
    label = label.str.replace(" none", "")
    order = list(table["jne/mean"].groupby(label).mean().sort_values().index)
    subjects = sorted(table["subject"].unique()) if "subject" in table else [""]
    subject = table["subject"] if "subject" in table else pd.Series("", index=table.index)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 2, figsize=(7.2, 1.1 + 0.26 * len(order)), sharey=True, layout="constrained"
        )
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(subjects)))
        for panel, column, title in zip(
            axes, ("jne/mean", "r2/mean"), ("JNE", "test R²"), strict=True
        ):
            for y, name in enumerate(order):
                own = table[label == name]
                panel.barh(y, own[column].mean(), color="#E3E7EB", height=0.72, zorder=0)
                for one, colour in zip(subjects, colours, strict=True):
                    values = own.loc[subject == one, column]
                    spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else 0
                    panel.plot(values, y + spread + 0 * values, "o", ms=3.2, color=colour,
                               label=one if y == 0 else None)  # fmt: skip
            panel.set(xlabel=f"{title}, mean over voxels")
            panel.axvline(0, color="#999999", lw=0.7)
        axes[0].set_yticks(range(len(order)), order)
        if len(subjects) > 1:
            axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0)
    return figure


def show(name: str, jobs: list[list[str]], statuses: list[dict]) -> None:
    """All jobs of a sweep in the terminal, in their order."""
    table = Table(title=f"sweep {name}", title_justify="left")
    for heading, justify in (("job", "right"), ("", "left"), ("R²", "right"), ("JNE", "right"),
                             ("seconds", "right"), ("", "left")):  # fmt: skip
        table.add_column(heading, justify=justify, overflow="fold")
    differing = [key for key in _keys(jobs) if len({_value(job, key) for job in jobs}) > 1]
    for number, (job, status) in enumerate(zip(jobs, statuses, strict=True)):
        said = status.get("status", "not started")
        r2 = jne = ""
        if said == "FINISHED":
            metrics = json.loads(Path(status["folder"], "summary.json").read_text())["metrics"]
            r2, jne = f"{metrics['r2/mean']:.3f}", f"{metrics['jne/mean']:.3f}"
        seconds = f"{status['seconds']:.0f}" if "seconds" in status else ""
        what = " ".join(_value(job, key) for key in differing)
        error = status.get("error", "").removeprefix("InputError: ")
        told = "" if said == "FINISHED" else f"[red]{said}[/red] {error}"[:160]
        table.add_row(str(number), what, r2, jne, seconds, told)
    Console().print(table)


def _keys(jobs: list[list[str]]) -> list[str]:
    return list(dict.fromkeys(one.split("=", 1)[0] for job in jobs for one in job))


def _value(job: list[str], key: str) -> str:
    return next((one.split("=", 1)[1] for one in job if one.startswith(f"{key}=")), "")
