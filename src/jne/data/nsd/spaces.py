"""The spaces that NSD's betas come in: the volume of a subject, and the fsaverage surface.

Both classes have the same methods. A space numbers its voxels (or vertices); V of them are `kept`.
Session and map files are found in the folder of the betas, masks and ROIs below `data.root`.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.averaging.by_session import Betas, OpenSession
from jne.data.nifti import check_shape, open_image, read_values, reading_image
from jne.data.nsd.sessions import Hdf5Session, NiftiSession
from jne.errors import InputError
from jne.utils.reading import reading

HEMISPHERES = {"left": "lh", "right": "rh"}  # as the files call them
N_FSAVERAGE = 163_842
"""Vertices of a hemisphere."""


class Volume:
    """The grid (X, Y, Z) of func1pt8mm or func1mm, numbered in C order."""

    def __init__(self, root: Path, subject: str, name: str) -> None:
        self._folder = root / "nsddata" / "ppdata" / subject / name

    @cached_property
    def _mask(self) -> nib.Nifti1Image:
        """The brain mask. Every volume of the subject has its shape and affine."""
        return open_image(self.mask_files()[0])

    def brain(self) -> NDArray[np.bool_]:
        """Whether each voxel of the grid is in the brain."""
        return self.read_map(self.mask_files()) > 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """X, Y, Z."""
        return self._mask.shape

    def positions(self, kept: NDArray[np.int64]) -> pd.DataFrame:
        """Columns i, j, k."""
        return pd.DataFrame(dict(zip("ijk", np.unravel_index(kept, self._mask.shape), strict=True)))

    def geometry(self) -> dict[str, Any]:
        """The content of space.json."""
        return {"shape": list(self._mask.shape), "affine": self._mask.affine.tolist()}

    def session_files(self, betas: Path, session: int) -> list[Path]:
        """The file of a session; none where it was not downloaded."""
        names = [f"betas_session{session:02d}.{suffix}" for suffix in ("hdf5", "mat", "nii.gz")]
        return [betas / name for name in names if (betas / name).exists()][:1]

    def mean_image(self) -> NDArray[np.float64]:
        """The mean of the functional images (X, Y, Z). Raises InputError where it is not there."""
        return read_values(self._folder / "mean.nii.gz")

    def mask_files(self) -> list[Path]:
        """The files that say which voxels are in the brain."""
        return [self._folder / "brainmask.nii.gz"]

    def roi_files(self) -> dict[str, list[Path]]:
        """The files of each ROI set, for `read_map`: of both hemispheres, or else of each."""
        folder = self._folder / "roi"
        whole, halves = _roi_names(folder, ".nii.gz")
        return {
            name: [folder / f"{name}.nii.gz"]
            if name in whole
            else _both_hemispheres(folder, f"{name}.nii.gz")
            for name in sorted(whole | halves)
        }

    def map_files(self, betas: Path, name: str) -> list[Path]:
        """The files of a map in the folder of the betas, for `read_map`."""
        return [betas / f"{name}.nii.gz"]

    def read_map(self, files: list[Path]) -> NDArray[np.float64]:
        """A map over all voxels of the space, from a file, or from one per hemisphere.

        The labels of a hemisphere are -1 in the other one.
        """
        values = [read_values(file) for file in files]
        for file, value in zip(files, values, strict=True):
            check_shape(file, value.shape, self._mask.shape)
        return np.maximum.reduce(values).ravel()

    def order(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """The indices of `kept` by which its voxels come in the order that HDF5 files have them."""
        i, j, k = np.unravel_index(kept, self._mask.shape)
        return np.lexsort((i, j, k))

    def open_session(
        self, files: list[Path], n_trials: int, kept: NDArray[np.int64], unpacked: Path | None
    ) -> OpenSession:
        """unpacked: where a compressed file is unpacked to, to be read again; None: nowhere.

        Raises InputError where the file cannot be read or has another shape.
        """
        shape = (n_trials, *self._mask.shape[::-1])
        i, j, k = np.unravel_index(kept, self._mask.shape)
        if files[0].suffix in (".hdf5", ".mat"):
            return Hdf5Session(files[0], shape, (k, j, i))
        return NiftiSession(files[0], shape, (k, j, i), unpacked)


class Surface:
    """fsaverage: the vertices of the left hemisphere, then those of the right."""

    def __init__(self, root: Path) -> None:
        self._labels = root / "nsddata" / "freesurfer" / "fsaverage" / "label"

    def brain(self) -> NDArray[np.bool_]:
        """All vertices."""
        return np.ones(2 * N_FSAVERAGE, dtype=bool)

    def positions(self, kept: NDArray[np.int64]) -> pd.DataFrame:
        """Columns hemisphere, vertex and mesh."""
        hemisphere = np.array(list(HEMISPHERES))[kept // N_FSAVERAGE]
        vertex = kept % N_FSAVERAGE
        return pd.DataFrame({"hemisphere": hemisphere, "vertex": vertex, "mesh": "fsaverage"})

    def geometry(self) -> None:
        """None: a surface has no space.json."""

    def session_files(self, betas: Path, session: int) -> list[Path]:
        """The files of both hemispheres; none where the session was not downloaded."""
        name = f"betas_session{session:02d}.mgh"
        if not any((betas / f"{side}.{name}").exists() for side in HEMISPHERES.values()):
            return []
        return _both_hemispheres(betas, name)

    def mask_files(self) -> list[Path]:
        """None: all vertices are in the brain."""
        return []

    def roi_files(self) -> dict[str, list[Path]]:
        """The files of each ROI set, for `read_map`."""
        _, names = _roi_names(self._labels, ".mgz")
        return {name: _both_hemispheres(self._labels, f"{name}.mgz") for name in sorted(names)}

    def map_files(self, betas: Path, name: str) -> list[Path]:
        """The files of a map in the folder of the betas, for `read_map`."""
        return [betas / f"{side}.{name}.mgh" for side in HEMISPHERES.values()]

    def read_map(self, files: list[Path]) -> NDArray[np.float64]:
        """A map over all vertices, from the files of both hemispheres."""
        values = [read_values(file).ravel() for file in files]
        for file, hemisphere in zip(files, values, strict=True):
            check_shape(file, hemisphere.shape, (N_FSAVERAGE,))
        return np.concatenate(values)

    def order(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """The indices of `kept` by which its vertices come in the order that files have them."""
        return np.argsort(kept, kind="stable")

    def open_session(
        self, files: list[Path], n_trials: int, kept: NDArray[np.int64], unpacked: Path | None
    ) -> OpenSession:
        """Raises InputError where the files cannot be read or have another shape."""
        return _SurfaceSession(files, n_trials, kept)


class _SurfaceSession:
    """The file of each hemisphere, (vertices, 1, 1, n_trials), in percent signal change."""

    def __init__(self, files: list[Path], n_trials: int, kept: NDArray[np.int64]) -> None:
        self._files, self._n_trials, self._kept = files, n_trials, kept
        for file in files:
            check_shape(file, open_image(file).shape, (N_FSAVERAGE, 1, 1, n_trials))

    def read(self, chosen: slice) -> NDArray[Any]:
        kept = self._kept[chosen]
        betas = np.empty((len(kept), self._n_trials), dtype=np.float32)
        for side, file in enumerate(self._files):
            inside = np.flatnonzero(kept // N_FSAVERAGE == side)
            if len(inside):
                vertices = kept[inside] % N_FSAVERAGE
                first, last = vertices.min(), vertices.max()
                image = open_image(file)
                with reading_image(file):
                    values = np.asarray(image.dataobj[first : last + 1, 0, 0])
                betas[inside] = values[vertices - first]
        return betas

    def betas(self, raw: NDArray[Any]) -> Betas:
        """Floating point, so never saturated."""
        return np.ascontiguousarray(raw.T), np.zeros(len(raw), dtype=np.int64)


def _roi_names(folder: Path, suffix: str) -> tuple[set[str], set[str]]:
    """The ROI sets in a folder: with a file of both hemispheres, and with one of a hemisphere.

    Maps of probabilities are no ROI sets, nor are the hidden files that macOS adds.
    """
    with reading(folder, "data.root"):
        files = [path.name for path in folder.iterdir()] if folder.exists() else []
    whole: set[str] = set()
    halves: set[str] = set()
    for file in files:
        if file.endswith(suffix) and not file.startswith("."):
            name = file.removesuffix(suffix)
            half = name.removeprefix("lh.").removeprefix("rh.")
            if not half.startswith("probmap_"):
                (whole if half == name else halves).add(half)
    return whole, halves


def _both_hemispheres(folder: Path, name: str) -> list[Path]:
    """lh.NAME and rh.NAME. Raises InputError where one of them is missing."""
    files = [folder / f"{side}.{name}" for side in HEMISPHERES.values()]
    for file, other in zip(files, reversed(files), strict=True):
        if not file.exists():
            raise InputError("data.root", f"{other} is there, but {file.name} is missing beside it")
    return files
