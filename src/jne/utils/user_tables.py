"""Tables that users wrote, as CSV files: every cell is text, as it stands there.

`NA`, `None` and `01` are names like any other. What is computed with is made a number where that is
done.
"""

import csv
from pathlib import Path

import pandas as pd

from jne.errors import InputError
from jne.utils.progress import say
from jne.utils.reading import reading


def read_user_table(path: Path, key: str) -> pd.DataFrame:
    """The cells of a CSV, or .tsv, with a header, all text, without the blanks around them.

    A column without a name is called `Unnamed: k`, as in pandas. Where two spellings become one,
    because only blanks around them differ, that is printed. Raises InputError, naming the config
    key, where the file cannot be read, two columns have one name, or a line has more or fewer
    fields than the header; empty fields at the end of a line do not count.
    """
    with reading(path, key), path.open(newline="", encoding="utf-8-sig") as file:
        try:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            lines = [(reader.line_num, line) for line in reader if line]
        except csv.Error as error:
            raise ValueError(error) from error
    if not lines:
        raise InputError(key, f"{path} is empty; its first line must name the columns")
    (_, header), *rows = lines
    names = [name.strip() or f"Unnamed: {k}" for k, name in enumerate(header)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(key, f"{path} has two columns called {twice[0]}; rename one")
    for number, row in rows:
        if len(row) < len(names) or "".join(row[len(names) :]).strip():
            raise InputError(
                key,
                f"line {number} of {path} has {len(row)} fields, but the header names "
                f"{len(names)} columns; give each line one field per column",
            )
    table = pd.DataFrame([row[: len(names)] for _, row in rows], columns=names, dtype=str)
    return table.apply(_without_blanks, path=path)


def _without_blanks(column: pd.Series, path: Path) -> pd.Series:
    stripped = column.str.strip()
    written = pd.Series(column.unique(), dtype=str)
    again = written.str.strip().duplicated(keep=False)
    if again.any():
        spellings = ", ".join(map(repr, written[again][:2]))
        say(
            f"{path}: {spellings} in the column {column.name} differ only in blanks around them "
            f"and are read as one",
            style="yellow",
            soft_wrap=True,
        )
    return stripped
