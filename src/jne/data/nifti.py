"""Images as nibabel reads them; a file that cannot be read is named in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.plain import regular_file
from jne.utils.reading import reading


@contextmanager
def reading_image(path: Path, key: str = "data.root") -> Iterator[None]:
    """`reading`, where nibabel reads: it raises many kinds of errors for damaged files."""
    with reading(path, key):
        try:
            yield
        except (ImageFileError, HeaderDataError, MGHError, TypeError, OverflowError) as error:
            raise OSError(error) from error


def open_image(path: Path, key: str = "data.root") -> Any:
    """An image, whose array nibabel reads when it is asked for."""
    with reading_image(path, key):
        # nibabel itself reports a missing permission as an unknown format
        regular_file(path, key=key).open("rb").close()
        return nib.load(path)


def check_shape(
    path: Path, shape: tuple[int, ...], expected: tuple[int, ...], key: str = "data.root"
) -> None:
    """Raise InputError where a file has another shape."""
    if tuple(shape) != tuple(expected):
        raise InputError(key, f"{path} has shape {tuple(shape)}, expected {tuple(expected)}")


def read_values(path: Path) -> NDArray[np.float64]:
    """The array of an image."""
    image = open_image(path)
    with reading_image(path):
        return np.asarray(image.dataobj, dtype=np.float64)


def read_stored(path: Path) -> NDArray[Any]:
    """The numbers of a compressed image (.nii.gz) as they are stored, before scaling.

    isal, where it is installed, unpacks twice as fast as Python's gzip.
    """
    image = open_image(path)
    with reading_image(path):
        try:
            igzip = import_module("isal.igzip")
        except ImportError:
            return np.asarray(image.dataobj.get_unscaled())
        with igzip.open(path) as file:
            image = type(image).from_file_map(type(image).make_file_map({"image": file}))
            return np.asarray(image.dataobj.get_unscaled())
