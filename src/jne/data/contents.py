"""What a prepared folder holds, as digests: runs are compared only where these agree.

Neither names nor settings say it: ids are row numbers where the user gave none, the same file may
be prepared under two names, and a file may have changed under its name. The digests are noted in
the prepared folder (`jne.data.notes`), so that its arrays are read for them once.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.notes import noted
from jne.data.prepared import Prepared
from jne.stages import digest_of
from jne.utils.blocks import voxel_blocks

PARTS = ("responses", "features", "stimuli", "voxels")
"""responses and features: of all stimuli, as measured, features with their spaces. stimuli: their
ids and splits. voxels: their ids."""
_BLOCK = 2**26  # bytes
_LENGTH = 16  # characters of a digest


def contents_of(prepared: Prepared) -> dict[str, str]:
    """A digest of each of PARTS."""
    return noted(
        prepared.folder,
        "contents",
        lambda: {
            "responses": _of_array(prepared.responses),
            "features": _of_features(prepared),
            "stimuli": _of_columns(prepared.stimuli, ("stimulus", "split")),
            "voxels": _of_columns(prepared.voxels, ("voxel",)),
        },
    )


def combined(digests: Mapping[str, str]) -> str:
    """One digest of those of all parts."""
    return digest_of([digests[part] for part in PARTS])


def _of_features(prepared: Prepared) -> str:
    digest, spaces = _of_array(prepared.features), prepared.feature_spaces
    if spaces is None:
        return digest
    return digest_of([digest, {name: columns.start for name, columns in spaces.items()}])


def _of_array(array: NDArray) -> str:
    digest = sha256(repr(array.shape).encode())
    for rows in voxel_blocks(len(array), max(1, _BLOCK // max(array[:1].nbytes, 1))):
        digest.update(np.ascontiguousarray(array[rows]).data)
    return digest.hexdigest()[:_LENGTH]


def _of_columns(table: pd.DataFrame, names: Iterable[str]) -> str:
    columns = [table[name].astype(str).tolist() for name in names if name in table]
    return digest_of(columns)
