"""What happens where a user's file cannot be read: one sentence with its name and its key."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

from jne.errors import InputError

# What NumPy, pandas, h5py, nibabel, json and zipfile raise for files that are damaged or out of
# reach.
UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, struct.error),
    RuntimeError,  # h5py; zipfile, for an encrypted file; json, for too many brackets
    *(SyntaxError, TokenError),  # NumPy parses the header of an array as Python
    *(MemoryError, OverflowError),  # the header promises more than there can be
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
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        file = getattr(error, "filename", None) or path  # in a folder `path`, the file itself
        raise InputError(key, f"{file} cannot be read ({reason})") from error
