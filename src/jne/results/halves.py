"""halves.csv: what two encoders of disjoint halves of the stimuli say of each voxel.

A row per voxel; of each of MEASURES, columns NAME_1 and NAME_2. NaN where there is no value.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jne.analysis.agreement import rank_correlation
from jne.roi import ordered

HALVES = "halves.csv"
MEASURES = ("r2", "jne", "nonlinear_z", "validated_share")
ALL = "all"
REPEATS = 0.5
"""Below this r, a map says that there is nonlinearity, not which voxels have it."""


def agreement(halves: pd.DataFrame, rois: pd.Series) -> pd.DataFrame:
    """Spearman's r of the two halves, over the voxels of each ROI and over all.

    halves: as of halves.csv. rois: (V,), of each voxel; empty for none. Returns a row per ROI with
    `roi`, `voxels` and MEASURES; NaN where there are too few voxels (`rank_correlation`).
    """
    regions = {roi: (rois == roi).to_numpy() for roi in ordered(rois) if roi}
    rows = []
    for roi, chosen in {**regions, ALL: np.ones(len(rois), dtype=bool)}.items():
        row: dict[str, object] = {"roi": roi, "voxels": int(chosen.sum())}
        for name in (measure for measure in MEASURES if f"{measure}_1" in halves):
            first, second = (halves[f"{name}_{k}"].to_numpy()[chosen] for k in (1, 2))
            row[name] = rank_correlation(first, second)
        rows.append(row)
    return pd.DataFrame(rows)


def of_all_voxels(agreed: pd.DataFrame) -> dict[str, float]:
    """Spearman's r over all voxels, by measure, where it is finite. agreed: of `agreement`."""
    of_all = {name: float(agreed[name].iloc[-1]) for name in MEASURES if name in agreed}
    return {name: r for name, r in of_all.items() if np.isfinite(r)}


def repeats(of_all: Mapping[str, float]) -> bool:
    """Whether every measure of nonlinearity says the same of voxels twice. See REPEATS."""
    return all(r >= REPEATS for name, r in of_all.items() if name != "r2")
