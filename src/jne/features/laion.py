"""The embeddings of images that LAION-fMRI is released with, found by the names of the images."""

from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError
from jne.features.base import Features, layer_of
from jne.features.images import Images
from jne.utils.arrays import read_array
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.paths import File
from jne.utils.progress import say
from jne.utils.reading import reading

_CORRECTED = datetime(2026, 9, 28, tzinfo=UTC)
# The images that files from before then are wrong for are among these.
_CONCERNED = "shared_4rep_OOD_"
_ARCHIVE = Path("archive", "embeddings", "v1")


class LaionEmbedding(Features):
    """`features=laion_clip` and so on: an HDF5 file with `embedding` (n, D), `image_ids` (n,) and
    `valid` (n,).
    """

    path: File

    def input_files(self) -> list[Path]:
        return [self.path]

    def extract(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray:
        if images is None:
            raise InputError("features", f"{self.name} needs the names of images", self.name)
        return self.of_stimuli(np.array(images.names)[rows])

    def of_stimuli(self, stimuli: NDArray[np.str_]) -> NDArray:
        """Features (N, D) of the images with these names (N,).

        Raises InputError where one is missing or is not valid. Says so where the file is from
        before the correction of images with transparent pixels, and some of these may be among
        `stimuli`.
        """
        array = read_array(self.path, "embedding", "features.path", "features.path")
        array = layer_of(array, self.one_layer, 0, "features", self.path)
        ids, valid = self._ids(len(array))
        index = pd.Index(ids)
        if not index.is_unique:
            raise InputError(
                "features.path", f"{self.path} has two rows of {index[index.duplicated()][0]}"
            )
        rows = index.get_indexer(pd.Index(stimuli))
        for names, complaint in (
            (stimuli[rows < 0], "lacks"),
            (stimuli[~valid[rows] & (rows >= 0)], "marks as not valid"),
        ):
            if len(names):
                raise InputError(
                    "features.path",
                    f"{self.path} {complaint} {len(names)} of {len(stimuli)} images, such as "
                    f"{names[0]}",
                )
        say(f"features   {self.path}: rows by image_ids", highlight=False, soft_wrap=True)
        if any(name.startswith(_CONCERNED) for name in stimuli) and self._is_old():
            say(
                f"features   {self.path} is from before the correction of 28 September 2026: of "
                f"116 images out of distribution it ignores that pixels are transparent; download "
                f"it again",
                style="yellow",
                soft_wrap=True,
            )
        return array[rows]

    def _ids(self, n: int) -> tuple[list[str], NDArray[np.bool_]]:
        """The image of each row, and whether the row is valid, (n,) each."""
        with reading(self.path, "features.path"), open_hdf5(self.path, "features.path") as file:
            stored = [file.get(name) for name in ("image_ids", "valid")]
            for name, item in zip(("image_ids", "valid"), stored, strict=True):
                if not isinstance(item, h5py.Dataset) or item.shape != (n,):
                    raise InputError(
                        "features.path", f"{self.path} must have {name} of shape ({n},)"
                    )
                check_own(item, self.path, "features.path")
            ids, valid = stored
            if h5py.check_string_dtype(ids.dtype) is None or valid.dtype != bool:
                raise InputError(
                    "features.path",
                    f"{self.path} must have text as image_ids, and true or false as valid",
                )
            return ids.asstr()[()].tolist(), valid[()]

    def _is_old(self) -> bool:
        """Whether the file is from before the correction, by its place, size or date.

        A copy with a new date, beside which there is no archive, is not noticed.
        """
        archived = self.path.parent.parent / _ARCHIVE / self.path.name
        with reading(self.path, "features.path"):
            status = self.path.stat()
            if self.path.parent.match(str(_ARCHIVE)):
                return True
            if archived.exists() and archived.stat().st_size == status.st_size:
                return True
        return datetime.fromtimestamp(status.st_mtime, UTC) < _CORRECTED
