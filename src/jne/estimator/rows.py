"""Which rows of what `JNERegressor.fit` is given validate."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jne.data.folds import Belonging
from jne.errors import InputError
from jne.estimator.parameters import Parameters
from jne.jacobian.measurement import FEWEST_STIMULI

FEWEST_TO_TRAIN = 2


def validation_rows(
    validation: ArrayLike | None, n: int, settings: Parameters, belonging: Belonging
) -> NDArray[np.int64]:
    """The rows to validate on, in increasing order."""
    if validation is None and belonging.groups is not None:
        n_parts = max(2, round(1 / settings.validation_fraction))
        _, rows = belonging.folds(np.arange(n), n_parts, settings.random_state)[0]
        if not FEWEST_STIMULI <= len(rows) <= n - FEWEST_TO_TRAIN:
            raise InputError(
                "groups", f"leave {n - len(rows)} of {n} stimuli to train on; give more groups"
            )
        return rows
    if validation is None:
        n_val = max(FEWEST_STIMULI, round(settings.validation_fraction * n))
        if n - n_val < FEWEST_TO_TRAIN:
            raise InputError(
                "validation_fraction",
                f"leaves {n - n_val} of {n} stimuli to train on, but training needs at least "
                f"{FEWEST_TO_TRAIN}",
                value=settings.validation_fraction,
            )
        order = np.random.default_rng(settings.random_state).permutation(n)
        return np.sort(order[:n_val])
    mask = _as_mask(np.asarray(validation), n)
    rows = np.flatnonzero(mask)
    if not FEWEST_STIMULI <= len(rows) <= n - FEWEST_TO_TRAIN:
        raise InputError(
            "validation",
            f"marks {len(rows)} of {n} stimuli, but at least "
            f"{FEWEST_STIMULI} must validate and {FEWEST_TO_TRAIN} train",
        )
    if (
        belonging.groups is not None
        and np.isin(belonging.groups[rows], belonging.groups[~mask]).any()
    ):
        raise InputError("validation", "marks some stimuli of a group, and not the others")
    return rows


def _as_mask(validation: NDArray, n: int) -> NDArray[np.bool_]:
    """(n,), from a mask or from row numbers."""
    if validation.shape == (n,) and validation.dtype == bool:
        return validation
    if validation.ndim != 1 or validation.dtype.kind not in "iu":
        raise InputError(
            "validation",
            f"must be a mask of the rows of X, ({n},) bool, or row numbers, found "
            f"{validation.shape} {validation.dtype}",
        )
    if len(validation) and not 0 <= validation.min() <= validation.max() < n:
        raise InputError("validation", f"row numbers must be from 0 to {n - 1}")
    if len(np.unique(validation)) < len(validation):
        raise InputError("validation", "names a row twice; a mask must be of dtype bool")
    return np.isin(np.arange(n), validation)


def belonging_of(groups: ArrayLike | None, n: int) -> Belonging:
    """Which of n stimuli belong together."""
    if groups is None:
        return Belonging()
    names = np.asarray(groups)
    if names.shape != (n,):
        raise InputError("groups", f"must have a value for each row of X, found {names.shape}")
    return Belonging(np.unique(names, return_inverse=True)[1].astype(np.int64))
