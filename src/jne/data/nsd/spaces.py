"""The spaces that NSD's betas come in: the volume of a subject, and the fsaverage surface.

Both classes have the same methods. A space numbers its voxels (or vertices); V of them are `kept`.
Session and map files are found in the folder of the betas, masks and ROIs below `data.root`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.reading import reading

HEMISPHERES = {"left": "lh", "right": "rh"}  # as the files call them
N_FSAVERAGE = 163_842
"""Vertices of a hemisphere."""
_PERCENT = 300  # volume betas are percent signal change times this, as int16
_SATURATED = np.iinfo(np.int16).max

Session = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Betas (n_trials, V) in percent signal change, and how many trials of each voxel are saturated."""


class Volume:
    """The grid (X, Y, Z) of func1pt8mm or func1mm, numbered in C order."""

    def __init__(self, root: Path, subject: str, name: str) -> None:
        self._folder = root / "nsddata" / "ppdata" / subject / name

    @cached_property
    def _mask(self) -> nib.Nifti1Image:
        """The brain mask. Every volume of the subject has its shape and affine."""
        return _open(self.mask_files()[0])

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
        return _values(self._folder / "mean.nii.gz")

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
        values = [_values(file) for file in files]
        for file, found in zip(files, values, strict=True):
            _check_shape(file, found.shape, self._mask.shape)
        return np.maximum.reduce(values).ravel()

    def read_session(self, files: list[Path], n_trials: int, kept: NDArray[np.int64]) -> Session:
        """Raises InputError where the files cannot be read or have another shape."""
        i, j, k = np.unravel_index(kept, self._mask.shape)
        betas = np.empty((n_trials, len(kept)), dtype=np.float32)
        saturated = np.zeros(len(kept), dtype=np.int64)
        for level, slab in self._slabs(files[0], n_trials, np.unique(k)):
            voxels = np.flatnonzero(k == level)
            raw = slab[:, j[voxels], i[voxels]]
            saturated[voxels] = (np.abs(raw.astype(np.int32)) >= _SATURATED).sum(axis=0)
            # Zero in every trial: outside the brain, or invalid in this session
            betas[:, voxels] = np.where(raw.any(axis=0), raw / np.float32(_PERCENT), np.nan)
        return betas, saturated

    def _slabs(
        self, path: Path, n_trials: int, levels: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Axial slices (n_trials, Y, X) of a session."""
        expected = (n_trials, *self._mask.shape[::-1])
        if path.suffix in (".hdf5", ".mat"):
            with reading(path, "data.root"), h5py.File(path, "r") as file:
                betas = file["betas"]
                _check_shape(path, betas.shape, expected)
                for level in levels:  # a chunk is one voxel: whole slices read each chunk once
                    yield int(level), betas[:, level]
        else:
            image = _open(path)
            _check_shape(path, image.shape[::-1], expected)
            with _reading(path):
                volume = np.asarray(image.dataobj.get_unscaled())  # (X, Y, Z, n_trials)
            for level in levels:
                yield int(level), volume[:, :, level].transpose(2, 1, 0)


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
        values = [_values(file).ravel() for file in files]
        for file, hemisphere in zip(files, values, strict=True):
            _check_shape(file, hemisphere.shape, (N_FSAVERAGE,))
        return np.concatenate(values)

    def read_session(self, files: list[Path], n_trials: int, kept: NDArray[np.int64]) -> Session:
        """Raises InputError where the files cannot be read or have another shape."""
        betas = np.empty((n_trials, len(kept)), dtype=np.float32)
        for side, file in enumerate(files):
            image = _open(file)
            _check_shape(file, image.shape, (N_FSAVERAGE, 1, 1, n_trials))
            vertices = np.flatnonzero(kept // N_FSAVERAGE == side)
            with _reading(file):
                values = np.asarray(image.dataobj)[:, 0, 0]  # already percent signal change
            betas[:, vertices] = values[kept[vertices] % N_FSAVERAGE].T
        return betas, np.zeros(len(kept), dtype=np.int64)  # floating point: never saturated


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
            raise InputError(f"data.root: {other} is there, but {file.name} is missing beside it")
    return files


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """`reading`, where nibabel reads: it raises many kinds of errors for damaged files."""
    with reading(path, "data.root"):
        try:
            yield
        except (ImageFileError, HeaderDataError, MGHError, TypeError, OverflowError) as error:
            raise OSError(error) from error


def _open(path: Path) -> Any:
    """An image, whose array nibabel reads when it is asked for."""
    with _reading(path):
        path.open("rb").close()  # nibabel itself reports a missing permission as an unknown format
        return nib.load(path)


def _values(path: Path) -> NDArray[np.float64]:
    """The array of an image."""
    image = _open(path)
    with _reading(path):
        return np.asarray(image.dataobj, dtype=np.float64)


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(f"data.root: {path} has shape {tuple(found)}, expected {tuple(expected)}")
