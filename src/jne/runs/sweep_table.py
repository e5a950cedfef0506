"""The table and the figure of a sweep: R2 and JNE against what was varied."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jne.errors import InputError
from jne.plots.style import STYLE, save, short, subplots
from jne.results.folder import finished_status, metrics_of
from jne.runs.overrides import is_bookkeeping, values_by_key
from jne.utils.progress import print_table, say
from jne.utils.tables import write_table

_MEANS = ("r2/mean", "jne/mean")
_REPLICATES = ("subject", "seed")  # replicates of one encoder, not other encoders
# Parameters whose values make sense in a label without their keys.
_SELF_EXPLANATORY = ("data", "features", "encoder", "activation", "placement")


def write(folder: Path) -> list[Path]:
    """Write sweep.csv and sweep.png and return their paths; [] if no run is finished."""
    table = read(folder)
    if table.empty:
        return []
    write_table(folder / "sweep.csv", table)
    return [folder / "sweep.csv", save(draw(table), folder / "sweep.png")]


def read(folder: Path) -> pd.DataFrame:
    """One row per finished run, the most nonlinear first.

    The columns are the parameters that differ among the runs, then the test metrics, the folder's
    name and the seconds that the run took.
    """
    params, metrics = [], []
    for path in sorted(folder.glob("*/status.json")):
        status = finished_status(path.parent)
        if status is None or "params" not in status:
            continue
        try:
            summary = metrics_of(path.parent)
        except InputError as error:
            say(f"left out of the table: {error}", "yellow")
            continue
        params.append(_settings(status))
        test = {key: summary[key] for key in summary if key.startswith(("r2/", "jne/"))}
        metrics.append(test | {"run": path.parent.name, "seconds": status.get("seconds")})
    if not params:
        return pd.DataFrame()
    varied = pd.DataFrame(params).fillna("")
    names = [name for name in varied if varied[name].astype(str).nunique() > 1]
    varied = varied[[name for name in names if not _repeats(varied, str(name))]]
    measured = pd.DataFrame(metrics)
    # There is no JNE if no run measured a voxel, as when none was significant.
    measured = measured.reindex(columns=list(dict.fromkeys([*_MEANS, *measured])))
    table = pd.concat([varied, measured], axis=1)
    return table.sort_values("jne/mean", ascending=False, kind="stable", ignore_index=True)


def _settings(status: dict[str, Any]) -> dict[str, object]:
    """The parameters of a run, and the overrides of its job that no parameter holds."""
    params = status["params"]
    return params | {
        key: value
        for key, value in values_by_key(status["overrides"]).items()
        if key not in params and not is_bookkeeping(key)
    }


def _repeats(varied: pd.DataFrame, key: str) -> bool:
    """Whether a key (optimizer.lr) varies exactly as the parameter of the same name (lr) does."""
    _, dot, name = key.rpartition(".")
    if not dot or name not in varied:
        return False
    return bool((pd.factorize(varied[key])[0] == pd.factorize(varied[name])[0]).all())


def draw(table: pd.DataFrame) -> Figure:
    """R2 and JNE: one row per encoder, one point per subject and seed, a bar for their mean."""
    labels = _encoder_labels(table)
    order = list(table["jne/mean"].groupby(labels).mean().sort_values().index)
    subject = table["subject"] if "subject" in table else pd.Series("", index=table.index)
    subjects = sorted(subject.unique())
    with matplotlib.rc_context(STYLE):
        figure, axes = subplots(
            1, 2, figsize=(7.2, 1.1 + 0.26 * len(order)), sharey=True, layout="constrained"
        )
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(subjects)))
        for panel, column, title in zip(
            axes, ("jne/mean", "r2/mean"), ("JNE", "test R²"), strict=True
        ):
            for y, label in enumerate(order):
                runs = table[labels == label]
                panel.barh(y, runs[column].mean(), color="#E3E7EB", height=0.72, zorder=0)
                for name, colour in zip(subjects, colours, strict=True):
                    values = runs.loc[subject == name, column]
                    spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else 0
                    panel.plot(values, y + spread + 0 * values, "o", ms=3.2, color=colour,
                               label=short(name) if y == 0 else None)  # fmt: skip
            panel.set(xlabel=f"{title}, mean over voxels")
            panel.axvline(0, color="#999999", lw=0.7)
        axes[0].set_yticks(range(len(order)), [short(label, 100) for label in order])
        if len(subjects) > 1:
            # Named, because names that begin with `_` would be left out.
            handles = axes[1].lines[: len(subjects)]
            axes[1].legend(
                handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0
            )
    return figure


def _encoder_labels(table: pd.DataFrame) -> pd.Series:
    """A label per run; the replicates of one encoder have the same."""
    varied = list(table.columns[: table.columns.get_loc(_MEANS[0])])
    words = [
        ("" if name in _SELF_EXPLANATORY else f"{name}=") + table[name].astype(str)
        for name in varied
        if name not in _REPLICATES
    ]
    labels = [" ".join(row) for row in zip(*words, strict=True)] or "all runs"
    return pd.Series(labels, index=table.index).str.replace(" none", "")


def show(name: str, jobs: list[list[str]], statuses: list[dict[str, Any]]) -> None:
    """Print all jobs of a sweep, in their order, with their status and means.

    jobs: the overrides of each job. statuses: of each job, with its `folder`; {} if it never
    started.
    """
    table = Table(title=f"sweep {name}", title_justify="left")
    table.add_column("job", justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    for heading in ("R²", "JNE", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    values = [values_by_key(job) for job in jobs]
    keys = dict.fromkeys(key for job in values for key in job)
    differing = [key for key in keys if len({job.get(key, "") for job in values}) > 1]
    for number, (job, status) in enumerate(zip(values, statuses, strict=True)):
        state = status.get("status", "not started")
        r2 = jne = ""
        failure = Text()
        if state == "FINISHED":
            try:
                metrics = metrics_of(Path(status["folder"]))
                r2, jne = (f"{metrics[key]:.3f}" if key in metrics else "-" for key in _MEANS)
            except InputError:  # said when the table was written
                r2 = jne = "?"
        else:
            error = status.get("error", "").removeprefix("InputError: ")
            failure = Text.assemble((state, "red"), f" {error[:160]}")
        seconds = f"{status['seconds']:.0f}" if "seconds" in status else ""
        settings = " ".join(job.get(key, "") for key in differing)
        table.add_row(str(number), settings, r2, jne, seconds, failure)
    print_table(table, to=Console(emoji=False))  # the shared console may be quiet
