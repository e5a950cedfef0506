"""Extracted features on disk.

One folder per model, weights, preprocessing, pooling (with cells: the grid) and set of images:

    features.npy  (n_images, L, D), or (n_images, D_0 + ... + D_last) where layers differ in width
    done.npy      (n_images,) bool: which images have their features in features.npy
    about.json    what the features are of; the folder's name has its digest
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jne.utils.files import make_folder, new_memmap, reserve, write_json, writing
from jne.utils.locks import locked_file
from jne.utils.reading import reading


def filled_cache(
    cache: Path,
    about: dict[str, Any],
    widths: list[int],
    rows: NDArray[np.int64],
    extract: Callable[[NDArray[np.int64]], Iterator[tuple[NDArray[np.int64], NDArray]]],
) -> NDArray:
    """Features (n_images, sum(widths)) in `cache`, memory-mapped, with all of `rows` filled in.

    about: what the features are, with `model`, `n_images` and `dtype`. extract: gives batches of
    the rows that are missing, with their features (n, sum(widths)). A batch is marked as done only
    after its features are written, so an interrupted extraction continues after its last whole
    batch. Raises InputError where the folder cannot be read or written.
    """
    n_images = about["n_images"]
    shape: tuple[int, ...] = (n_images, len(widths), widths[0])
    if len(set(widths)) > 1:
        about = about | {"widths": widths}
        shape = (n_images, sum(widths))
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = cache / f"{about['model'].replace('/', '-')}-{digest[:12]}"
    folder = make_folder(path, key="features.cache")
    with locked_file(folder / ".lock", key="features.cache"), writing(folder, "features.cache"):
        if not (folder / "about.json").exists():
            _new_array(folder / "features.npy", shape, about["dtype"])
            new_memmap(folder / "done.npy", (n_images,), np.bool_)
            write_json(folder / "about.json", about)  # last: both arrays are there
        with reading(folder, "features.cache"):
            array = np.load(folder / "features.npy", mmap_mode="r+")
            done = np.load(folder / "done.npy", mmap_mode="r+")
        columns = array.reshape(n_images, -1)  # a view
        for batch, features in extract(np.unique(rows[~done[rows]])):
            for row in batch:
                start = array.offset + int(row) * columns[row].nbytes
                reserve(folder / "features.npy", columns[row].nbytes, start)
            columns[batch] = features
            array.flush()
            done[batch] = True
            done.flush()
    return columns


def _new_array(path: Path, shape: tuple[int, ...], dtype: type | str) -> None:
    """Make an array of zeros, which takes no space on disk before it is written to."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
