"""The measures that are shown on a brain: columns of the voxel table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measure:
    """A measure of voxels, to be drawn from 0 up."""

    name: str
    """In the names of files."""
    column: str
    """Of the voxel table."""
    label: str
    cmap: str
    """A colour map of matplotlib."""
    description: str
    static: bool = False
    """Whether the report has a picture of it, beside the interactive brain."""

    def values(self, voxels: pd.DataFrame) -> NDArray[np.float64]:
        """The values (V,) in a voxel table, NaN where a voxel has none."""
        column = voxels[self.column].astype("Float64")
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


MEASURES = (
    Measure("jne", "jne", "JNE", "magma", "Jacobian-based nonlinearity evaluation", static=True),
    Measure(
        "w", "w", "W", "magma", "JNE minus the JNE of the voxel's linear twin", static=True
    ),
    Measure("nonlinear", "nonlinear", "nonlinear", "cividis", "1 where a voxel is nonlinear at "
            "the false discovery rate of the report, else 0"),
    Measure("nonlinearshare", "nonlinear_share", "nonlinear share", "cividis", "share of the "
            "predictable variance that is nonlinear in the features"),
    Measure("r2", "r2_nonlinear", "R²", "viridis", "R2 of the nonlinear encoder on the test "
            "stimuli", static=True),
    Measure("r2linear", "r2_linear", "R², linear encoder", "viridis", "R2 of the linear encoder "
            "on the test stimuli"),
    Measure("r2ridge", "r2_ridge", "R², ridge", "viridis", "R2 of ridge regression on the test "
            "stimuli"),
    Measure("noiseceiling", "noise_ceiling", "noise ceiling", "viridis", "the largest R2 that "
            "the noise allows"),
    Measure("gainchange", "gain_change", "change of gain", "magma", "how much the gain of the "
            "voxel's Jacobian changes over stimuli"),
    Measure("shapechange", "shape_change", "change of shape", "magma", "how much the direction "
            "of the voxel's Jacobian changes over stimuli"),
)  # fmt: skip


def measures_of(voxels: pd.DataFrame) -> list[Measure]:
    """The measures that a voxel table has values of."""
    return [
        measure
        for measure in MEASURES
        if measure.column in voxels and voxels[measure.column].notna().any()
    ]
