"""Sessions of volume betas, from files of any layout, a few voxels at a time.

NSD's HDF5 files have one chunk per voxel: 700,000 chunks of 1.5 kB. To find and to transpose them
one by one takes HDF5 ten times as long as a disk takes to read them. Where chunks are stored as
they are, they are read from where they lie in the file; all other layouts are read by HDF5.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jne.data.averaging.by_session import Betas
from jne.data.nifti import check_shape, open_image, read_stored
from jne.utils.files import write_array
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.reading import reading

_PERCENT = 300  # volume betas are percent signal change times this, as int16
_SATURATED = np.iinfo(np.int16).max
_AT_ONCE = 2**22  # bytes of the file that are read at once
_GAP = 2**18  # bytes that are skipped rather than read

Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""z, y and x of V voxels, (V,) each."""


class _Volume:
    """A session whose betas are stored as `_PERCENT` times percent signal change."""

    def betas(self, raw: NDArray[Any]) -> Betas:
        """NaN for voxels that are 0 in every trial: outside the brain, or invalid here."""
        largest, smallest = raw.max(axis=1), raw.min(axis=1)
        betas = np.divide(raw, np.float32(_PERCENT)).astype(np.float32, copy=False)
        betas[(largest == 0) & (smallest == 0)] = np.nan
        saturated = np.zeros(len(raw), dtype=np.int64)
        some = np.flatnonzero((largest >= _SATURATED) | (smallest <= -_SATURATED))
        saturated[some] = (np.abs(raw[some].astype(np.int32)) >= _SATURATED).sum(axis=1)
        return np.ascontiguousarray(betas.T), saturated


class Hdf5Session(_Volume):
    """The dataset `betas` (n_trials, Z, Y, X) of a file.

    Raises InputError where the file cannot be read or has another shape.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], places: Places) -> None:
        self._path, self._n_trials = path, shape[0]
        with reading(path, "data.root"), open_hdf5(path, "data.root") as file:
            betas = check_own(file["betas"], path, "data.root")
            check_shape(path, betas.shape, shape)
            self._dtype, self._depth = betas.dtype, (betas.chunks or (0, 1))[1]
            offsets = _chunk_offsets(betas)
        # One of these: all sessions stay open, and both have V numbers.
        self._offsets = None if offsets is None else offsets[places]
        self._places = places if offsets is None else None

    def read(self, chosen: slice) -> NDArray[Any]:
        with reading(self._path, "data.root"):
            if self._places is not None:
                z, y, x = self._places
                return self._read_by_hdf5(z[chosen], y[chosen], x[chosen])
            assert self._offsets is not None
            return self._read_chunks(self._offsets[chosen])

    def _read_chunks(self, offsets: NDArray[np.int64]) -> NDArray[Any]:
        betas = np.empty((len(offsets), self._n_trials), self._dtype)
        n_bytes = betas.itemsize * self._n_trials
        order = np.argsort(offsets, kind="stable")
        apart = np.diff(offsets[order]) > _GAP
        apart |= np.diff(offsets[order] // _AT_ONCE) > 0
        buffer = np.empty(_AT_ONCE + n_bytes, dtype=np.uint8)
        with open(self._path, "rb", buffering=0) as file:
            for part in np.split(order, np.flatnonzero(apart) + 1):
                first = int(offsets[part[0]])
                size = int(offsets[part[-1]]) + n_bytes - first
                file.seek(first)
                if file.readinto(buffer.data[:size]) != size:
                    raise EOFError("it is cut short")
                # An item per position: the chunk that would begin there.
                windows: NDArray[Any] = np.ndarray(
                    (size - n_bytes + 1,), f"V{n_bytes}", buffer=buffer, strides=(1,)
                )
                chunks = windows[offsets[part] - first]
                betas[part] = chunks.view(betas.dtype).reshape(len(part), -1)
        return betas

    def _read_by_hdf5(
        self, z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> NDArray[Any]:
        betas = np.empty((len(z), self._n_trials), self._dtype)
        with open_hdf5(self._path, "data.root") as file:
            # Whole slices, as many as a chunk has: each chunk is read once.
            for start in np.unique(z // self._depth) * self._depth:
                slices = file["betas"][:, start : start + self._depth]
                part = np.flatnonzero((z >= start) & (z < start + self._depth))
                betas[part] = slices[:, z[part] - start, y[part], x[part]].T
        return betas


class NiftiSession(_Volume):
    """A compressed image (X, Y, Z, n_trials).

    It can only be read as a whole, so its V voxels are unpacked once, into the file `unpacked`.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], places: Places, unpacked: Path | None
    ) -> None:
        self._path, self._places, self._unpacked = path, places, unpacked
        check_shape(path, open_image(path).shape[::-1], shape)

    def read(self, chosen: slice) -> NDArray[Any]:
        if self._unpacked is None:
            return self._unpack()[chosen]
        if not self._unpacked.exists():
            write_array(self._unpacked, self._unpack())
        return np.array(np.load(self._unpacked, mmap_mode="r")[chosen])

    def _unpack(self) -> NDArray[Any]:
        volume = read_stored(self._path)  # (X, Y, Z, n_trials)
        z, y, x = self._places
        return volume[x, y, z]


def _chunk_offsets(dataset: Any) -> NDArray[np.int64] | None:
    """Where in the file the chunk of each voxel begins (Z, Y, X).

    None where a chunk is not the trials of a voxel as they are: there are several voxels in it, it
    is compressed, or it was never written.
    """
    one_voxel = (dataset.shape[0], 1, 1, 1)
    if dataset.chunks != one_voxel or dataset.id.get_create_plist().get_nfilters():
        return None
    if dataset.id.get_num_chunks() != np.prod(dataset.shape[1:]):
        return None
    offsets = np.empty(dataset.shape[1:], dtype=np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[1:]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return offsets
