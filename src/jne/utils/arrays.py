"""Numeric arrays from users' files."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.machine import memory_bytes
from jne.utils.reading import UNREADABLE


def read_array(path: Path, key: str | None, config_key: str, key_key: str) -> NDArray:
    """A numeric array from a .npy (memory-mapped), .npz or HDF5 file. Nothing is unpickled.

    key: the dataset inside the file, if it has several. config_key, key_key: the config keys of the
    path and of the dataset, for error messages. Raises InputError for a file that cannot be read,
    holds anything but real numbers, or would have to be read whole and is larger than the memory.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as members, np.load(path, allow_pickle=False) as archive:
                name = _only(list(archive), key, path, key_key)
                sizes = {member.filename: member.file_size for member in members.infolist()}
                _check_size(sizes.get(f"{name}.npy", 0), path, config_key)
                array = archive[name]
        elif path.suffix in (".h5", ".hdf5", ".hdf", ".mat"):
            with h5py.File(path, "r") as file:
                names: list[str] = []
                file.visititems(
                    lambda name, item: (
                        names.append(name) if isinstance(item, h5py.Dataset) else None
                    )
                )
                dataset = file[_only(names, key, path, key_key)]
                n_values = dataset.size or 0  # None: a dataset without a shape
                _check_size(n_values * dataset.dtype.itemsize, path, config_key)
                array = dataset[()]
        else:
            raise InputError(config_key, f"{path} is not a .npy, .npz or HDF5 file")
    except InputError:
        raise
    except UNREADABLE as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            reason = "it holds Python objects, which are never unpickled; save a numeric array"
        else:
            reason = f"it cannot be read ({' '.join(str(error).split())})"
        raise InputError(config_key, f"{path}: {reason}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(config_key, f"{path} is not an array of real numbers")
    return array


def _check_size(n_bytes: int, path: Path, config_key: str) -> None:
    """Refuse an array that is read whole and does not fit: the system would end the process."""
    limit = memory_bytes()
    if n_bytes > limit:
        raise InputError(
            config_key,
            f"the array in {path} takes {n_bytes / 1e9:.1f} GB, but there are "
            f"{limit / 1e9:.1f} GB of memory; leave out of it what is not needed, or use a machine "
            f"with more memory",
        )


def _only(names: list[str], key: str | None, path: Path, key_key: str) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return key
    found = ", ".join(names) or "nothing"
    raise InputError(key_key, f"choose one dataset of {path}, which holds {found}", value=key)
