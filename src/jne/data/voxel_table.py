"""What a voxel table may hold: other columns than ours, numbers where we compute, names of ROIs."""

import re
from itertools import product

import numpy as np
import pandas as pd

from jne.errors import InputError
from jne.jacobian.variants import VARIANTS, variant_column

_SCORES = ("r2", "r", "r2_normalised", "p", "p_fdr")
_PREDICTORS = ("linear", "nonlinear", "ridge", "kernel")
_MEASURES = ("jne", "mean_deviation")
RESERVED_COLUMNS = frozenset(
    [
        *("status", "r2", "p", "p_fdr", "gain_change", "shape_change", "jne_ss_p95"),
        *("readout_penalty", "ridge_penalty", "kernel_penalty"),
        *(variant_column(*column) for column in product(_MEASURES, VARIANTS)),
        *("r2_twin", "jne_twin", "w", "jne_control", "q", "nonlinear"),
        *("r2_ood", "r_ood", "p_ood", "noise_ceiling_ood", "jne_ood", "mean_deviation_ood"),
        *("jne_half1_ood", "jne_half2_ood"),
        *("jne_beside_planted", "linear_power"),
        *("nonlinear_share", "nonlinear_share_low", "nonlinear_share_high"),
        *("tier", "analysed", "jne_low", "jne_high", "jne_half1", "jne_half2"),
        *(f"{score}_{encoder}" for score, encoder in product(_SCORES, _PREDICTORS)),
    ]
)
"""The columns that train.py and evaluate.py add."""

_TWIN = re.compile(r"jne_twin_\d+|(jne_planted|found)_[\d.]+")  # of one draw, of one planted share

RESERVED_ROIS = ("all", "mean", "median", "max", "significant_share", "p95")
"""Words that stand for all voxels: in rois.csv and in metrics such as `r2/mean`."""

_NUMBERS = ("noise_ceiling", "ncsnr")
_INDICES = ("vertex", "i", "j", "k")
_NO_NUMBER = ("", "nan", "na", "n/a", "null", "none")  # of users, where a number is missing
_ROUNDING = 1e-6


def check_voxel_table(table: pd.DataFrame, key: str, what: str = "the voxel table") -> None:
    """Raise InputError where a column or an ROI has a name of ours, or a number is none.

    key: the config key of the table. what: its file.
    """
    ours = [name for name in table if name in RESERVED_COLUMNS or _TWIN.fullmatch(str(name))]
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
    for name in (*_NUMBERS, *_INDICES):
        if name in table:
            _check_numbers(table[name], key, f"{what}: the column {name}")


def with_numbers(table: pd.DataFrame, key: str, what: str) -> pd.DataFrame:
    """A table of text whose columns that are computed with hold numbers, NaN where one is missing.

    Raises InputError, naming the config key of the table, where one is no number.
    """
    for name in (*_NUMBERS, *_INDICES):
        if name in table:
            text = table[name].where(~table[name].str.lower().isin(_NO_NUMBER))
            table = table.assign(**{name: _numbers(text, key, f"{what}: the column {name}")})
    return table


def _numbers(column: pd.Series, key: str, what: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    text = column[numbers.isna() & column.notna()]
    if len(text):
        raise InputError(key, f"{what} must hold numbers, found {text.iloc[0]!r}")
    return numbers


def _check_numbers(column: pd.Series, key: str, what: str) -> None:
    values = _numbers(column, key, what).dropna().to_numpy(dtype=np.float64)
    if column.name in _INDICES and ((values < 0) | (values % 1 != 0)).any():
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
