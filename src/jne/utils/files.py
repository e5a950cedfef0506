"""Files and folders that appear whole or not at all: written aside, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jne.errors import InputError

if TYPE_CHECKING:
    import numpy as np
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


def is_temporary(name: str) -> bool:
    """Whether a name is one that `temporary_name` gives: nobody else's file has it."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", name) is not None


_START_AGAIN = "then start again; train.py continues with resume=true"
_NOT_WRITTEN = {
    errno.ENOSPC: f"no space is left on the disk of {{}}; free some, {_START_AGAIN}",
    errno.EDQUOT: f"the quota on the disk of {{}} is used up; free some, {_START_AGAIN}",
    errno.EFBIG: f"a file in {{}} would be larger than this process may write; raise the limit "
    f"(ulimit -f), {_START_AGAIN}",
    errno.EROFS: "the file system of {} is read-only; choose another folder",
    errno.ENOLCK: "the file system of {} has no locks (flock); choose a folder on another one",
    errno.EIO: f"the disk of {{}} does not work (input/output error); mend that, {_START_AGAIN}",
}
"""What to say of the errors of a file system that no check foresees; `{}` is a folder."""


def not_written(error: BaseException, folder: Path | str, key: str = "output") -> InputError | None:
    """The sentence where a file system is full, or failed otherwise; None for another error.

    error: what was raised, perhaps in place of the error of the file system, as torch does.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        if isinstance(cause, OSError):
            # NumPy forgets the number: "100000 requested and 2484 written"
            cut = cause.errno is None and re.fullmatch(r"\d+ requested and \d+ written", str(cause))
            sentence = _NOT_WRITTEN.get(errno.ENOSPC if cut else cause.errno or 0)
            if sentence is not None:
                return InputError(key, sentence.format(folder))
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def writing(path: Path, key: str = "output") -> Iterator[None]:
    """Raise InputError, naming `key`, where the file system fails in this block.

    path: the folder, or a file in it, that the block writes.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        told = not_written(error, path if path.is_dir() else path.parent, key)
        if told is None:
            raise
        raise told from error


def reserve(path: Path, n_bytes: int, start: int = 0) -> None:
    """Have the file system set aside space for these bytes of an existing file.

    A full disk is then an OSError. Otherwise memory-mapped files are made of holes, and a write to
    one for which no space is left kills the process. Where a system cannot do so (macOS, some file
    systems), nothing happens.
    """
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None:
        return
    with open(path, "r+b") as file:
        try:
            allocate(file.fileno(), start, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; rename it to `path` if nothing was raised.

    Raises InputError where the folder of `path` cannot be written to.
    """
    if not os.access(path.parent, os.W_OK):
        reason = "permission denied" if path.parent.exists() else "its folder is gone"
        raise InputError("output", f"cannot write to {path} ({reason})")
    temporary = temporary_name(path)
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, resume: bool = False) -> Iterator[Path | None]:
    """Yield the folder `.NAME.partial`; rename it to `path` if nothing was raised.

    Only one process at a time makes `path`, under the lock `.NAME.lock`; one that had to wait gets
    None if `path` is complete by then. What a killed process left is removed; or, with `resume`, it
    is yielded again.
    """
    from jne.utils.locks import locked_file

    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.partial")
    with locked_file(path.with_name(f".{path.name}.lock"), keep=resume):
        if path.exists():  # completed by the process that we waited for
            yield None
            return
        if not resume:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(exist_ok=True)
        remove_half_written(temporary)
        try:
            with writing(path.parent):
                yield temporary
                os.replace(temporary, path)
        finally:
            if not resume:
                shutil.rmtree(temporary, ignore_errors=True)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files below a folder to which no other process writes."""
    for where, _, names in os.walk(folder):
        for name in filter(is_temporary, names):
            Path(where, name).unlink(missing_ok=True)


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

    with atomic_file(path) as temporary:
        temporary.touch()
        reserve(temporary, max(array.nbytes, 1))
        with open(temporary, "r+b") as file:
            np.save(file, array, allow_pickle=False)
            file.truncate()


@contextmanager
def atomic_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[NDArray]:
    """Yield a memory-mapped array to fill; it appears as the file `path` when the block ends."""
    with atomic_file(path) as temporary:
        array = new_memmap(temporary, shape, dtype)
        yield array
        array.flush()


def new_memmap(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """Make a .npy file of zeros, memory-mapped to be written to, with its space on the disk."""
    import numpy as np

    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    reserve(path, path.stat().st_size)
    return array
