"""The images of LAION-fMRI that are out of distribution: 371 of nine kinds, which all people saw.

They are an external test set for encoders that were trained on other images of the person:
evaluate.py test=ood. Their trials are in the sessions of all others, and are z-scored with them.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.laion.labels import parse
from jne.data.laion.person import PersonSource
from jne.errors import InputError
from jne.utils.paths import File
from jne.utils.tables import read_table

_PLACES = ["i", "j", "k"]


class LaionOOD(PersonSource):
    """`test=ood`."""

    splits: ClassVar[tuple[str, ...]] = ("test",)

    voxel_table: File
    """A voxels.csv, whose voxels are read, in its order."""

    def input_files(self) -> list[Path]:
        return [*super().input_files(), self.voxel_table]

    def write(self, folder: Path) -> None:
        trials = self._trials()
        n_repeats = trials["label"].value_counts().sort_index()
        labels = {name: parse(name, "a trial") for name in n_repeats.index}
        names = [name for name, label in labels.items() if label.is_ood]
        stimuli = pd.DataFrame({"stimulus": names, "split": "test"})
        stimuli["n_repeats"] = n_repeats[names].to_numpy()
        stimuli["category"] = [labels[name].category for name in names]
        self._write(folder, trials, stimuli, *self._voxels())

    def _voxels(self) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The voxels of the table, with their places alone, and their numbers in the grid."""
        table = read_table(self.voxel_table)
        if not set(_PLACES) <= set(table):
            raise InputError("", f"{self.voxel_table} must have the columns i, j and k")
        places = table[_PLACES].to_numpy(dtype=np.int64).T
        shape = self._grid.shape
        if (places >= np.array(shape)[:, None]).any():
            raise InputError(
                "data.root", f"voxels of {self.voxel_table} are outside the volume {shape}"
            )
        return table[["voxel", "roi", *_PLACES]].copy(), np.ravel_multi_index(tuple(places), shape)
