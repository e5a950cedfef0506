"""The files of a results folder, as they are read from anybody: regular ones, of the expected kind.

Whatever is wrong with one is an InputError: one sentence, with the file and what it should hold.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from jne.errors import InputError
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import UNREADABLE
from jne.utils.tables import read_table


class RunFiles:
    """The files below `path`, by their names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, name: str, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
        """A table with at least one row, columns of any kind, and columns of numbers."""
        table: pd.DataFrame = self.read(name, read_table)
        if table.empty:
            self.refuse(name, "at least one row")
        for column in (*texts, *numbers):
            if column not in table:
                self.refuse(name, f"a column {column}", f"columns {', '.join(table.columns)}")
        self.check_numbers(name, table, numbers)
        return table

    def check_numbers(self, name: str, table: pd.DataFrame, numbers: Sequence[str]) -> None:
        for column in numbers:
            if not pd.api.types.is_numeric_dtype(table[column]):
                self.refuse(name, f"numbers in column {column}")

    def json(self, name: str) -> dict[str, Any]:
        content = self.read(name, read_json)
        if not isinstance(content, dict):
            self.refuse(name, "names with values")
        return content

    def read(self, name: str, load: Callable[[Path], Any]) -> Any:
        """What `load` makes of a file of the folder: a regular one, wherever its links lead."""
        path = self.path / name
        try:
            return load(regular_file(path, self.path))
        except FileNotFoundError as error:
            raise InputError("", f"{self.path} is not a whole results folder: no {name}") from error
        except InputError:
            raise
        except UNREADABLE as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
            raise InputError("", f"{path} cannot be read ({reason or 'it is damaged'})") from error

    def refuse(self, name: str, expected: str, actual: str | None = None) -> NoReturn:
        message = f"{self.path / name} must hold {expected}"
        raise InputError("", message if actual is None else f"{message}, found {actual[:200]}")
