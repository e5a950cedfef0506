"""Two measures of the same voxels against each other: two runs, or two columns of one."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from jne.columns import axis_label
from jne.errors import InputError, did_you_mean
from jne.plots.panels import limits_of, points
from jne.plots.regions import voxels_of
from jne.plots.style import drawing, short


def plot_scatter(
    x: Any,
    y: Any,
    measure: str | tuple[str, str] = "r2",
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """A point per voxel, or a density of many, and the line on which both are equal.

    `plot_scatter(linear, nonlinear)` draws the R2 of two runs;
    `plot_scatter(run, run, ("r2_ridge", "r2"))` two measures of one. The title has Pearson's r and
    the number of voxels that have both.

    Parameters
    ----------
    x, y : Results, DataFrame or (V,) array
        Runs or voxel tables of the same voxels; or the values themselves.
    measure : str or pair of str
        The column of both tables, or that of each.
    ax : Axes, optional
        By default those of a new figure.
    limits : (low, high), optional
        Of both axes; by default they hold 0 and all values. Measures of different units have
        limits of their own, and no line.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        A `ValueError`: where the voxels are not the same.
    """
    names = (measure, measure) if isinstance(measure, str) else measure
    values = [_values(*pair) for pair in zip((x, y), names, strict=True)]
    _check_same_voxels(x, y, values)
    both = np.isfinite(values[0]) & np.isfinite(values[1])
    across, up = (one[both] for one in values)
    units = [_unit(*pair) for pair in zip((x, y), names, strict=True)]
    with drawing(ax, figsize=(3.2, 3.2)) as axes:
        if units[0] == units[1]:
            ends = limits or limits_of(pd.Series(across), pd.Series(up))
            axes.plot(ends, ends, color="#999999", lw=0.7, zorder=0)
            points(axes, across, up, ends)
        else:
            points(axes, across, up, limits_of(pd.Series(across)), limits_of(pd.Series(up)))
        labels = [_label(run, name, x is not y) for run, name in zip((x, y), names, strict=True)]
        axes.set(xlabel=labels[0], ylabel=labels[1])
        varied = len(across) > 1 and np.ptp(across) > 0 and np.ptp(up) > 0
        r = f"r = {np.corrcoef(across, up)[0, 1]:.2f}, " if varied else ""
        axes.set_title(f"{r}n = {len(across)}", fontsize="medium")
    return axes


def _values(run: Any, name: str) -> NDArray[np.float64]:
    if isinstance(run, list | tuple | np.ndarray | pd.Series):
        return np.asarray(run, dtype=np.float64)
    voxels = voxels_of(run)
    if name not in voxels:
        like = did_you_mean(name, map(str, voxels))
        raise InputError("measure", f"the voxel table has no such column{like}", value=name)
    return voxels[name].to_numpy(dtype=np.float64)


def _unit(run: Any, name: str) -> str:
    """That of a column; of plain values they are taken to be the same."""
    return "" if isinstance(run, np.ndarray) else axis_label(name).partition("\n")[2]


def _label(run: Any, name: str, named: bool) -> str:
    if not hasattr(run, "voxels"):
        return axis_label(name) if isinstance(run, pd.DataFrame) else ""
    return f"{axis_label(name)}\n{short(run.name, 40)}" if named else axis_label(name)


def _check_same_voxels(x: Any, y: Any, values: list[NDArray[np.float64]]) -> None:
    if values[0].shape != values[1].shape or values[0].ndim != 1:
        raise InputError(
            "y", f"must have a value for each voxel of x, {values[0].shape}, not {values[1].shape}"
        )
    ids = [voxels_of(run)["voxel"].to_numpy() for run in (x, y) if hasattr(run, "voxels")]
    if len(ids) == 2 and not np.array_equal(ids[0], ids[1]):
        raise InputError("y", "has other voxels than x")
