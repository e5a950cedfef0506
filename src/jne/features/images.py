"""Images as they lie on disk: a folder, a zip or an HDF5 dataset, by number and by name."""

import io
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

import h5py
from PIL import Image, UnidentifiedImageError

from jne.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")


class Images(ABC):
    """Numbered images with a name each. Files are in the order of their sorted names."""

    path: Path
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> Image.Image:
        """Image i, RGB. Raises InputError, naming it, where it cannot be decoded."""
        try:
            return self._open(i).convert("RGB")
        except (OSError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
            raise InputError(
                f"images: {self.names[i]} in {self.path} cannot be read ({reason})"
            ) from error

    @abstractmethod
    def _open(self, i: int) -> Image.Image: ...

    @abstractmethod
    def fingerprint(self) -> list:
        """What tells these images from others, without reading them: plain JSON values."""


class FolderImages(Images):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = _image_names(file.name for file in path.iterdir() if file.is_file())

    def _open(self, i: int) -> Image.Image:
        return Image.open(self.path / self.names[i])

    def fingerprint(self) -> list:
        stats = [(self.path / name).stat() for name in self.names]
        return [
            [name, stat.st_size, stat.st_mtime_ns]
            for name, stat in zip(self.names, stats, strict=True)
        ]


class ZipImages(Images):
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"images: {path} is not a readable zip file") from error
        self.names = _image_names(self._archive.namelist())

    def _open(self, i: int) -> Image.Image:
        return Image.open(io.BytesIO(self._archive.read(self.names[i])))

    def fingerprint(self) -> list:
        return [[name, self._archive.getinfo(name).CRC] for name in self.names]


class Hdf5Images(Images):
    """A dataset (n, height, width, 3) of uint8, as NSD's imgBrick; names are the numbers."""

    def __init__(self, path: Path, dataset: str = "imgBrick") -> None:
        self.path = path
        try:
            self._data = h5py.File(path, "r")[dataset]
        except (OSError, KeyError) as error:
            raise InputError(f"images: {path} has no readable dataset {dataset}") from error
        shape, dtype = self._data.shape, self._data.dtype
        if len(shape) != 4 or shape[3] != 3 or dtype != "uint8":
            raise InputError(
                f"images: dataset {dataset} of {path} must be (n, height, width, 3) of uint8, "
                f"found {shape} of {dtype}"
            )
        self.names = [str(i) for i in range(shape[0])]

    def _open(self, i: int) -> Image.Image:
        return Image.fromarray(self._data[i])

    def fingerprint(self) -> list:
        stat = self.path.stat()
        return [list(self._data.shape), stat.st_size, stat.st_mtime_ns]


def open_images(path: Path) -> Images:
    """The container at `path`, by what it is. Raises InputError where it holds no images."""
    if path.is_dir():
        images: Images = FolderImages(path)
    elif path.suffix == ".zip":
        images = ZipImages(path)
    elif path.suffix in (".h5", ".hdf5"):
        images = Hdf5Images(path)
    else:
        raise InputError(f"images: {path} is not a folder, a .zip or an .hdf5 file of images")
    if not len(images):
        raise InputError(f"images: {path} holds no images")
    return images


def _image_names(names) -> list[str]:
    """In sorted order, without folders, hidden files and what a Mac adds."""
    return sorted(
        name
        for name in names
        if name.lower().endswith(_SUFFIXES)
        and not name.startswith("__MACOSX")
        and not Path(name).name.startswith(".")
    )
