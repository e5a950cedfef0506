"""Files written whole or not at all: under a temporary name first, then renamed."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from filelock import FileLock
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
def whole_folder(path: Path, resume: bool = False) -> Iterator[Path | None]:
    """Yields a temporary folder; renamed to `path` if nothing was raised.

    Where another process made `path` first, its folder stays and this one is dropped. resume: what
    an interrupted block left is found again; one process at a time, and None for one that waited
    while another made `path`.
    """
    make_folder(path.parent)
    if resume:
        temporary = path.with_name(f".{path.name}.partial")
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():  # made while we waited
                yield None
            else:
                temporary.mkdir(exist_ok=True)
                for half_written in temporary.glob(".*.tmp"):  # by the interrupted block
                    half_written.unlink()
                yield temporary
                os.replace(temporary, path)
        return
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.exists():
                raise
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


def read_array(path: Path, key: str | None, config_key: str, key_key: str) -> NDArray:
    """A numeric array from a .npy (memory-mapped), .npz or HDF5 file. Nothing is unpickled.

    key: the dataset inside the file, where it has several. config_key, key_key: what the two are
    called in the config, for the sentence of the InputError that a bad file raises.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                array = archive[_only(list(archive), key, path, key_key)]
        elif path.suffix in (".h5", ".hdf5", ".hdf", ".mat"):
            with h5py.File(path, "r") as file:
                names: list[str] = []
                file.visititems(
                    lambda name, item: (
                        names.append(name) if isinstance(item, h5py.Dataset) else None
                    )
                )
                array = file[_only(names, key, path, key_key)][()]
        else:
            raise InputError(f"{config_key}: {path} is not a .npy, .npz or HDF5 file")
    except InputError:
        raise
    except (ValueError, OSError, EOFError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            reason = "it holds Python objects, which are never unpickled; save a numeric array"
        else:
            reason = f"it cannot be read ({error})"
        raise InputError(f"{config_key}: {path}: {reason}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{config_key}: {path} is not an array of real numbers")
    return array


def _only(names: list[str], key: str | None, path: Path, key_key: str) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return key
    found = ", ".join(names) or "nothing"
    raise InputError(f"{key_key}={key}: choose one dataset of {path}, which holds {found}")
