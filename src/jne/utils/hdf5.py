"""HDF5 files that may be anybody's: their values must be in them, or in files beside them.

HDF5 itself would read any file of the machine as numbers, and zeros where a file is missing.
"""

from pathlib import Path
from typing import Any

import h5py

from jne.errors import InputError
from jne.utils.plain import regular_file


def open_hdf5(path: Path, key: str) -> Any:
    """An `h5py.File` to read from. Raises InputError, naming `key`, where it is no regular file."""
    return h5py.File(regular_file(path, key=key), "r")


def check_own(dataset: Any, path: Path, key: str) -> Any:
    """An `h5py.Dataset`, if its values are in the file `path` or in whole datasets beside it.

    Raises InputError, naming `key`, where they are elsewhere (external storage, a link to another
    file), and where the parts of a virtual dataset are missing.
    """
    name = dataset.name
    if dataset.external or Path(dataset.file.filename).resolve() != path.resolve():
        raise InputError(key, f"{path} has {name} in another file; copy the values into this one")
    if not dataset.is_virtual:
        return dataset
    n_values = 0
    for part in dataset.virtual_sources():
        source = path if part.file_name == "." else path.parent / part.file_name
        _check_source(part, source, f"{path} takes {name} from {source}", path.parent, key)
        n_values += part.vspace.get_select_npoints()
    if n_values != dataset.size:
        raise InputError(key, f"{path} has {name} in parts that leave gaps; write it as a whole")
    return dataset


def _check_source(part: Any, source: Path, takes: str, folder: Path, key: str) -> None:
    """Raise InputError where a part of a virtual dataset is not a whole dataset in the folder."""
    if not (source.is_file() and source.resolve().is_relative_to(folder.resolve())):
        raise InputError(key, f"{takes}, which is no file beside it")
    with h5py.File(source, "r") as file:
        values = file.get(part.dset_name)
        if not isinstance(values, h5py.Dataset) or values.is_virtual:
            raise InputError(key, f"{takes}, which has no {part.dset_name}")
        check_own(values, source, key)
        selected = part.src_space  # without a shape where it is the whole dataset
        if selected.get_select_type() == h5py.h5s.SEL_ALL:
            is_whole = values.size == part.vspace.get_select_npoints()
        else:
            is_whole = values.ndim == len(selected.shape) and all(
                n >= end for n, end in zip(values.shape, selected.shape, strict=True)
            )
        if not is_whole:
            raise InputError(key, f"{takes}, where {part.dset_name} has the shape {values.shape}")
