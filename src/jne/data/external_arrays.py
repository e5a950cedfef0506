"""Users' own stimuli and responses as an external test set: evaluate.py test=arrays.

The voxels are those of the run, in the order of its voxels.csv.
"""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from jne.data.arrays import Arrays
from jne.errors import InputError
from jne.utils.paths import File
from jne.utils.tables import read_table


class ExternalArrays(Arrays):
    """`test=arrays`. Paths may be relative to `root`."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    test_caveat: ClassVar[str] = (
        "Its responses are standardised by the training stimuli, so R² out also counts a shift or "
        "a scale between recordings as error, and r does not."
    )

    voxel_table: File
    """The voxels.csv of a run."""

    def input_files(self) -> list[Path]:
        return [*super().input_files(), self.voxel_table]

    def _voxel_table(self, n_voxels: int) -> pd.DataFrame:
        table = read_table(self.voxel_table)
        if len(table) != n_voxels:
            raise InputError(
                "data.responses",
                f"{self.responses} has {n_voxels} voxels, but the run has {len(table)} "
                f"({self.voxel_table}); give one column for each, in that order",
            )
        return table[["voxel", "roi"]].copy()

    def _drawn_split(self, stimuli: pd.DataFrame) -> str:
        return "test"
