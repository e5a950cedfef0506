"""Which image each row shows: by its name, or by the order of names where there is only one."""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError
from jne.features.images import Images

_NUMBER = re.compile(r"(\d+)", re.ASCII)


def rows_by_name(images: Images, names: pd.Series, key: str) -> NDArray[np.int64]:
    """Where the named images (N,) are among `images`: (N,).

    key: the config key of the names. Raises InputError where a name is missing, or is not that of
    exactly one image.
    """
    index = pd.Index(images.names)
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise InputError("data.images", f"{images.path} holds two images called {twice}")
    rows = index.get_indexer(pd.Index(names))
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        name = names.iloc[absent[0]]
        which = f"says {name!r}" if name else "is empty"
        raise InputError(
            key,
            f"the column image {which} in row {absent[0]} counted from 0, but {images.path} has no "
            f"such image ({len(absent)} of {len(names)} rows); its first is {images.names[0]!r}",
        )
    return rows.astype(np.int64)


def check_one_order(images: Images, key: str, remedy: str) -> None:
    """Raise InputError where the names have one order as text and another by their numbers.

    key: what leads to the order. remedy: how to say which image each row shows.
    """
    text = images.names
    if text != sorted(text):  # rows of an HDF5 file
        return
    numbers = sorted(text, key=_natural)
    differing = [k for k, names in enumerate(zip(text, numbers, strict=True)) if len({*names}) > 1]
    if differing:
        k = differing[0]
        raise InputError(
            key,
            f"the names of the images in {images.path} have two orders: row {k}, counted from 0, "
            f"is {text[k]} as text and {numbers[k]} by the numbers in the names; {remedy}",
        )


def _natural(name: str) -> list[str | int]:
    """Text and numbers by turns, so that names are ordered by their numbers."""
    parts: list[str | int] = list(_NUMBER.split(name))
    parts[1::2] = map(int, parts[1::2])
    return parts
