"""Numeric arrays from users' files."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from jne.errors import InputError
from jne.utils.hdf5 import check_own, open_hdf5
from jne.utils.machine import memory_bytes
from jne.utils.plain import regular_file
from jne.utils.reading import UNREADABLE

_MAX_GROWTH, _LARGE = 200, 2**30  # of numbers that are packed; zeros grow a thousandfold


def read_array(path: Path, key: str | None, config_key: str, key_key: str) -> NDArray:
    """A numeric array from a .npy (memory-mapped), .npz or HDF5 file. Nothing is unpickled.

    key: the dataset inside the file, if it has several. config_key, key_key: the config keys of the
    path and of the dataset, for error messages. Raises InputError for a file that cannot be read,
    holds anything but real numbers, takes them from elsewhere, or would have to be read whole and
    is larger than the memory, or so much larger than the file that there can be no data in it.
    """
    try:
        regular_file(path, key=config_key)
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as members, np.load(path, allow_pickle=False) as archive:
                name = _only(list(archive), key, path, key_key)
                is_array = f"{name}.npy" in members.namelist()
                member = members.getinfo(f"{name}.npy" if is_array else name)
                _check_size(member.file_size, member.compress_size, path, config_key)
                array = archive[name]
        elif path.suffix in (".h5", ".hdf5", ".hdf", ".mat"):
            with open_hdf5(path, config_key) as file:
                names: list[str] = []
                file.visititems(
                    lambda name, item: (
                        names.append(name) if isinstance(item, h5py.Dataset) else None
                    )
                )
                dataset = check_own(file[_only(names, key, path, key_key)], path, config_key)
                n_bytes = dataset.nbytes if dataset.size else 0  # None: without a shape
                stored = n_bytes if dataset.is_virtual else dataset.id.get_storage_size()
                _check_size(n_bytes, stored, path, config_key)
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
        if path.suffix == ".mat":
            reason += "; MATLAB writes HDF5 with save -v7.3"
        raise InputError(config_key, f"{path}: {reason}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(config_key, f"{path} is not an array of real numbers")
    return array


def _check_size(n_bytes: int, stored: int, path: Path, config_key: str) -> None:
    """Refuse an array that is read whole and does not fit: the system would end the process.

    And one that is hardly stored at all. stored: the bytes that it has in the file.
    """
    limit = memory_bytes()
    if n_bytes > limit:
        raise InputError(
            config_key,
            f"the array in {path} takes {n_bytes / 1e9:.1f} GB, but there are "
            f"{limit / 1e9:.1f} GB of memory; leave out of it what is not needed, or use a machine "
            f"with more memory",
        )
    if n_bytes > max(_LARGE, _MAX_GROWTH * stored):
        raise InputError(
            config_key,
            f"the array in {path} grows from {stored / 1e6:.1f} MB to {n_bytes / 1e9:.1f} GB when "
            f"it is read; if that is right, save it without compression",
        )


def _only(names: list[str], key: str | None, path: Path, key_key: str) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return key
    available = ", ".join(names) or "nothing"
    raise InputError(key_key, f"choose one dataset of {path}, which holds {available}", value=key)
