"""The volume that voxels are of: the grid of a mask, maps on it, an atlas of it."""

from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.nifti import check_shape, open_image, reading_image
from jne.errors import InputError
from jne.utils.user_tables import read_user_table

_TOLERANCE = 0.1  # mm, anywhere in the grid: headers round


class Grid:
    """The grid (X, Y, Z) of a mask, numbered in C order; all other files must have it.

    key: the config key that errors name.
    """

    def __init__(self, mask: Path, key: str = "data.root") -> None:
        self._mask, self._key = mask, key

    @cached_property
    def _image(self) -> nib.Nifti1Image:
        image = open_image(self._mask, self._key)
        if len(image.shape) != 3:
            raise InputError(
                self._key, f"{self._mask} has shape {image.shape}, expected three axes"
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

    def read(self, path: Path, key: str | None = None) -> NDArray[np.float64]:
        """A map (V,). Raises InputError, naming `key`, where it is on another grid."""
        image = self.open(path, key=key)
        with reading_image(path, key or self._key):
            return np.asarray(image.dataobj, dtype=np.float64).ravel()

    def open(
        self, path: Path, n_volumes: int | None = None, key: str | None = None
    ) -> nib.Nifti1Image:
        """An image on this grid, or several. Raises InputError where it is on another."""
        key = key or self._key
        image = open_image(path, key)
        more = () if n_volumes is None else (n_volumes,)
        check_shape(path, image.shape, (*self.shape, *more), key)
        if (np.abs(image.affine - self.affine) @ [*self.shape, 1] > _TOLERANCE).any():
            raise InputError(
                key,
                f"{path} has another affine than {self._mask.name}: its voxels are elsewhere",
            )
        return image


def regions_of(
    grid: Grid, kept: NDArray[np.int64], atlas: Path, labels: Path | None
) -> NDArray[np.str_]:
    """The region of each voxel (V,), from an atlas on the same grid; empty where it has 0.

    kept: (V,), the numbers of the voxels in the grid. labels: a table with the columns index and
    name, as BIDS and nilearn have it; without one, a region is called by its number. Raises
    InputError, naming `data.atlas` or `data.atlas_labels`.
    """
    values = grid.read(atlas, "data.atlas")[kept]
    index = np.where(np.isfinite(values), values, 0).astype(np.int64)
    if (index != np.nan_to_num(values)).any():
        raise InputError("data.atlas", f"{atlas} must hold whole numbers, one for each region")
    names = {0: ""}
    if labels is None:
        names |= {number: str(number) for number in np.unique(index).tolist() if number}
    else:
        table = read_user_table(labels, "data.atlas_labels")
        for column in ("index", "name"):
            if column not in table:
                raise InputError(
                    "data.atlas_labels",
                    f"{labels} has no column {column}; it needs index and name",
                )
        numbers = pd.to_numeric(table["index"], errors="coerce")
        if numbers.isna().any() or numbers.duplicated().any():
            raise InputError("data.atlas_labels", f"{labels}: index must be a number each")
        names = dict(zip(numbers.astype(int), table["name"].astype(str), strict=True)) | names
        unnamed = sorted(set(index.tolist()).difference(names))
        if unnamed:
            raise InputError(
                "data.atlas_labels", f"{labels} has no row for {unnamed[0]}, which is in {atlas}"
            )
    return np.array([names[number] for number in index.tolist()], dtype=str)
