"""Images in a folder, a zip or an HDF5 dataset, read by number; each has a name."""

import io
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
from PIL import Image, UnidentifiedImageError

from jne.errors import InputError
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.plain import regular_file
from jne.utils.reading import UNREADABLE, reading

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# PIL goes by the content. It would hand some other kinds to programs of the machine.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_MAX_BYTES = 2**28  # of a file in a zip, and of what HDF5 unpacks at once
_MAX_PIXELS = 89_478_485  # above which PIL warns
_MAX_IMAGES = 10_000_000
# PIL raises SyntaxError for some damaged files, zipfile RuntimeError for encrypted ones.
_UNDECODABLE = (*UNREADABLE, Image.DecompressionBombError, SyntaxError, RuntimeError)


class Images(ABC):
    """Numbered images, each with a name. Files are numbered in the order of their names."""

    path: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> Image.Image:
        """Image i in RGB. Raises InputError, naming the image, where it cannot be decoded."""
        try:
            image = self._open(i)
            if image.width * image.height > _MAX_PIXELS:  # PIL itself refuses twice as many
                raise ValueError(f"it has {image.width} x {image.height} pixels")
            return image.convert("RGB")
        except _UNDECODABLE as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
            raise InputError(
                "images", f"{self.names[i]} in {self.path} cannot be read ({reason})"
            ) from error

    @abstractmethod
    def _open(self, i: int) -> Image.Image: ...

    @abstractmethod
    def fingerprint(self) -> list[Any]:
        """Plain JSON values that differ between different images, found without decoding any."""


class FolderImages(Images):
    """The image files directly in a folder; where there are none, those in all folders below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, "images"):
            with os.scandir(path) as entries:  # many times faster than Path.iterdir
                self.names = _image_names(entry.name for entry in entries if entry.is_file())
            if not self.names:
                files = (file for file in path.rglob("*") if file.is_file())
                self.names = _image_names(file.relative_to(path).as_posix() for file in files)

    def _open(self, i: int) -> Image.Image:
        return Image.open(regular_file(self.path / self.names[i]), formats=_FORMATS)

    def fingerprint(self) -> list[Any]:
        with reading(self.path, "images"):
            stats = [os.stat(f"{self.path}/{name}") for name in self.names]
        return [
            [name, stat.st_size, stat.st_mtime_ns]
            for name, stat in zip(self.names, stats, strict=True)
        ]


class ZipImages(Images):
    """The image files of a zip archive, in all its folders."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, "images"):
            self._archive = zipfile.ZipFile(regular_file(path, key="images"))
        self.names = _image_names(self._archive.namelist())

    def _open(self, i: int) -> Image.Image:
        member = self._archive.getinfo(self.names[i])
        if member.file_size > _MAX_BYTES:
            raise ValueError(f"it has {member.file_size / 1e6:.0f} MB")
        return Image.open(io.BytesIO(self._archive.read(member)), formats=_FORMATS)

    def fingerprint(self) -> list[Any]:
        return [[name, self._archive.getinfo(name).CRC] for name in self.names]


class Hdf5Images(Images):
    """A dataset (n, height, width, 3) of uint8, such as NSD's imgBrick; names are the numbers."""

    def __init__(self, path: Path, dataset: str = "imgBrick") -> None:
        self.path = path
        with reading(path, "images"):
            data = open_hdf5(path, "images").get(dataset)
        if not isinstance(data, h5py.Dataset):
            raise InputError("images", f"{path} has no dataset {dataset}")
        if data.ndim != 4 or data.shape[3] != 3 or data.dtype != "uint8":
            raise InputError(
                "images",
                f"dataset {dataset} of {path} must be (n, height, width, 3) of uint8, "
                f"found {data.shape} of {data.dtype}",
            )
        check_own(data, path, "images")
        n_images, *size, _ = data.shape
        at_once = math.prod(data.chunks or (1, *size, 3))
        if n_images > _MAX_IMAGES or math.prod(size) > _MAX_PIXELS or at_once > _MAX_BYTES:
            raise InputError(
                "images", f"dataset {dataset} of {path} is too large ({data.shape}) to be images"
            )
        self._data = data
        self.names = [str(i) for i in range(len(data))]

    def _open(self, i: int) -> Image.Image:
        return Image.fromarray(self._data[i])

    def fingerprint(self) -> list[Any]:
        with reading(self.path, "images"):
            stat = self.path.stat()
        return [list(self._data.shape), stat.st_size, stat.st_mtime_ns]


def open_images(path: Path) -> Images:
    """The images at `path`: a folder, a .zip, or an .h5 or .hdf5 file.

    Raises InputError where it holds no images or cannot be read.
    """
    with reading(path, "images"):
        is_folder = path.is_dir()
    if is_folder:
        images: Images = FolderImages(path)
    elif path.suffix == ".zip":
        images = ZipImages(path)
    elif path.suffix in (".h5", ".hdf5"):
        images = Hdf5Images(path)
    else:
        raise InputError("images", f"{path} is not a folder, a .zip or an .hdf5 file of images")
    if not len(images):
        raise InputError("images", f"{path} holds no images")
    return images


def _image_names(names: Iterable[str]) -> list[str]:
    """The names of images, sorted, without hidden files and those that macOS adds."""
    return sorted(
        name
        for name in names
        if name.lower().endswith(_SUFFIXES)
        and not name.startswith("__MACOSX")
        and not name.rpartition("/")[2].startswith(".")
    )
