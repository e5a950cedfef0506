"""What a person saw: the trials of all sessions, and which images are used."""

from pathlib import Path

import numpy as np
import pandas as pd

from jne.data.laion.labels import LAYOUT, PEOPLE, parse
from jne.errors import InputError
from jne.utils.reading import reading

_COLUMNS = ("session", "run", "beta_index", "label")


def read_trials(files: dict[int, Path], person: str) -> pd.DataFrame:
    """One row per trial, in the order of the betas: session, run, label.

    files: the table of each session. Raises InputError, naming `data.root`, for another layout, and
    for images that only another person saw.
    """
    tables = [_read(path, number, person) for number, path in sorted(files.items())]
    return pd.concat(tables, ignore_index=True)


def _read(path: Path, number: int, person: str) -> pd.DataFrame:
    with reading(path, "data.root"):
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    for column in _COLUMNS:
        if column not in table:
            raise InputError("data.root", f"{path} has no column {column}; {LAYOUT}")
    session = f"ses-{number:02d}"
    wrong = table.loc[table["session"] != session, "session"]
    if len(wrong):
        raise InputError("data.root", f"{path} has a trial of {wrong.iloc[0]!r}; {LAYOUT}")
    if table["beta_index"].tolist() != [str(i) for i in range(len(table))]:
        raise InputError(
            "data.root",
            f"{path} must have the trials in the order of the betas, with beta_index from 0 to "
            f"{len(table) - 1}; {LAYOUT}",
        )
    if not table["run"].str.fullmatch(r"[0-9]+").all() or not len(table):
        raise InputError("data.root", f"{path} must have trials with the numbers of runs; {LAYOUT}")
    for name in table["label"].unique():
        label = parse(name, str(path))
        if label.owner not in ("", PEOPLE[person]):
            others = {number: name for name, number in PEOPLE.items()}
            raise InputError(
                "data.root",
                f"{path} has a trial of {name}, which {others.get(label.owner, 'nobody')} alone "
                f"saw, not {person} (whose images end in {PEOPLE[person]})",
            )
    return pd.DataFrame(
        {"session": number, "run": table["run"].astype(np.int64), "label": table["label"]}
    )
