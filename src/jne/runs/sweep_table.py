"""The table and the figure of a sweep: R2 and JNE against what was varied."""

import itertools
from collections.abc import Sequence
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
from jne.runs.choice import RUN_SEPARATOR, Choice, candidates, choose
from jne.runs.experiment import (
    Command,
    experiment_names,
    shown_path,
    train_command,
    write_experiment,
)
from jne.runs.overrides import is_bookkeeping, values_by_key
from jne.utils.progress import print_table, say
from jne.utils.tables import write_table

_MEANS = ("r2/mean", "jne/mean")
_REPLICATES = ("subject", "seed")  # replicates of one encoder, not other encoders
# Parameters whose values make sense in a label without their keys.
_SELF_EXPLANATORY = ("data", "features", "encoder", "activation", "placement")


def write(folder: Path, command: Command) -> tuple[list[Path], list[Choice]]:
    """Write sweep.csv and sweep.png and, if settings were varied, best.csv and experiment files.

    command: that of the sweep. Returns the paths of the tables and the figure, [] if no
    run is finished, and the chosen settings, [] if none were varied.
    """
    table = read(folder)
    if table.empty:
        return [], []
    files = [folder / "sweep.csv"]
    runs = candidates(folder / name for name in table["run"])
    choices = choose(runs)
    figure = draw(table)
    if choices:
        losses = {run.path.name: run.loss for run in runs}
        chosen = {run.path.name for choice in choices for run in choice.runs}
        table["val_loss"] = table["run"].map(losses)
        table["chosen"] = table["run"].isin(chosen)
        write_table(folder / "best.csv", _best(choices, table))
        files.append(folder / "best.csv")
        for name, choice in zip(experiment_names(choices), choices, strict=True):
            write_experiment(folder, name, choice, command)
    write_table(files[0], table)
    return [*files, save(figure, folder / "sweep.png")], choices


def _best(choices: Sequence[Choice], table: pd.DataFrame) -> pd.DataFrame:
    """One row per subject and encoder: the chosen setting, and its runs for `evaluate.py`.

    The test R2 is information: it had no part in the choice.
    """
    r2 = table.set_index("run")["r2/mean"]
    rows = []
    for name, choice in zip(experiment_names(choices), choices, strict=True):
        runs = [run.path.name for run in choice.runs]
        rows.append(
            {
                "encoder": choice.label,
                "chosen": _words(choice),
                "val_loss": choice.loss,
                "r2/mean": r2[runs].mean(),
                "n_settings": choice.n_settings,
                "n_seeds": len(runs),
                "experiment": name,
                "runs": RUN_SEPARATOR.join(runs),
            }
        )
    return pd.DataFrame(rows)


def _words(choice: Choice) -> str:
    return " ".join(f"{key}={value}" for key, value in choice.setting.items())


def read(folder: Path) -> pd.DataFrame:
    """One row per finished run, the most nonlinear first.

    The columns are the parameters that differ among the runs, then the test metrics, the folder's
    name and the seconds that the run took.
    """
    params, metrics = [], []
    for path, status in _newest(folder).items():
        try:
            summary = metrics_of(path)
        except InputError as error:
            say(f"left out of the table: {error}", "yellow")
            continue
        params.append(_settings(status))
        test = {key: summary[key] for key in summary if key.startswith(("r2/", "jne/"))}
        metrics.append(test | {"run": path.name, "seconds": status.get("seconds")})
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


def _newest(folder: Path) -> dict[Path, dict[str, Any]]:
    """The finished runs of a sweep, with their statuses.

    Of a run that was repeated, because the data had changed, the last.
    """
    statuses = {path.parent: finished_status(path.parent) for path in folder.glob("*/status.json")}
    finished = {
        path: status for path, status in sorted(statuses.items()) if status and "params" in status
    }
    by_identity = {
        status.get("identity", path): path
        for path, status in sorted(finished.items(), key=lambda run: str(run[1].get("started")))
    }
    return {path: status for path, status in finished.items() if path in by_identity.values()}


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


def show(
    name: str,
    jobs: Sequence[Sequence[str]],
    statuses: Sequence[dict[str, Any]],
    choices: Sequence[Choice] = (),
) -> None:
    """Print all jobs of a sweep, in their order, with their status and means.

    jobs: the overrides of each job. statuses: of each job, with its `folder`; {} if it never
    started. choices: their runs are marked.
    """
    chosen = {str(run.path) for choice in choices for run in choice.runs}
    table = Table(title=f"sweep {name}", title_justify="left")
    table.add_column("job", justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    for heading in (*(["val loss"] if choices else []), "R²", "JNE", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("", overflow="fold")
    values = [values_by_key(itertools.filterfalse(is_bookkeeping, job)) for job in jobs]
    keys = dict.fromkeys(key for job in values for key in job)
    differing = [key for key in keys if len({job.get(key, "") for job in values}) > 1]
    for number, (job, status) in enumerate(zip(values, statuses, strict=True)):
        state = status.get("status", "not started")
        r2 = jne = loss = ""
        last, style = Text(), None
        if state == "FINISHED":
            loss = f"{status['val_loss']:.4f}" if "val_loss" in status else ""
            r2, jne = _means(status)
            if status["folder"] in chosen:
                last, style = Text("★"), "bold green"
        else:
            error = status.get("error", "").removeprefix("InputError: ")
            last = Text.assemble((state, "red"), f" {error[:160]}")
        seconds = f"{status['seconds']:.0f}" if "seconds" in status else ""
        settings = " ".join(_word(key, job[key]) for key in differing if key in job)
        cells = [str(number), settings, *([loss] if choices else []), r2, jne, seconds]
        table.add_row(*cells, last, style=style)
    print_table(table, to=Console(emoji=False))  # the shared console may be quiet


def in_short(status: dict[str, Any]) -> str:
    """What a job that ended well found, on the rest of a line. status: with its `folder`."""
    if status.get("status") != "FINISHED":  # a shard
        return str(status.get("error", ""))
    r2, jne = _means(status)
    return f"R² {r2}  JNE {jne}  {status['seconds']:.0f} s"


def _means(status: dict[str, Any]) -> tuple[str, str]:
    """R² and JNE of a finished run, as a table shows them."""
    try:
        metrics = metrics_of(Path(status["folder"]))
    except InputError:  # said when the table is written
        return "?", "?"
    r2, jne = (f"{metrics[key]:.3f}" if key in metrics else "-" for key in _MEANS)
    return r2, jne


def _word(key: str, value: str) -> str:
    """`value`; if its key is one of a section, also the key's name."""
    _, dot, name = key.rpartition(".")
    return f"{name}={value}" if dot else value


def show_choices(folder: Path, choices: Sequence[Choice], command: Command) -> None:
    """Print the chosen setting of each subject and encoder, and the commands that take them."""
    names = experiment_names(choices)
    width = max(map(len, names))
    print("lowest validation loss")
    for name, choice in zip(names, choices, strict=True):
        n_settings = f"of {choice.n_settings} setting{'s' if choice.n_settings > 1 else ''}"
        print(f"  {name:<{width}}  {choice.loss:.4f} {n_settings}  {_words(choice)}")
    print(f"train      {train_command(folder, names[0], choices[0], command)}")
    print(f"evaluate   python evaluate.py runs={shown_path(folder / 'best.csv')}")
