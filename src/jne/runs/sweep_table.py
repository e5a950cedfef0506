"""The table and the figure of a sweep: R2 and JNE over what was swept."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jne.plots.style import STYLE, save, subplots
from jne.runs.sweep import is_bookkeeping
from jne.utils.tables import write_table

_MEANS = ("r2/mean", "jne/mean")
_REPLICATES = ("subject", "seed")  # points of one encoder, not encoders
_TELLING = ("data", "features", "encoder", "activation", "placement")  # without their keys


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
            params.append(_settings(status))
            shown = {name: value for name, value in summary.items()
                     if name.startswith(("r2/", "jne/"))}  # fmt: skip
            metrics.append(shown | {"run": path.parent.name, "seconds": status["seconds"]})
    if not params:
        return pd.DataFrame()
    varied = pd.DataFrame(params).fillna("")
    names = [name for name in varied if varied[name].astype(str).nunique() > 1]
    varied = varied[[name for name in names if not _repeats(varied, name)]]
    measured = pd.DataFrame(metrics)
    # Where no run measured a voxel (none was significant) there is no JNE.
    measured = measured.reindex(columns=list(dict.fromkeys([*_MEANS, *measured])))
    table = pd.concat([varied, measured], axis=1)
    return table.sort_values("jne/mean", ascending=False, kind="stable", ignore_index=True)


def _settings(status: dict) -> dict[str, object]:
    """The parameters of a run, and what else its job was told to compute."""
    params = status["params"]
    told = (one.lstrip("+~").split("=", 1) for one in status["overrides"] if "=" in one)
    return params | {
        key: value for key, value in told if key not in params and not is_bookkeeping(key)
    }


def _repeats(varied: pd.DataFrame, key: str) -> bool:
    """Whether a key (optimizer.lr) varies as the parameter of its name (lr) does."""
    _, dot, name = key.rpartition(".")
    if not dot or name not in varied:
        return False
    return bool((pd.factorize(varied[key])[0] == pd.factorize(varied[name])[0]).all())


def draw(table: pd.DataFrame) -> Figure:
    """R2 and JNE, a row an encoder, a point a subject and seed, a bar their mean."""
    varied = list(table.columns[: table.columns.get_loc(_MEANS[0])])
    encoders = [name for name in varied if name not in _REPLICATES]
    words = [
        ("" if name in _TELLING else f"{name}=") + table[name].astype(str) for name in encoders
    ]
    label = pd.Series([" ".join(row) for row in zip(*words, strict=True)] or "all runs",
                      index=table.index).str.replace(" none", "")  # fmt: skip
    order = list(table["jne/mean"].groupby(label).mean().sort_values().index)
    subjects = sorted(table["subject"].unique()) if "subject" in table else [""]
    subject = table["subject"] if "subject" in table else pd.Series("", index=table.index)
    with matplotlib.rc_context(STYLE):
        figure, axes = subplots(
            1, 2, figsize=(7.2, 1.1 + 0.26 * len(order)), sharey=True, layout="constrained"
        )
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(subjects)))
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
            r2, jne = (f"{metrics[name]:.3f}" if name in metrics else "-" for name in _MEANS)
        seconds = f"{status['seconds']:.0f}" if "seconds" in status else ""
        what = escape(" ".join(_value(job, key) for key in differing))
        error = status.get("error", "").removeprefix("InputError: ")
        told = "" if said == "FINISHED" else f"[red]{said}[/red] {escape(error[:160])}"
        table.add_row(str(number), what, r2, jne, seconds, told)
    Console().print(table)


def _keys(jobs: list[list[str]]) -> list[str]:
    return list(dict.fromkeys(one.split("=", 1)[0] for job in jobs for one in job))


def _value(job: list[str], key: str) -> str:
    return next((one.split("=", 1)[1] for one in job if one.startswith(f"{key}=")), "")
