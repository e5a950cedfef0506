"""nonlinear_share.npz: what the nonlinear shares of regions follow from, and of unions of them.

Of each ROI the sums of `jne.analysis.share_sums`, by the names of ShareSums, and `roi` (K,),
their names, an empty one for voxels without. A union of ROIs is the sum of theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.share_sums import ShareSums
from jne.results.regions import RegionSums, read_sums

SHARES = "nonlinear_share.npz"
SHARE_COLUMNS = (
    "nonlinear_share",
    "nonlinear_share_low",
    "nonlinear_share_high",
    "signal_share",
    "linear_share",
)
_SUMS = [field.name for field in fields(ShareSums)]


class RegionShares(RegionSums[ShareSums]):
    """The nonlinear shares of regions, as ratios of sums over their voxels."""

    @classmethod
    def load(cls, path: Path) -> "RegionShares":
        """Raises ValueError or KeyError where the file holds something else."""
        rois, arrays = read_sums(path, _SUMS)
        n, weight = int(arrays.pop("n_stimuli").item()), float(arrays.pop("pair_weight").item())
        sums = ShareSums(n_stimuli=n, pair_weight=weight, **arrays)
        k, b = len(rois), sums.block_size.size
        whole = (
            sums.linear.shape == sums.variance.shape == (k,)
            and sums.derivative.shape == sums.signal.shape == (b, k)
            and sums.pairs.ndim == 3
            and sums.pairs.shape[0] == k
            and sums.pairs.shape[1] == sums.pairs.shape[2]
            and all(np.isfinite(values).all() for values in arrays.values())
            and np.isfinite(weight)
            and sums.block_size.shape == (b,)
            and b > 1
            and (sums.block_size > 0).all()
            and n == sums.block_size.sum()
        )
        if not whole:
            raise ValueError("its arrays do not agree")
        return cls(rois, sums)

    def table(self, regions: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        """A row per union of ROIs, its columns as in the voxel table."""
        columns = share_columns(self.unions(regions))
        return pd.DataFrame(columns, index=pd.Index(regions, name="region"))

    def each(self) -> dict[str, list[str]]:
        """Each ROI alone, and `all` voxels."""
        return {**{roi: [roi] for roi in self.rois if roi}, "all": self.rois}


def share_columns(sums: ShareSums) -> dict[str, NDArray[np.float64]]:
    """SHARE_COLUMNS, (K,) each."""
    share = sums.shares()
    with np.errstate(divide="ignore", invalid="ignore"):  # a set without voxels
        parts = share.signal / sums.variance, share.linear / sums.variance
    return dict(zip(SHARE_COLUMNS, (*share[:3], *parts), strict=True))
