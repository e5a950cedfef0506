"""Features from a file, and the rule that finds the row of each stimulus in it."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.errors import InputError
from jne.features.base import Features, layer_of, not_given
from jne.features.images import Images
from jne.features.pairing import check_one_order
from jne.utils.arrays import read_array
from jne.utils.paths import File
from jne.utils.progress import console
from jne.utils.user_tables import read_user_table


class Precomputed(Features):
    """`features=precomputed`: an array (n, D) or (n, L, D), one row per stimulus."""

    path: File
    key: str | None
    """The dataset inside an HDF5 or .npz file; needed where the file has several."""
    first_layer: int
    """1 where the array starts at the first block, 0 where it starts at the embedding."""
    ids: Literal["sorted"] | File | None = Field(default=None, exclude_if=not_given)
    """The stimulus of each row: a CSV with a column `stimulus`, or a .npy file of numbers.
    `sorted`: there is one row per stimulus of these data, in their order, which is ascending."""

    def input_files(self) -> list[Path]:
        return [path for path in (self.path, self._ids_file) if path is not None]

    @property
    def _ids_file(self) -> Path | None:
        return None if self.ids == "sorted" else self.ids

    def extract(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray:
        """Features (len(rows), D) of the images with the numbers `rows`, of which there are n.

        Without `ids`, row i belongs to image i, and there must be n rows. With `ids`, these are
        the images' names, or their numbers where there are no images.
        """
        stimuli = np.arange(n) if images is None else np.array(images.names)
        if self._ids_file is not None:
            return self.of_stimuli(stimuli[rows])
        if images is not None:
            check_one_order(images, "features.ids", "give the image of each row of features by it")
        return self.of_stimuli(stimuli, own_order=True)[rows]

    def of_stimuli(
        self, stimuli: NDArray, *, n_numbered: int | None = None, own_order: bool = False
    ) -> NDArray:
        """Features (N, D) of stimuli with these ids (N,), in their order; prints the rule used.

        Of the dtype of the file, which may hold more than float32 does.

        n_numbered: the number of all stimuli, if the ids number them from 0; an array of that many
        rows is indexed by id. own_order: whether an array of N rows can only be these stimuli's.
        Raises InputError where no rule says which row belongs to which stimulus.
        """
        array = read_array(self.path, self.key, "features.path", "features.key")
        array = layer_of(array, self.one_layer, self.first_layer, "features", self.path)
        rows, rule = self._rows(len(array), stimuli, n_numbered, own_order)
        console.print(
            f"features   {self.path}: {rule}", markup=False, highlight=False, soft_wrap=True
        )
        return array[rows]

    def _rows(
        self, n_rows: int, stimuli: NDArray, n_numbered: int | None, own_order: bool
    ) -> tuple[NDArray[np.int64], str]:
        """The row of each stimulus (N,), and how it was found."""
        n, in_order = len(stimuli), np.arange(len(stimuli))
        has = f"{self.path} has {n_rows} rows"
        if self.ids == "sorted":
            if n_rows != n:
                raise InputError(
                    "features.path",
                    f"{has}, but there are {n} images; features.ids=sorted needs one row each",
                )
            return in_order, f"row i is the i-th of the {n} images (features.ids=sorted)"
        if self._ids_file is not None:
            ids = _read_ids(self._ids_file)
            if len(ids) != n_rows:
                raise InputError(
                    "features.path", f"{has}, but features.ids={self.ids} has {len(ids)} ids"
                )
            rows = _find(stimuli, ids, n_numbered, self._ids_file)
            return rows, f"rows by the ids in {self.ids}"
        if n_numbered is not None and n_rows == n_numbered:
            return stimuli, f"row i is the image with the number i, of {n_numbered}"
        if own_order and n_rows == n:
            return in_order, f"row i is the i-th of the {n} images"
        if own_order:
            raise InputError(
                "features.path",
                f"{has}, but there are {n} images; say by features.ids which image each row "
                f"belongs to",
            )
        numbered = "give the images' names"
        if n_numbered is not None:
            numbered = (
                f"give {n_numbered} rows, one per image by its number from 0; or the images' "
                f"numbers"
            )
        raise InputError(
            "features.path",
            f"{has}, and nothing says to which images they belong: {numbered} in features.ids; or "
            f"features.ids=sorted if they belong to this subject's {n} images in ascending order",
        )


def _read_ids(path: Path) -> NDArray:
    """The id of each row of the features, as it is in the file."""
    if path.suffix not in (".csv", ".npy"):
        raise InputError("features.ids", f"{path} is neither a .csv nor a .npy file, nor `sorted`")
    if path.suffix == ".npy":
        ids = read_array(path, None, "features.ids", "features.ids")
        if ids.ndim != 1:
            raise InputError("features.ids", f"{path} must be one list of ids, found {ids.shape}")
        return ids
    table = read_user_table(path, "features.ids")
    if "stimulus" not in table:
        columns = ", ".join(map(str, table))
        raise InputError("features.ids", f"{path} has no column `stimulus`; it has {columns}")
    return table["stimulus"].to_numpy()


def _find(stimuli: NDArray, ids: NDArray, n_numbered: int | None, path: Path) -> NDArray[np.int64]:
    """Where each stimulus (N,) is among the ids of the file: (N,)."""
    if stimuli.dtype.kind == "U":
        ids = ids.astype(str)
    else:
        numbers = pd.to_numeric(pd.Series(ids), errors="coerce").to_numpy(dtype=np.float64)
        if not (numbers == np.rint(numbers)).all():
            raise InputError("features.ids", f"{path} must hold whole numbers")
        ids = numbers.astype(np.int64)
    unknown = ids[(ids < 0) | (ids >= n_numbered)] if n_numbered is not None else ids[:0]
    if len(unknown):
        raise InputError(
            "features.ids",
            f"{path} has the number {unknown[0]}, but the {n_numbered} images are numbered from 0",
        )
    index = pd.Index(ids)
    if not index.is_unique:
        repeated = ids[index.duplicated()][0]
        raise InputError("features.ids", f"{path} has several rows of the stimulus {repeated}")
    rows = index.get_indexer(pd.Index(stimuli))
    absent = stimuli[rows < 0]
    if len(absent):
        hint = "; numbers count from 0" if stimuli.dtype.kind == "i" else ""
        raise InputError(
            "features.ids",
            f"{path} lacks {len(absent)} of {len(stimuli)} stimuli, such as {absent[0]}{hint}",
        )
    return rows.astype(np.int64)
