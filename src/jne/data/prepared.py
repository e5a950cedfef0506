"""The one on-disk format that every data source writes and everything after it reads.

    features.npy      (n_stimuli, n_features) float32
    responses.npy     (n_stimuli, n_voxels) float32, mean over repeats, NaN where there is none
    stimuli.csv       one row a stimulus: stimulus, split (train, val or test), category, ...
    voxels.csv        one row a voxel: voxel, roi, ncsnr, noise_ceiling, coordinates, truth, ...
    space.json        of a volume's voxels (columns i, j, k): its shape and affine
    provenance.json   the source, its settings and input files; written last: its presence says
                      that the folder is whole

Values are as measured; standardisation is fitted on the training rows when they are read.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from jne import __version__
from jne.errors import InputError
from jne.features.images import Images, open_images
from jne.utils.files import atomic_folder, write_array, write_json
from jne.utils.tables import read_table, write_table

SPLITS = ("train", "val", "test")
MIN_TEST_STIMULI = 3  # the fewest over which a spread of deviations says anything
_FORMAT = 2  # raise it when what a source writes for the same settings changes


class Source(BaseModel, ABC):
    """Where stimuli and responses come from. Its fields are the keys of its file in conf/data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resumable: ClassVar[bool] = False
    """Whether `write` goes on from what an interrupted one left in the folder."""
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""

    name: str
    """What the data set is called in the record."""
    subject: str

    def input_files(self) -> list[Path]:
        """The files read; a change of their size or date makes a new prepared folder."""
        return []

    @property
    def images_path(self) -> Path | None:
        """The folder or file of the images that the stimuli are; None where there is none."""
        return None

    def images(self) -> Images | None:
        """The images that the stimuli are, where there are any; column `image` names each."""
        return None if self.images_path is None else open_images(self.images_path)

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the two arrays and two tables into `folder`. Raises InputError on bad input."""


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, its arrays memory-mapped. Shapes as in the module's docstring."""

    folder: Path
    features: NDArray
    responses: NDArray
    stimuli: pd.DataFrame
    voxels: pd.DataFrame
    provenance: dict

    @property
    def space(self) -> dict | None:
        """{"shape": [X, Y, Z], "affine": (4, 4)} of a volume's voxels; None for all others."""
        path = self.folder / "space.json"
        return json.loads(path.read_text()) if path.exists() else None

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of a split, in the order of the stimulus table."""
        return np.flatnonzero(self.stimuli["split"].to_numpy() == split)


def prepare(source: Source, root: Path) -> Prepared:
    """The prepared folder of `source` below `root`: the one that is there, else a new one."""
    missing = [str(path) for path in source.input_files() if not path.exists()]
    if missing:
        raise InputError(f"data: no such file: {', '.join(missing)}")
    provenance = {
        "format": _FORMAT,
        "source": f"{type(source).__module__}.{type(source).__qualname__}",
        "settings": source.model_dump(mode="json"),
        "inputs": [
            {"file": str(path), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
            for path, stat in ((path, path.stat()) for path in source.input_files())
        ],
    }
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    folder = root / f"{_slug(source.name)}-{_slug(source.subject)}-{digest[:12]}"
    if not (folder / "provenance.json").exists():
        about = {"jne": __version__, "citation": source.citation, "licence": source.licence}
        with atomic_folder(folder, resume=source.resumable) as temporary:
            if temporary is not None:
                source.write(temporary)
                write_json(temporary / "provenance.json", about | provenance)
    return load(folder)


def load(folder: Path) -> Prepared:
    """Open a prepared folder. Raises InputError where it is not one."""
    if not (folder / "provenance.json").exists():
        raise InputError(f"data: {folder} is not a prepared folder: it has no provenance.json")
    return Prepared(
        folder=folder,
        features=np.load(folder / "features.npy", mmap_mode="r"),
        responses=np.load(folder / "responses.npy", mmap_mode="r"),
        stimuli=read_table(folder / "stimuli.csv"),
        voxels=read_table(folder / "voxels.csv"),
        provenance=json.loads((folder / "provenance.json").read_text()),
    )


def write_prepared(
    folder: Path,
    features: NDArray,
    responses: NDArray | None,
    stimuli: pd.DataFrame,
    voxels: pd.DataFrame,
) -> None:
    """Check and write. Raises InputError on what cannot be trained on.

    responses: None where responses.npy is already in the folder.
    """
    n_stimuli = len(stimuli) if responses is None else len(responses)
    if len(features) != n_stimuli:
        raise InputError(
            f"data.features has {len(features)} stimuli but data.responses has {n_stimuli}"
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise InputError(
            f"data.features: NaN or infinite values in {len(bad)} of {n_stimuli} stimuli, "
            f"the first in row {bad[0]} counted from 0"
        )
    counts = stimuli["split"].value_counts()
    if counts.get("test", 0) < MIN_TEST_STIMULI:
        raise InputError(
            f"data: {counts.get('test', 0)} test stimuli, but JNE needs at least "
            f"{MIN_TEST_STIMULI}; change data.n_test or data.split"
        )
    for split in ("train", "val"):
        if counts.get(split, 0) < 2:
            raise InputError(
                f"data: {counts.get(split, 0)} {split} stimuli, but at least 2 are needed; "
                f"change data.n_val, data.n_test or data.split"
            )
    write_array(folder / "features.npy", features.astype(np.float32))
    if responses is not None:
        write_array(folder / "responses.npy", responses.astype(np.float32))
    write_table(folder / "stimuli.csv", stimuli)
    write_table(folder / "voxels.csv", voxels)


def random_split(n: int, n_val: float, n_test: float, seed: int) -> NDArray[np.str_]:
    """(n,) train, val or test; sizes are shares (float) or numbers (int) of the n stimuli."""
    test, val = (round(size * n) if isinstance(size, float) else size for size in (n_test, n_val))
    if test + val >= n:
        raise InputError(
            f"data.n_test and data.n_val take {test} + {val} of {n} stimuli and leave none to "
            f"train on"
        )
    split = np.full(n, "train", dtype="<U5")
    order = np.random.default_rng(seed).permutation(n)
    split[order[:test]] = "test"
    split[order[test : test + val]] = "val"
    return split


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
