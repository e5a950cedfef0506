"""NSD's images in a folder, a zip or its HDF5 file, found by the numbers in their names."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jne.errors import InputError
from jne.features.images import Images

N_IMAGES = 73_000
"""NSD numbers its images from 0 to 72,999 (nsdId); 73KID, in the behavioural data, is 1 more."""
# How names give the number, and what is to be subtracted from it.
_NAMES = (
    (re.compile(r"(\d+)"), 0),  # 46002.png, and the rows of the HDF5 file
    (re.compile(r".*nsd-(\d+)"), 0),  # train-0001_nsd-00013.png: Algonauts
    (re.compile(r".*nsd(\d+)"), 1),  # shared0001_nsd02951.png: NSD's folder of shared images
)


def image_number(name: str) -> int | None:
    """The number of an image, from 0, by its file name; None where the name has none."""
    for pattern, first in _NAMES:
        match = pattern.fullmatch(Path(name).stem)
        if match:
            return int(match[1]) - first
    return None


def rows_of(images: Images, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the images with these numbers (N,) are among `images`: (N,).

    Raises InputError, naming `data.images`, where one of them is missing or there twice.
    """
    rows: dict[int, int] = {}
    for row, name in enumerate(images.names):
        number = image_number(name)
        if number is None:
            continue
        if number in rows or not 0 <= number < N_IMAGES:
            other = f"as {images.names[rows[number]]}" if number in rows else "which NSD has not"
            raise InputError(
                "data.images",
                f"{name} in {images.path} has the number {number}, {other}; numbers "
                f"count from 0, but from 1 after `nsd` without a hyphen",
            )
        rows[number] = row
    absent = [number for number in numbers.tolist() if number not in rows]
    if absent:
        raise InputError(
            "data.images",
            f"{images.path} holds {len(images)} images, but {len(absent)} of the "
            f"{len(numbers)} that the subject saw are missing, such as the number {absent[0]}, "
            f"which a file may have as {absent[0]:05d}.png or nsd-{absent[0]:05d}.png",
        )
    return np.array([rows[number] for number in numbers.tolist()])
