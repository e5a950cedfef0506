"""What a voxel table may hold: other columns than ours, numbers where we compute, names of ROIs."""

import numpy as np
import pandas as pd

from jne.columns import DATA, INDEX, entry_of, is_reserved, names
from jne.errors import InputError

RESERVED_ROIS = ("all", "mean", "median", "max", "significant_share", "p95")
"""Words that stand for all voxels: in rois.csv and in metrics such as `r2/mean`."""

_NO_NUMBER = ("", "nan", "na", "n/a", "null", "none")  # of users, where a number is missing
_ROUNDING = 1e-6


def check_voxel_table(table: pd.DataFrame, key: str, what: str = "the voxel table") -> None:
    """Raise InputError where a column or an ROI has a name of ours, or a number is none.

    key: the config key of the table. what: its file.
    """
    ours = [name for name in table if is_reserved(str(name))]
    if ours:
        raise InputError(
            key, f"{what}: the column {ours[0]} has the name of one that jne adds; rename it"
        )
    words = set(RESERVED_ROIS).intersection(table["roi"].astype(str).unique())
    if words:
        raise InputError(
            key,
            f"{what}: an ROI is called {min(words)!r}, which stands for all voxels in tables and "
            f"metrics; rename it",
        )
    for name in _numeric(table):
        _check_numbers(table[name], key, f"{what}: the column {name}")


def with_numbers(table: pd.DataFrame, key: str, what: str) -> pd.DataFrame:
    """A table of text whose columns that are computed with hold numbers, NaN where one is missing.

    Raises InputError, naming the config key of the table, where one is no number.
    """
    for name in _numeric(table):
        text = table[name].where(~table[name].str.lower().isin(_NO_NUMBER))
        table = table.assign(**{name: _numbers(text, key, f"{what}: the column {name}")})
    return table


def shares_of_percent(table: pd.DataFrame, key: str, what: str) -> pd.Series:
    """The noise ceilings of a table, which are percent, from 0 to 1. key, what: as above."""
    if "noise_ceiling" not in table:
        raise InputError(
            "data.noise_ceiling_unit",
            f"{what} has no column noise_ceiling; leave this key out",
            value="percent",
        )
    percent = table["noise_ceiling"]
    outside = percent[(percent < 0) | (percent > 100)]
    if len(outside):
        raise InputError(
            key,
            f"{what}: the column noise_ceiling must hold percent from 0 to 100, found "
            f"{outside.iloc[0]:g}",
        )
    return percent / 100


def _numeric(table: pd.DataFrame) -> list[str]:
    return names(table, lambda entry: entry.source == DATA and entry.is_number)


def _numbers(column: pd.Series, key: str, what: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    text = column[numbers.isna() & column.notna()]
    if len(text):
        raise InputError(key, f"{what} must hold numbers, found {text.iloc[0]!r}")
    return numbers


def _check_numbers(column: pd.Series, key: str, what: str) -> None:
    values = _numbers(column, key, what).dropna().to_numpy(dtype=np.float64)
    if entry_of(str(column.name)).unit == INDEX and ((values < 0) | (values % 1 != 0)).any():
        raise InputError(key, f"{what} must hold whole numbers from 0")
    if column.name != "noise_ceiling":
        return
    outside = values[~((values >= 0) & (values <= 1 + _ROUNDING))]
    if len(outside):
        raise InputError(
            key,
            f"{what} must hold shares of the variance from 0 to 1, found {outside[0]:g}; leave a "
            f"cell empty where there is none, and for percent set data.noise_ceiling_unit=percent",
        )
