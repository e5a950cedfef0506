"""What a prepared folder holds, as digests: runs are compared only where these agree.

Neither names nor settings say it: ids are row numbers where the user gave none, the same file may
be prepared under two names, and a file may have changed under its name.

    contents.json   in the prepared folder: the digests, and the sizes and dates of the files that
                    they are of, so that the arrays of a folder are read for them once
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.prepared import Prepared
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks
from jne.utils.files import write_json
from jne.utils.reading import UNREADABLE

PARTS = ("responses", "features", "stimuli", "voxels")
"""responses and features: of all stimuli, as measured. stimuli: their ids and splits. voxels: their
ids."""
_FILES = ("responses.npy", "features.npy", "stimuli.csv", "voxels.csv")
_BLOCK = 2**26  # bytes
_LENGTH = 16  # characters of a digest


def contents_of(prepared: Prepared) -> dict[str, str]:
    """A digest of each of PARTS."""
    kept = prepared.folder / "contents.json"
    files = _sizes_and_dates(prepared.folder)
    with suppress(*UNREADABLE, TypeError):  # there is none yet, or it is damaged
        earlier = json.loads(kept.read_text())
        if earlier["files"] == files:
            return {part: str(earlier["digests"][part]) for part in PARTS}
    digests = {
        "responses": _of_array(prepared.responses),
        "features": _of_array(prepared.features),
        "stimuli": _of_columns(prepared.stimuli, ("stimulus", "split")),
        "voxels": _of_columns(prepared.voxels, ("voxel",)),
    }
    with suppress(InputError, OSError):  # the folder of somebody else, or no space is left
        write_json(kept, {"digests": digests, "files": files})
    return digests


def combined(digests: Mapping[str, str]) -> str:
    """One digest of those of all parts."""
    return _of_text(json.dumps([digests[part] for part in PARTS]))


def _sizes_and_dates(folder: Path) -> list[list[int]]:
    stats = [(folder / name).stat() for name in _FILES]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _of_array(array: NDArray) -> str:
    digest = sha256(repr(array.shape).encode())
    for rows in voxel_blocks(len(array), max(1, _BLOCK // max(array[:1].nbytes, 1))):
        digest.update(np.ascontiguousarray(array[rows]).data)
    return digest.hexdigest()[:_LENGTH]


def _of_columns(table: pd.DataFrame, names: Iterable[str]) -> str:
    columns = [table[name].astype(str).tolist() for name in names if name in table]
    return _of_text(json.dumps(columns))


def _of_text(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_LENGTH]
