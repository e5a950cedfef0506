"""Tables as CSV files, or Parquet where they are large; read back with the same types."""

from pathlib import Path

import pandas as pd

from jne.utils.files import atomic_file

_MAX_CSV_ROWS = 50_000
# Columns of names: 01 and 1 are two, and an empty column is no column of numbers.
_TEXT = ("roi", "tier", "category", "hemisphere", "image", "split", "mesh")
# Names, too, but numbers where all are whole numbers as one writes them.
_IDS = ("stimulus", "voxel")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without the index."""
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False)


def write_large_table(path: Path, table: pd.DataFrame) -> Path:
    """Write PATH.csv, or PATH.parquet for more than 50,000 rows; return the path of the file.

    Of 226,000 voxels, Parquet is half as large and written 15 times faster; two of its columns are
    read in hundredths of a second, which takes half a second from a CSV.
    """
    if len(table) <= _MAX_CSV_ROWS:
        written = path.with_name(f"{path.name}.csv")
        write_table(written, table)
        return written
    written = path.with_name(f"{path.name}.parquet")
    with atomic_file(written) as temporary:
        table.to_parquet(temporary, index=False)
    return written


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV that `write_table` wrote: empty text stays empty text, an empty number is NaN.

    Names stay as they are: `NA` and `None` are names like any other, and so is `01`.
    """
    # Read whole: in pieces, each piece of a column would get a type of its own.
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys((*_TEXT, *_IDS), str),
        keep_default_na=False,
        na_values=[""],
        low_memory=False,
    )
    text = table.select_dtypes(exclude="number").columns
    table = table.assign(**{name: table[name].fillna("") for name in text})
    whole = [name for name in _IDS if name in table and _are_whole_numbers(table[name])]
    return table.astype(dict.fromkeys(whole, "int64"))


def _are_whole_numbers(ids: pd.Series) -> bool:
    return bool(len(ids) and ids.str.fullmatch(r"0|-?[1-9][0-9]{0,17}").all())
