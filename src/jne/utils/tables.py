"""Tables as CSV files, or Parquet where they are large; read back with the same types.

A spreadsheet takes a cell that begins with one of `= + - @` for a formula, and runs it. Such a
text, which may be the name of anything in the data, gets an apostrophe before it in a CSV, as does
one that has the apostrophe already; `read_table` takes it off again. Numbers stay as they are.
"""

import csv
import re
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.files import atomic_file
from jne.utils.plain import regular_file

_MAX_CSV_ROWS = 50_000
_MANY_ROWS = 10_000  # fewer are written before Arrow is imported
# Of what is read. A whole brain of 226,000 voxels takes a tenth of a gigabyte
_MAX_BYTES, _MAX_HEADER = 2**30, 2**16
# Columns of names: 01 and 1 are two, and an empty column is no column of numbers.
_TEXT = ("roi", "tier", "category", "hemisphere", "image", "split", "mesh")
# Names, too, but numbers where all are whole numbers as one writes them.
_IDS = ("stimulus", "voxel")
# Also what spreadsheets skip before a formula, and the wide forms of = + - @; a sign alone is none,
# nor is a number below 0, whose column would be no column of numbers
_NEGATIVE = r"(?!-\d+(\.\d*)?([eE][+-]?\d+)?\Z)"
_FORMULA = re.compile(f"(?s){_NEGATIVE}'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20].")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without the index."""
    written = table.rename(columns=_quoted)
    has_return = any("\r" in str(name) for name in written)
    for name in written.select_dtypes(exclude="number"):
        codes, cells = pd.factorize(written[name], use_na_sentinel=False)  # names come many times
        has_return |= any(isinstance(cell, str) and "\r" in cell for cell in cells)
        written[name] = np.array([*map(_quoted, cells)], dtype=object)[codes]
    # All cells are put into quotes where a carriage return would end a row
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    if len(written) >= _MANY_ROWS and not has_return:
        for name in written.select_dtypes(["float32", "float64"]):
            written[name] = _digits(written[name].to_numpy())
    with atomic_file(path) as temporary:
        written.to_csv(temporary, index=False, quoting=quoting)


def _digits(values: NDArray[np.floating]) -> NDArray[np.object_]:
    """What pandas writes for each number (n,), which takes most of its time; empty for NaN."""
    import pyarrow as pa

    digits: NDArray[np.object_] = pa.array(values).cast(pa.string()).to_numpy(zero_copy_only=False)
    size = np.abs(values)
    # Arrow has exponents for other sizes than NumPy, and no point in whole numbers.
    alike = (size > 1e-3) & (size < 1e5) & (np.floor(values) != values)
    digits[~alike] = values[~alike].astype(str)
    digits[np.isnan(values)] = ""
    return digits


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

    Names stay as they are: `NA` and `None` are names like any other, and so is `01`. Raises
    InputError where it is no regular file of its folder or no text, and one of UNREADABLE where it
    is no table.
    """
    _check_text(regular_file(path, path.parent, max_bytes=_MAX_BYTES))
    # Read whole: in pieces, each piece of a column would get a type of its own.
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys((*_TEXT, *_IDS), str),
        keep_default_na=False,
        na_values=[""],
        low_memory=False,
    ).rename(columns=_unquoted)
    text = table.select_dtypes(exclude="number").columns
    table = table.assign(**{name: table[name].fillna("").map(_unquoted) for name in text})
    whole = [name for name in _IDS if name in table and _are_whole_numbers(table[name])]
    return table.astype(dict.fromkeys(whole, "int64"))


def _are_whole_numbers(ids: pd.Series) -> bool:
    return bool(len(ids) and ids.str.fullmatch(r"0|-?[1-9][0-9]{0,17}").all())


def _check_text(path: Path) -> None:
    """Raise InputError where a file is made to keep pandas busy: of zeros, or without an end."""
    with open(path, "rb") as file:
        header = file.readline(_MAX_HEADER)
        rows = iter(lambda: file.read(2**24), b"")
        if len(header) == _MAX_HEADER or any(b"\0" in part for part in chain([header], rows)):
            raise InputError("", f"{path} cannot be read (it is no table)")


def _quoted(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _unquoted(value: Any) -> Any:
    is_quoted = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value)
    return value[1:] if is_quoted else value
