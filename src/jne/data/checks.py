"""What a source checks before it writes: features, the sizes of the splits, room on the disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.centring import LARGEST
from jne.data.splits import check_split
from jne.errors import InputError
from jne.utils.spaces import FeatureArrays

if TYPE_CHECKING:
    from jne.data.prepared import Source


def check_stimuli(source: "Source", features: FeatureArrays, stimuli: pd.DataFrame) -> None:
    """Raise InputError where features are not finite or a split has too few stimuli.

    Finite are features within the range of float32, with room for differences. `write_prepared`
    calls it; a source that reads responses for a long time calls it before that.
    """
    spaces = features if isinstance(features, Mapping) else {"": features}
    for name, array in spaces.items():
        _check_numbers(source, array, f" of the space {name}" if name else "")
    check_split(stimuli["split"], source, source.splits)


def _check_numbers(source: "Source", features: NDArray, space: str) -> None:
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    what = "NaN or infinite values"
    if not len(bad):
        limit = np.float64(LARGEST)  # a Python number would have to fit into float16
        bad = np.flatnonzero((features < -limit).any(axis=1) | (features > limit).any(axis=1))
        what = f"values beyond {LARGEST:g}, too large for float32 (change their units),"
    if len(bad):
        key = "data.features" if getattr(source, "features", None) is not None else "features"
        raise InputError(
            key,
            f"{what} in {len(bad)} of {len(features)} stimuli{space}, the first in row {bad[0]} "
            f"counted from 0",
        )


def check_disk(folder: Path, subject: str, n_bytes: float) -> None:
    """Raise InputError where the prepared data, some of which may be there, do not fit."""
    occupied = sum(path.stat().st_blocks * 512 for path in folder.glob("**/*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if free + occupied < n_bytes:
        raise InputError(
            "output",
            f"preparing {subject} needs {n_bytes / 1e9:.1f} GB at {folder}, where "
            f"{free / 1e9:.1f} GB are free",
        )
