"""Sessions of betas on the volume of a person."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from jne.data.averaging.by_session import Betas
from jne.data.nifti import reading_image
from jne.data.volume import Grid
from jne.utils.files import atomic_file


class Session:
    """The betas (X, Y, Z, n_trials) of a session.

    A compressed file can only be read forwards, so its V voxels are unpacked once, volume by
    volume, into the file `unpacked`: (n_trials, V) float32, without a header. It is not mapped, or
    all of it would count as memory.
    """

    def __init__(
        self, path: Path, n_trials: int, grid: Grid, kept: NDArray[np.int64], unpacked: Path
    ) -> None:
        self._path, self._n_trials, self._unpacked = path, n_trials, unpacked
        self._places = np.unravel_index(kept, grid.shape)
        grid.open(path, n_trials)

    def read(self, chosen: slice) -> NDArray[np.float32]:
        if not self._unpacked.exists():
            with atomic_file(self._unpacked) as temporary, open(temporary, "wb") as file:
                for volume in self._volumes():
                    file.write(volume[self._places].astype(np.float32).data)
        n_voxels = len(self._places[0])
        start, stop, _ = chosen.indices(n_voxels)
        trials = np.empty((self._n_trials, stop - start), dtype=np.float32)
        with open(self._unpacked, "rb", buffering=0) as file:
            for number, trial in enumerate(trials):
                file.seek(4 * (number * n_voxels + start))
                file.readinto(trial.data)
        return trials.T

    def betas(self, raw: NDArray[np.float32]) -> Betas:
        """Floating point, so never saturated."""
        return np.ascontiguousarray(raw.T), np.zeros(len(raw), dtype=np.int64)

    def _volumes(self) -> Iterator[NDArray]:
        """The volumes (X, Y, Z) one after the other, scaled as the file says."""
        with reading_image(self._path):
            betas = nib.load(self._path, keep_file_open=True).dataobj  # or each would begin anew
            for trial in range(self._n_trials):
                yield np.asarray(betas[..., trial])
