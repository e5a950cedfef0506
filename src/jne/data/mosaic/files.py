"""MOSAIC's HDF5 file of a subject: its layout, checked when it is opened, and its trials.

Layout as written by github.com/blahner/mosaic-preprocessing (create_hdf5_pkl.py). Each trial is a
dataset of 91,282 grayordinates in the group `betas`, called
sub-XX_SET_stimulus-STEM_phase-PHASE_rep-K, with the attributes phase, repetition and
presented_stimulus_filename.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.mosaic.catalogue import DATA_SETS
from jne.errors import InputError
from jne.utils.fslr import N_GRAYORDINATES
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.reading import reading

_FOLDER = Path("fMRIPrepv23_2_0", "task_fMRI", "betas", "GLMsinglev1_2")  # in the bucket
_LAYOUT = "this is not the layout that data=mosaic knows (docs/data.md)"
_ATTRIBUTES = ("phase", "repetition", "presented_stimulus_filename")


def subject_file(root: Path, name: str, subject: str) -> Path:
    """The file of a subject: in the bucket's folders or directly in `root`, under either name.

    Raises InputError, naming `data.root`, where there is none or more than one.
    """
    stem = f"{subject}_{name}"
    folders = (root / _FOLDER / DATA_SETS[name].long, root)
    with reading(root, "data.root"):
        paths = [
            path
            for folder in folders
            for pattern in (f"{stem}.hdf5", f"{stem}_crc32-*.hdf5")
            for path in sorted(folder.glob(pattern))
        ]
    if not paths:
        raise InputError(
            "data.root",
            f"no {stem}.hdf5 in it or in its folder {_FOLDER / DATA_SETS[name].long}",
            value=root,
        )
    if len(paths) > 1:
        raise InputError("data.root", f"both {paths[0]} and {paths[1]} are there; keep one of them")
    return paths[0]


class SubjectFile:
    """An open file. Raises InputError, naming `data.root`, for any other layout."""

    def __init__(self, path: Path, file: h5py.File, name: str, subject: str) -> None:
        self.path, self._prefix = path, f"{subject}_{name}"
        self._file = file
        self._check_root(DATA_SETS[name].long, subject)

    def _check_root(self, long: str, subject: str) -> None:
        betas, listed = self._file.get("betas"), self._file.get("nan_indices_all")
        if not isinstance(betas, h5py.Group) or not len(betas):
            self._refuse("has no group `betas` with trials")
        if not isinstance(listed, h5py.Dataset) or listed.dtype.kind not in "iu":
            self._refuse("has no dataset `nan_indices_all` of integers")
        check_own(listed, self.path, "data.root")
        self.listed_invalid: NDArray[np.int64] = np.asarray(listed, dtype=np.int64).ravel()
        """The grayordinates that the file says are not defined in some trial."""
        if ((self.listed_invalid < 0) | (self.listed_invalid >= N_GRAYORDINATES)).any():
            self._refuse(f"has a number in `nan_indices_all` that is not below {N_GRAYORDINATES}")
        owner = (
            _text(self._file.attrs.get("dataset_name")),
            _text(self._file.attrs.get("subjectID")),
        )
        # The participant tables and this attribute call THINGS THINGS_fmri; the folders do not.
        if owner[0].removesuffix("_fmri") != long or owner[1] != subject:
            self._refuse(
                f"is of {owner[1] or 'nobody'} of {owner[0] or 'no data set'} by its attributes "
                f"subjectID and dataset_name, expected {subject} of {long}"
            )

    def trials(self) -> pd.DataFrame:
        """One row per trial: key, stimulus (the name of its file), phase, repetition."""
        with reading(self.path, "data.root"):
            betas = self._file["betas"]
            # Not .items(): left by an exception, it keeps h5py's lock while the traceback lives
            rows = [self._trial(key, betas[key]) for key in list(betas)]
        return pd.DataFrame(rows)

    def _trial(self, key: str, item: Any) -> dict[str, Any]:
        if not isinstance(item, h5py.Dataset) or item.shape != (N_GRAYORDINATES,):
            shape = getattr(item, "shape", "a group")
            self._refuse(f"has the trial {key} of shape {shape}, expected ({N_GRAYORDINATES},)")
        if item.dtype not in (np.float32, np.float64):
            self._refuse(f"has the trial {key} of {item.dtype}, expected float32 or float64")
        check_own(item, self.path, "data.root")
        attributes = item.attrs
        absent = [name for name in _ATTRIBUTES if name not in attributes]
        if absent:
            self._refuse(f"has the trial {key} without the attribute {absent[0]}")
        stimulus, phase = (
            _text(attributes["presented_stimulus_filename"]), _text(attributes["phase"])
        )  # fmt: skip
        repetition = attributes["repetition"]
        expected = (
            f"{self._prefix}_stimulus-{PurePosixPath(stimulus).stem}_phase-{phase}_rep-{repetition}"
        )
        if key != expected or phase not in ("train", "test"):
            self._refuse(f"has the trial {key}, which by its attributes should be {expected}")
        return {
            "key": key,
            "stimulus": stimulus,
            "phase": phase,
            "repetition": int(repetition),
        }

    def read(self, keys: Iterable[str], kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """Trials (n, V) at the grayordinates `kept` (V,)."""
        with reading(self.path, "data.root"):
            return np.stack([self._file["betas"][key][()][kept] for key in keys]).astype(np.float64)

    def noise_ceiling(self) -> NDArray[np.float64]:
        """The stored ceiling (91282,) of averages over the repeats of test stimuli, from 0 to 1."""
        name = f"{self._prefix}_phase-test_n-avg_noiseceiling"
        with reading(self.path, "data.root"):
            stored = self._file.get(f"noiseceilings/{name}")
            if stored is None:
                raise InputError(
                    "data.noise_ceiling",
                    f"{self.path} has no {name}; choose data.noise_ceiling=repeats",
                    value="stored",
                )
            if stored.shape != (N_GRAYORDINATES,):
                self._refuse(f"has {name} of shape {stored.shape}, expected ({N_GRAYORDINATES},)")
            check_own(stored, self.path, "data.root")
            percent = np.asarray(stored, dtype=np.float64)
        if np.nanmin(percent, initial=0) < 0 or np.nanmax(percent, initial=0) > 100:
            self._refuse(f"has {name} with values outside 0 to 100 percent")
        return percent / 100

    def _refuse(self, what: str) -> None:
        raise InputError("data.root", f"{self.path} {what}; {_LAYOUT}")


@contextmanager
def open_subject(path: Path, name: str, subject: str) -> Iterator[SubjectFile]:
    """The file of a subject, open. Raises InputError for one that cannot be read."""
    with reading(path, "data.root"):
        file = open_hdf5(path, "data.root")
    with file:
        yield SubjectFile(path, file, name, subject)


def _text(value: Any) -> str:
    """An attribute as text, in whichever of HDF5's two kinds of strings it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
