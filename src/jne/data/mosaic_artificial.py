"""MOSAIC's artificial images: those of NSD-synthetic and of deeprecon, which no split has.

They are an external test set for encoders that were trained on the same subject's natural images:
evaluate.py test=mosaic_artificial.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import noise_ceiling
from jne.data.checks import check_stimuli
from jne.data.mosaic import stimuli
from jne.data.mosaic.files import open_subject
from jne.data.mosaic.subject import SubjectSource
from jne.data.prepared import write_prepared
from jne.errors import InputError
from jne.features.base import Features
from jne.features.precomputed import Precomputed
from jne.utils.fslr import N_GRAYORDINATES
from jne.utils.paths import File
from jne.utils.tables import read_table


class MosaicArtificial(SubjectSource):
    """`test=mosaic_artificial`."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    test_caveat: ClassVar[str] = (
        "Its responses are standardised by the natural images, so R² out also counts a shift or a "
        "scale between sessions as error, and r does not."
    )

    voxel_table: File
    """A voxels.csv, whose grayordinates are read, in its order."""

    def input_files(self) -> list[Path]:
        return [*super().input_files(), self.voxel_table]

    def write(self, folder: Path) -> None:
        with open_subject(self._file, self.dataset, self._subject) as file:
            trials = file.trials()
            table = stimuli.read_table(self._table)
            artificial = stimuli.artificial_table(trials, table, self._table)
            features = self.image_features.each(lambda space: self._features(space, artificial))
            check_stimuli(self, features, artificial)
            voxels = self._voxels()
            kept = voxels["voxel"].to_numpy(dtype=np.int64)
            noise = self._average(folder, file, trials, artificial, kept)
        voxels["n_invalid_trials"] = noise.n_invalid
        if len(noise.between_repeats):
            voxels["ncsnr"] = noise.ncsnr
            voxels["noise_ceiling"] = noise_ceiling(noise.ncsnr, noise.inverse)
        write_prepared(self, folder, features, None, artificial, voxels)
        (folder / "state.npz").unlink()

    def _features(self, space: Features, artificial: pd.DataFrame) -> NDArray[np.floating[Any]]:
        """(N, D), by the names of the files."""
        if isinstance(space, Precomputed):
            return space.of_stimuli(artificial["stimulus"].to_numpy(dtype=str))
        images = self.images()
        assert images is not None  # as input_files says
        rows = stimuli.rows_by_file(images, artificial, self.dataset)
        return space.extract(images, rows, len(images))

    def _voxels(self) -> pd.DataFrame:
        """The grayordinates of the table, with their numbers and ROIs alone."""
        table = read_table(self.voxel_table)
        number = pd.to_numeric(table["voxel"], errors="coerce")
        if not (number.between(0, N_GRAYORDINATES - 1) & (number % 1 == 0)).all():
            raise InputError("", f"{self.voxel_table} must hold numbers of grayordinates as voxel")
        return table[["voxel", "roi"]].copy()
