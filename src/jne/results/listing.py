"""The finished runs below an output folder, as a table, without MLflow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from jne.config import subject_choice
from jne.errors import InputError, did_you_mean
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import UNREADABLE

_PLACES = ("runs/*", "sweeps/*/*")  # below the output folder
_NAMED = ("data", "features", "layer", "encoder", "control", "subject")
_MEASURED = {"r2": "r2/mean", "validated_share": "validated_share/all", "jne": "jne/mean"}
_UNUSED = "-"  # what a run records for a setting that it does not have


def list_runs(output: str | Path = "outputs") -> pd.DataFrame:
    """The finished runs of train.py below an output folder, the newest first.

    Parameters
    ----------
    output : path
        The key `output` of the runs; `runs` and `sweeps` are below it.

    Returns
    -------
    DataFrame
        name, data, features, layer, encoder, control, subject; further settings in which the runs
        differ, by their names in MLflow; r2 (mean over voxels), validated_share (of all voxels),
        jne (mean), NaN where a run has none; and path, for `Results(path)`.

    Raises
    ------
    InputError
        A `ValueError`: where there is no such folder.
    """
    output = Path(output)
    if not output.is_dir():
        raise InputError("output", "there is no such folder", value=output)
    runs = sorted(_finished(output), key=lambda run: run[1].get("started", ""), reverse=True)
    names = list(dict.fromkeys(name for _, status, _ in runs for name in status["params"]))
    settings = pd.DataFrame([status["params"] for _, status, _ in runs], columns=names)
    settings = settings.replace(_UNUSED, "").fillna("")
    differ = [name for name in names if settings[name].astype(str).nunique() > 1]
    columns = [*_NAMED, *(name for name in differ if name not in _NAMED)]
    table = settings.reindex(columns=columns)
    table.insert(0, "name", [status.get("name", path.name) for path, status, _ in runs])
    for column, metric in _MEASURED.items():
        table[column] = pd.Series([metrics.get(metric) for *_, metrics in runs], dtype=float)
    return table.assign(path=[str(path) for path, *_ in runs])


def newest_run(output: str | Path, chosen: Mapping[str, object]) -> Path:
    """The folder of the newest run with these values of columns of `list_runs`."""
    runs = list_runs(output)
    for name, value in chosen.items():
        if name not in runs:
            listed = ", ".join(map(str, runs))
            raise InputError(
                name, f"no such column; the runs have {listed}{did_you_mean(name, map(str, runs))}"
            )
        form = subject_choice if name == "subject" else str
        left = runs[runs[name].astype(str).map(form) == form(str(value))]
        if left.empty and len(runs):
            present = ", ".join(dict.fromkeys(map(str, runs[name])))
            raise InputError(name, f"no finished run has it; there are {present}", value=value)
        runs = left
    if runs.empty:
        raise InputError("output", "holds no finished run of train.py", value=output)
    return Path(runs["path"].iloc[0])


def _finished(output: Path) -> Iterator[tuple[Path, dict[str, Any], dict[str, float]]]:
    """The folder, the status and the metrics of each finished run."""
    for place in _PLACES:
        for folder in output.glob(place):
            try:
                status, summary = (
                    read_json(regular_file(folder / name, folder))
                    for name in ("status.json", "summary.json")
                )
            except (*UNREADABLE, InputError):  # a run that has only begun, or a file of the user's
                continue
            of_run = isinstance(status, dict) and status.get("kind") == "train"
            finished = of_run and status.get("status") == "FINISHED"
            metrics = summary.get("metrics") if isinstance(summary, dict) else None
            if finished and isinstance(status.get("params"), dict) and isinstance(metrics, dict):
                yield folder, status, metrics
