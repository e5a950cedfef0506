"""What is known of a prepared folder beyond its name: checks.json, beside the arrays.

    {"images": digest of the images' names, sizes and dates, null where none are in a folder
     "superseded": whether this version of the program reads the same inputs otherwise
     "rows_1": what jne.data.leaks finds
     "contents": digests of the arrays and tables (jne.data.contents)}

A folder of an earlier version gets it when it is first used.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from jne.utils.files import write_json
from jne.utils.locks import locked_file
from jne.utils.reading import UNREADABLE, reading

NOTES = "checks.json"
_Value = TypeVar("_Value")


def images_digest(path: Path | None) -> str | None:
    """A digest of the names, sizes and dates of the images in a folder; None for anything else.

    The date of a folder says nothing of images in it that were overwritten. That of a zip or an
    HDF5 file does, and is with the input files.
    """
    if path is None:
        return None
    with reading(path, "images"):
        if not path.is_dir():
            return None
    from jne.features.images import open_images  # which loads h5py and Pillow

    return hashlib.sha256(json.dumps(open_images(path).fingerprint()).encode()).hexdigest()


def noted(folder: Path, name: str, find: Callable[[], _Value]) -> _Value:
    """A note on a prepared folder; `find` gives it where there is none, once.

    Nothing is noted in a folder that cannot be written to.
    """
    writable = os.access(folder, os.W_OK)
    with locked_file(folder / "checks.lock") if writable else nullcontext():
        notes = _read(folder / NOTES)
        if name not in notes:
            notes[name] = find()
            if writable:
                write_json(folder / NOTES, notes)
    value: _Value = notes[name]
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_text())
    except UNREADABLE:  # none yet, or damaged
        return {}
    return notes if isinstance(notes, dict) else {}
