"""LAION-fMRI's images: the bytes of encoded files in an HDF5 file, named by a table."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image

from jne.errors import InputError
from jne.features.images import Images
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.reading import reading

_GREY = (128, 128, 128)  # what the authors' own embeddings have behind transparent pixels
_FORMATS = ("JPEG", "PNG")


class LaionImages(Images):
    """Dataset `images` (n,) of bytes; row i is called as row i of the table says."""

    def __init__(self, path: Path, metadata: Path) -> None:
        self.path = path
        with reading(metadata, "data.root"):
            table = pd.read_csv(metadata, dtype=str, keep_default_na=False)
            if "image_name" not in table:
                raise InputError("data.root", f"{metadata} has no column image_name")
        self.names = table["image_name"].tolist()
        with reading(path, "data.root"):
            data = open_hdf5(path, "data.root").get("images")
        is_bytes = isinstance(data, h5py.Dataset) and h5py.check_vlen_dtype(data.dtype) == np.uint8
        if not is_bytes or data.ndim != 1:
            raise InputError("data.root", f"{path} has no dataset `images` of encoded images")
        if len(data) != len(self.names):
            raise InputError(
                "data.root",
                f"{path} has {len(data)} images, but {metadata.name} names {len(self.names)}",
            )
        self._data = check_own(data, path, "data.root")

    def _open(self, i: int) -> Image.Image:
        image: Image.Image = Image.open(io.BytesIO(self._data[i].tobytes()), formats=_FORMATS)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            grey = Image.new("RGBA", image.size, (*_GREY, 255))
            return Image.alpha_composite(grey, image)
        return image

    def fingerprint(self) -> list[Any]:
        with reading(self.path, "data.root"):
            stat = self.path.stat()
        return [self.names, stat.st_size, stat.st_mtime_ns]
