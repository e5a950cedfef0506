"""The feature spaces of a run: their columns of the features, and what was measured in each.

    feature_spaces.json  {name: number of columns}, in the order of the features
    spaces.csv           a row per voxel and space, in the order of voxels.csv and of the features:
                         voxel, space and what was measured. NaN where there is no value. Where the
                         nonlinear part was split over spaces, what they do together is the row
                         `interaction`, after the spaces of each voxel

A folder of data with one feature space has neither; without a measure there is no spaces.csv.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.evidence_spaces import INTERACTION
from jne.errors import InputError
from jne.roi import ordered
from jne.utils.blocks import named_slices
from jne.utils.files import write_json
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import reading
from jne.utils.tables import read_table, write_table

FEATURE_SPACES, SPACES = "feature_spaces.json", "spaces.csv"
ALL = "all"


def write_spaces(
    path: Path,
    voxels: pd.DataFrame,
    spaces: Mapping[str, slice],
    measured: Mapping[str, Mapping[str, NDArray]],
) -> pd.DataFrame | None:
    """Write both files, and return the table as `Results.spaces` has it; None without columns.

    voxels: the voxel table (V rows). measured: columns (V,) by their names, of every space and,
    where that was measured, of the interaction of spaces.
    """
    widths = {name: place.stop - place.start for name, place in spaces.items()}
    write_json(path / FEATURE_SPACES, widths)
    rows = [*spaces, *({INTERACTION} & {*measured})]
    names = dict.fromkeys(name for row in rows for name in measured.get(row, {}))
    if not names:
        return None
    missing = np.full(len(voxels), np.nan)
    table = _index(voxels, rows).to_frame(index=False)
    for name in names:
        columns = [measured.get(row, {}).get(name, missing) for row in rows]
        table[name] = np.stack(columns, axis=1).ravel()
    write_table(path / SPACES, table)
    return table.set_index(["voxel", "space"])


def read_feature_spaces(folder: Path, n_features: int) -> dict[str, slice] | None:
    """The columns of each space; None where there is one. Raises InputError for a damaged file."""
    path = folder / FEATURE_SPACES
    if not path.exists():
        return None
    with reading(path, "runs"):
        return named_slices(read_json(regular_file(path, folder)), n_features, path)


def read_spaces(
    folder: Path, voxels: pd.DataFrame, spaces: Mapping[str, slice] | None
) -> pd.DataFrame | None:
    """The table, indexed by voxel and space; None where there is none.

    Raises InputError where it is not of these voxels and spaces.
    """
    path = folder / SPACES
    if spaces is None or not path.exists():
        return None
    with reading(path, "runs"):
        table = read_table(path)
    names = [*spaces, INTERACTION]
    index = _index(voxels, names[: len(table) // len(voxels)])
    values = table.drop(columns=["voxel", "space"], errors="ignore")
    rows = table.reindex(columns=["voxel", "space"]).astype(str)
    fits = rows.equals(index.to_frame(index=False).astype(str))
    if not fits or len(values.select_dtypes("number").columns) < values.shape[1]:
        raise InputError(
            "", f"{path} must hold numbers, a row for each voxel and each of {', '.join(names)}"
        )
    return values.set_index(index)


def space_regions(spaces: pd.DataFrame, voxels: pd.DataFrame) -> pd.DataFrame:
    """Means over the voxels of each ROI, and of `all`, indexed by roi and space.

    spaces: as of `read_spaces`. voxels: their table.
    """
    n_spaces = len(spaces) // len(voxels)
    names = spaces.index.get_level_values("space")
    roi = np.repeat(voxels["roi"].fillna("").astype(str).to_numpy(), n_spaces)
    means = {
        region: spaces[(roi == region) | (region == ALL)].groupby(level="space", sort=False).mean()
        for region in [*(name for name in ordered(voxels["roi"]) if name), ALL]
    }
    order = names[:n_spaces]
    return pd.concat({region: table.loc[order] for region, table in means.items()}, names=["roi"])


def space_metrics(of_all: pd.DataFrame) -> dict[str, float]:
    """The finite means over all voxels as space/SPACE/MEASURE. of_all: of `space_regions`."""
    return {
        f"space/{space}/{name}": float(mean)
        for name, means in of_all.items()
        for space, mean in means.items()
        if np.isfinite(mean)
    }


def _index(voxels: pd.DataFrame, spaces: Sequence[str]) -> pd.MultiIndex:
    n, k = len(voxels), len(spaces)
    rows = [np.repeat(voxels["voxel"].to_numpy(), k), np.tile(spaces, n)]
    return pd.MultiIndex.from_arrays(rows, names=["voxel", "space"])
