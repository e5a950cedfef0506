"""The volume that voxels with columns i, j, k are in: the file space.json of a results folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jne.errors import InputError
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import UNREADABLE


def read_space(folder: Path, voxels: pd.DataFrame) -> dict[str, Any] | None:
    """Shape and affine of the volume; None where the folder has no such file.

    Raises InputError where the file holds anything else, or a voxel is outside the volume.
    """
    path = folder / "space.json"
    if not path.exists():
        return None
    file = regular_file(path, folder)
    try:
        space: dict[str, Any] = read_json(file)
        shape = np.array(space["shape"], dtype=np.int64)
        affine = np.array(space["affine"], dtype=np.float64)
    except (KeyError, TypeError, OverflowError, *UNREADABLE) as error:
        raise _refusal(path) from error
    if shape.shape != (3,) or affine.shape != (4, 4) or (shape < 1).any():
        raise _refusal(path)
    axes = [axis for axis in ("i", "j", "k") if axis in voxels]
    if len(axes) == 3:
        indices = voxels[axes].to_numpy(dtype=np.float64)
        inside = (indices >= 0) & (indices < shape) & (indices == np.floor(indices))
        if not inside.all():
            table = folder / "voxels.csv"
            volume = shape.tolist()
            raise InputError("", f"{table} must hold columns i, j, k inside the volume {volume}")
    return space


def _refusal(path: Path) -> InputError:
    return InputError(
        "", f"{path} must hold `shape`, three sizes, and `affine`, four by four numbers"
    )
