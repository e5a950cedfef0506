"""Files written whole or not at all: under a temporary name first, then renamed."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError

# Columns of text that may be empty from top to bottom, which would read as numbers.
_TEXT = ("roi", "tier", "category", "hemisphere", "image")


def temporary_name(path: Path) -> Path:
    """A fresh name beside `path`, so that the rename stays on one file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name to write to; renamed to `path` if nothing was raised."""
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder; renamed to `path` if nothing was raised.

    Where another process made `path` first, its folder stays and this one is dropped.
    """
    make_folder(path.parent)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        if not path.exists():
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> Path:
    """`path` with its parents. Raises InputError where it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output: cannot write to {path} ({error.strerror})") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"output: cannot write to {path} (permission denied)")
    return path


def write_json(path: Path, value) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of ours: an empty text cell stays an empty text, an empty number is NaN."""
    table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
    text = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name].fillna("") for name in text})


def write_array(path: Path, array: NDArray) -> None:
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


@contextmanager
def whole_array(path: Path, shape: tuple[int, ...], dtype) -> Iterator[NDArray]:
    """Yields a memory-mapped array on disk to fill; it appears as `path` when it is complete."""
    with whole_file(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
