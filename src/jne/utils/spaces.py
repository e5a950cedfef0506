"""Feature spaces: which columns of the features (N, D) belong to which, by name."""

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from jne.errors import InputError

FeatureArrays = NDArray | dict[str, NDArray]
"""Features (N, D) of one space; or of several, by their names."""
_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)  # they become part of keys and metrics


def check_spaces(spaces: Mapping[str, slice] | None, n_features: int) -> dict[str, slice]:
    """The spaces with plain bounds; none for None.

    Raises InputError unless they follow one another, from the first to the last of the features.
    """
    checked: dict[str, slice] = {}
    start = 0
    for name, columns in (spaces or {}).items():
        begin, stop, step = columns.indices(n_features)
        if begin != start or stop <= start or step != 1 or (columns.stop or 0) > n_features:
            raise InputError(
                "spaces",
                f"{name!r} must be a slice that begins at column {start} of the {n_features} "
                f"features, where the space before it ends, found {columns}",
            )
        checked[name] = slice(start, stop)
        start = stop
    if checked and start < n_features:
        raise InputError("spaces", f"must cover all {n_features} features, but end at {start}")
    return checked


def check_names(names: Iterable[str], key: str) -> None:
    """Raise InputError, naming `key`, where a name is not one word of letters, digits, _ and -."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(key, f"the name of a feature space must be one word, found {name!r}")


def named(name: str, features: FeatureArrays) -> dict[str, NDArray]:
    """Features by the name of their space; of several layers NAME_layer_3 and so on."""
    if isinstance(features, Mapping):
        return {f"{name}_{layer}": array for layer, array in features.items()}
    return {name: features}


def cell_names(grid: int) -> list[str]:
    """The spaces of the cells of a grid over an image, `cell_ROW_COLUMN` from 1, row after row."""
    return [f"cell_{row + 1}_{column + 1}" for row in range(grid) for column in range(grid)]


def grid_of(names: Iterable[str]) -> int | None:
    """How many rows and columns the grid has whose cells are these spaces; None for others."""
    names = list(names)
    grid = math.isqrt(len(names))
    return grid if grid > 1 and names == cell_names(grid) else None


def joined(features: FeatureArrays) -> tuple[NDArray, dict[str, int] | None]:
    """Features as one matrix (N, D), and the number of columns of each space, in their order.

    None where there is one space. Raises InputError where spaces have other numbers of rows.
    """
    if not isinstance(features, Mapping):
        return features, None
    rows = {name: len(array) for name, array in features.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} of {n}" for name, n in rows.items())
        raise InputError("data.features", f"spaces of different numbers of stimuli: {listed}")
    matrix = np.concatenate(list(features.values()), axis=1)
    if len(features) == 1:
        return matrix, None
    return matrix, {name: array.shape[1] for name, array in features.items()}
