"""What `JNERegressor.fit` is given, as it is trained on: float32, without voxels that have NaN."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jne.data.centring import LARGEST, centred
from jne.errors import InputError


def without_missing(y: ArrayLike) -> tuple[ArrayLike, NDArray[np.bool_]]:
    """Responses (N, V) with 0 in the voxels that have NaN, which so are constant; and which.

    A warning counts them. Where all voxels have NaN, and with y of another shape, nothing is
    changed: scikit-learn says what is wrong.
    """
    values = np.asarray(y)
    if values.ndim != 2 or values.dtype.kind != "f":
        return y, np.zeros(1 if values.ndim < 2 else values.shape[1], dtype=bool)
    missing = np.isnan(values).any(axis=0)
    if not missing.any() or missing.all():
        return y, np.zeros(len(missing), dtype=bool)
    warnings.warn(
        f"{missing.sum()} of {len(missing)} voxels have NaN in y: the others are trained, and "
        f"these have NaN as predictions, JNE and scores",
        stacklevel=3,
    )
    return np.where(missing, 0, values), missing


def as_float32(
    values: NDArray, argument: str
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Values (N, K) in float32, and their offset (K,). See `jne.data.centring`."""
    result, offset = centred(values)
    if np.abs(result).max() > LARGEST:
        raise InputError(argument, "holds values that are too large for float32; change its units")
    return result, offset


def check_varies(responses: NDArray[np.float32]) -> None:
    if not np.ptp(responses, axis=0).any():
        raise InputError(
            "y",
            f"constant over the {len(responses)} training stimuli, so that nothing can be "
            f"learned; give responses that vary",
        )
