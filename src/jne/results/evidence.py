"""evidence.npz: what unseen responses say of regions, and of unions of them, per stimulus.

Of each ROI, and last of `all` voxels, the sums of `jne.analysis.evidence_sums`, by the names of
EvidenceSums, and `roi` (K,), their names. Nothing in it is an object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from jne.analysis.evidence_sums import N_REGRESSORS, EvidenceSums
from jne.results.regions import RegionSums, read_sums

EVIDENCE = "evidence.npz"
_PER_STIMULUS = ("product", "spread", "nonlinear_pull", "linear_pull")
_SUMS = [field.name for field in fields(EvidenceSums)]
ALL = "all"


class RegionEvidence(RegionSums[EvidenceSums]):
    """What unseen responses say of regions. `all` is the last of the ROIs."""

    @classmethod
    def load(cls, path: Path) -> "RegionEvidence":
        """Raises ValueError or KeyError where the file holds something else."""
        rois, arrays = read_sums(path, _SUMS)
        n, k = len(arrays["product"]), len(rois)
        whole = (
            k > 0
            and rois[-1] == ALL
            and n > N_REGRESSORS
            and all(np.isfinite(values).all() for values in arrays.values())
            and all(
                values.shape == ((n, k) if name in _PER_STIMULUS else (k,))
                for name, values in arrays.items()
            )
        )
        if not whole:
            raise ValueError("its arrays do not agree")
        return cls(rois, EvidenceSums(**arrays))

    def table(self, regions: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
        """A row per union of ROIs, by default per ROI and `all`; columns as in the voxel table."""
        named = {roi: [roi] for roi in self.rois if roi} if regions is None else regions
        sums = self.unions(named)
        share = sums.share()
        count = np.where(sums.n_voxels > 0, sums.n_voxels, np.nan)
        return pd.DataFrame(
            {
                "nonlinear_z": sums.z,
                "nonlinear_p": sums.p,
                "r2_nonlinear_part": sums.nonlinear / count,
                "r2_linear_part": sums.linear / count,
                "validated_share": share.share,
                "validated_share_low": share.low,
                "validated_share_high": share.high,
            },
            index=pd.Index(named, name="region"),
        )
