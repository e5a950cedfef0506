"""Tables as CSV files, or Parquet where they are large; read back with the same types.

A spreadsheet takes a cell that begins with one of `= + - @` for a formula, and runs it. Such a
text, which may be the name of anything in the data, gets an apostrophe before it in a CSV, as does
one that has the apostrophe already; `read_table` takes it off again. Numbers stay as they are.
"""

import csv
import re
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.files import atomic_file
from jne.utils.plain import regular_file

_MAX_CSV_ROWS = 50_000
_MANY_ROWS = 10_000  # fewer are written before Arrow is imported
_TO_QUOTE = re.compile('[",\r\n]')  # in a cell
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
    cells = set(map(str, written))
    for name in written.select_dtypes(exclude="number"):
        codes, names = pd.factorize(written[name], use_na_sentinel=False)  # they come many times
        written[name] = np.array([*map(_quoted, names)], dtype=object)[codes]
        cells.update(map(str, names))
    with atomic_file(path) as temporary:
        if len(written) >= _MANY_ROWS and not any(map(_TO_QUOTE.search, cells)):
            _write_plain(temporary, written)
        else:
            # All cells are put into quotes where a carriage return would end a row
            has_return = any("\r" in cell for cell in cells)
            quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
            written.to_csv(temporary, index=False, quoting=quoting)


def _write_plain(path: Path, table: pd.DataFrame) -> None:
    """What pandas writes, several times as fast, where no cell needs quotes."""
    import pyarrow as pa
    from pyarrow.csv import WriteOptions, write_csv

    columns = {
        str(name): _digits(column.to_numpy())
        if column.dtype.kind == "f"
        else pa.array([None if pd.isna(cell) else str(cell) for cell in column])
        for name, column in table.items()
    }
    with open(path, "wb") as file:
        file.write((",".join(columns) + "\n").encode())
        plain = WriteOptions(include_header=False, quoting_style="none")
        write_csv(pa.table(columns), file, plain)


def _digits(values: NDArray[np.floating]) -> Any:
    """What pandas writes for each number (n,), an Arrow array of text; null for NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digits = pa.array(values, from_pandas=True).cast(pa.string())
    size = np.abs(values)
    # Arrow has exponents for other sizes than NumPy, and no point in whole numbers.
    other = (size <= 1e-3) | (size >= 1e5) | (np.floor(values) == values)
    # By their bits, as 0 and -0 are equal; most are whole numbers that come many times.
    bits, which = np.unique(values[other].view(f"i{values.itemsize}"), return_inverse=True)
    text = pa.array(bits.view(values.dtype).astype(str)).take(pa.array(which))
    return pc.replace_with_mask(digits, pa.array(other), text)


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
