"""What happens where a user's file cannot be read: one sentence with its name and its key."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from jne.errors import InputError

# What NumPy, pandas, h5py, nibabel, json and zipfile raise for files that are damaged or out of
# reach. NumPy parses the header of a .npy file as Python, hence the syntax errors.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def reading(path: Path, key: str) -> Iterator[None]:
    """Raise InputError, naming the file and `key`, where the block fails to read `path`.

    key: the config key, or the section, that leads to the file.
    """
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        file = getattr(error, "filename", None) or path  # in a folder `path`, the file itself
        raise InputError(f"{key}: {file} cannot be read ({reason})") from error
