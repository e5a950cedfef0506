"""Files and folders that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from jne.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

_NAME_BYTES = 160  # of the 255 that file systems allow: times, suffixes and numbers are added


def file_name(name: str) -> str:
    """`name`, where it can be part of a file's name; else a safe one, different for each `name`.

    Safe are letters, digits and ` ._-+=,@()`, without a dot, a dash or a space first, and at most
    160 bytes of UTF-8. Other characters become `_`, and a digest of `name` is added.
    """
    safe = "".join(
        c if unicodedata.category(c)[0] in "LMN" or c in " ._-+=,@()" else "_" for c in name
    )
    safe = safe.lstrip(" .-").rstrip(" .")
    if name and safe == name and len(name.encode()) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    start = safe.encode()[: _NAME_BYTES - 9].decode(errors="ignore")  # not within a character
    return f"{start}-{digest}".lstrip("-")


def temporary_name(path: Path) -> Path:
    """A fresh name beside `path`, so that the rename stays on one file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; rename it to `path` if nothing was raised.

    Raises InputError where the folder of `path` cannot be written to.
    """
    if not os.access(path.parent, os.W_OK):
        raise InputError("output", f"cannot write to {path} (permission denied)")
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, resume: bool = False) -> Iterator[Path | None]:
    """Yield a temporary folder; rename it to `path` if nothing was raised.

    If another process made `path` in the meantime, its folder stays and this one is dropped.

    resume: an interrupted block's folder is yielded again, to one process at a time. A process
    that had to wait for another gets None if `path` is complete by then.
    """
    make_folder(path.parent)
    if resume:
        temporary = path.with_name(f".{path.name}.partial")
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():  # completed by the process that we waited for
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


def make_folder(path: Path, key: str = "output") -> Path:
    """Make `path` with its parents and return it.

    key: the config key that says where the folder is. Raises InputError, naming the key, where the
    folder cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(key, f"cannot write to {path} ({error.strerror})") from error
    if not os.access(path, os.W_OK):
        raise InputError(key, f"cannot write to {path} (permission denied)")
    return path


def write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON. Raises ValueError for NaN, which JSON does not have."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: NDArray) -> None:
    """Write a numeric array as a .npy file."""
    import numpy as np  # not on top: --help needs this module, and no arrays

    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


@contextmanager
def atomic_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[NDArray]:
    """Yield a memory-mapped array to fill; it appears as the file `path` when the block ends."""
    import numpy as np

    with atomic_file(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
