"""Tables as CSV files: written atomically, and read back with the same types."""

from pathlib import Path

import pandas as pd

from jne.utils.files import atomic_file

# Columns of text that may be empty from top to bottom, which pandas would read as numbers.
_TEXT = ("roi", "tier", "category", "hemisphere", "image")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without the index."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV that `write_table` wrote: empty text stays empty text, an empty number is NaN."""
    # Read whole: in pieces, each piece of a column would get a type of its own.
    table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), low_memory=False)
    text = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].fillna("") for name in text})
