"""The volume of a person: its shape and affine, maps on it, and sessions of betas on it."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.averaging.by_session import Betas
from jne.data.nifti import check_shape, open_image, reading_image
from jne.errors import InputError
from jne.utils.files import atomic_file

_TOLERANCE = 0.1  # mm, anywhere in the grid: headers round


class Grid:
    """The grid (X, Y, Z) of a mask, numbered in C order; all files of a person have it."""

    def __init__(self, mask: Path) -> None:
        self._mask = mask

    @cached_property
    def _image(self) -> nib.Nifti1Image:
        image = open_image(self._mask)
        if len(image.shape) != 3:
            raise InputError(
                "data.root", f"{self._mask} has shape {image.shape}, expected three axes"
            )
        return image

    @property
    def shape(self) -> tuple[int, ...]:
        """X, Y, Z."""
        return tuple(self._image.shape)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4), to mm in the space of the person's T1w image."""
        return np.asarray(self._image.affine)

    def brain(self) -> NDArray[np.bool_]:
        """Whether each voxel (V,) of the grid is in the mask."""
        return self.read(self._mask) > 0

    def positions(self, kept: NDArray[np.int64]) -> pd.DataFrame:
        """Columns i, j, k."""
        return pd.DataFrame(dict(zip("ijk", np.unravel_index(kept, self.shape), strict=True)))

    def geometry(self) -> dict[str, Any]:
        """The content of space.json."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    def read(self, path: Path) -> NDArray[np.float64]:
        """A map (V,). Raises InputError where it is on another grid."""
        image = self.open(path)
        with reading_image(path):
            return np.asarray(image.dataobj, dtype=np.float64).ravel()

    def open(self, path: Path, n_volumes: int | None = None) -> nib.Nifti1Image:
        """An image on this grid, or several. Raises InputError where it is on another."""
        image = open_image(path)
        more = () if n_volumes is None else (n_volumes,)
        check_shape(path, image.shape, (*self.shape, *more))
        if (np.abs(image.affine - self.affine) @ [*self.shape, 1] > _TOLERANCE).any():
            raise InputError(
                "data.root",
                f"{path} has another affine than {self._mask.name}: its voxels are elsewhere",
            )
        return image


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
