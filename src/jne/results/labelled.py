"""A results folder as one xarray.Dataset, whose axes have names and labels.

Dimensions are stimulus (the test stimuli), voxel and feature. The stimulus table, and of the voxel
table all columns up to `status`, are coordinates; one that has the name of something else gets
`stimulus_` or `voxel_` before it. What was measured per voxel (r2, jne, ...) and the arrays
(responses, predictions, deviation, gain, jne_ss, features) are variables; the arrays stay on disk,
memory-mapped.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.columns import JACOBIAN, SQUARED, find
from jne.errors import InputError

if TYPE_CHECKING:
    import xarray

    from jne.results.reader import Results

_RESPONSE = "standard deviations of the response over the training stimuli"
_ARRAYS: dict[str, tuple[str, str]] = {
    "features": ("feature", "standard deviations of the feature over the training stimuli"),
    "responses": ("voxel", _RESPONSE),
    "predictions": ("voxel", _RESPONSE),
    "deviation": ("voxel", JACOBIAN),
    "gain": ("voxel", "1"),
    "jne_ss": ("voxel", SQUARED),
}
"""Each array's second dimension, and its units."""
_FACTS = ("subject", "activation", "placement", "seed")


def labelled(run: "Results") -> "xarray.Dataset":
    """The tables and arrays of a run. Raises InputError where xarray is not installed."""
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise InputError("", 'to_xarray needs xarray: pip install "jne[xarray]"') from error

    columns = [str(name) for name in run.voxels]
    n_identity = columns.index("status") + 1
    variables: dict[str, Any] = {
        name: ("voxel", _values(run.voxels[name]), _attributes(name))
        for name in columns[n_identity:]
    }
    for name in run.arrays:
        dimension, units = _ARRAYS[name]
        variables[name] = (("stimulus", dimension), run.array(name), {"units": units})
    coordinates: dict[str, Any] = {}
    for axis, table, names in (
        ("voxel", run.voxels, columns[:n_identity]),
        ("stimulus", run.stimuli, list(run.stimuli)),
    ):
        for name in map(str, names):
            others = {*variables, *coordinates, "voxel", "stimulus", "feature"} - {axis}
            label = f"{axis}_{name}" if name in others else name
            coordinates[label] = (axis, _values(table[name]))
    facts = {name: run.config[name] for name in _FACTS}
    return xarray.Dataset(
        variables, coordinates, attrs={**facts, "data": run.config["data"]["name"]}
    )


def _attributes(name: str) -> dict[str, str]:
    entry = find(name)
    return {} if entry is None else {"long_name": entry.label, "units": entry.unit}


def _values(column: pd.Series) -> NDArray:
    """A column's numbers, or its text, which is empty where a value is missing."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy()
    return column.astype(object).fillna("").astype(str).to_numpy(dtype=np.str_)
