"""Files of tensors that may be anybody's: nothing but tensors and plain values is unpickled."""

import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jne.errors import InputError
from jne.utils.plain import check_plain, not_plain, regular_file

_MAX_PICKLE = 2**21  # what torch reads in a second; a checkpoint of 10,000 epochs has half of it


def load_tensors(path: Path, folder: Path | None = None, *, bounded: bool = True) -> dict[str, Any]:
    """The dict in a file that torch wrote: tensors, memory-mapped, and plain values.

    folder: in which the file must lie, see `regular_file`. bounded: whether the number of values
    beside the tensors is, for a file from elsewhere. Raises InputError where the file is missing,
    damaged or holds anything else, and for a tensor that is not dense, real and as large as its
    part of the file.
    """
    try:
        check_archive(regular_file(path, folder), _MAX_PICKLE if bounded else math.inf)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise InputError("", f"no such file: {path}") from error
    except InputError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        raise _unreadable(path) from error
    if not isinstance(content, dict):
        raise _unreadable(path)
    return check_plain(content, path, _refused, (str, int), _MAX_PICKLE if bounded else math.inf)


def check_archive(path: Path, max_pickle: float = math.inf) -> None:
    """Raise InputError for a file that is packed, which torch's are not: it could be endless.

    max_pickle: bytes of all that is no tensor. Files in torch's old format have no parts, and pass.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            is_long = part.filename.endswith("/data.pkl") and part.file_size > max_pickle
            if is_long or part.compress_type != zipfile.ZIP_STORED:
                raise _unreadable(path)


def _refused(value: Any) -> str:
    if not isinstance(value, Tensor):
        return not_plain(value)
    is_dense = (
        type(value) in (Tensor, nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )
    # A single number may be said to fill any shape.
    if is_dense and value.numel() * value.element_size() <= value.untyped_storage().nbytes():
        return ""
    return "a tensor that is not of real numbers, each of them in the file"


def is_scale(value: Any, size: int) -> bool:
    """Whether a value is a tensor (size,) of float32 or float64, as means and scales are."""
    if not isinstance(value, Tensor) or value.requires_grad:
        return False
    return value.shape == (size,) and value.dtype in (torch.float32, torch.float64)


def _unreadable(path: Path) -> InputError:
    return InputError("", f"{path} is not a readable file of weights")
