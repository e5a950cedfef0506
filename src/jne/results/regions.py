"""A file of sums over the voxels of each ROI: arrays by their names, and `roi` (K,), the ROIs'.

Nothing in it is an object. A union of ROIs is the sum of theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from jne.utils.files import atomic_file


class Sums(Protocol):
    """ShareSums, EvidenceSums."""

    def combined(self, sets: NDArray) -> Self: ...


S = TypeVar("S", bound=Sums)


@dataclass(frozen=True)
class RegionSums(Generic[S]):
    """The sums of ROIs. An empty name is that of voxels without a ROI."""

    rois: list[str]
    sums: S

    def save(self, path: Path) -> None:
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, roi=np.array(self.rois, dtype=str), **vars(self.sums))

    def unions(self, regions: Mapping[str, Sequence[str]]) -> S:
        """The sums of unions of ROIs, by their names."""
        members = [[roi in union for roi in self.rois] for union in regions.values()]
        return self.sums.combined(np.array(members, dtype=np.float64).reshape(-1, len(self.rois)))


def read_sums(path: Path, names: Iterable[str]) -> tuple[list[str], dict[str, NDArray]]:
    """ROIs, and the arrays of these names. Raises ValueError or KeyError for anything else."""
    with np.load(path, allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in names}
        rois = [str(name) for name in saved["roi"].reshape(-1)]
    if any(values.dtype.kind not in "iuf" for values in arrays.values()):
        raise ValueError("its arrays must hold numbers")
    return rois, arrays
