"""The regions in NSD's ROI sets, their names in the paper, and the choice of voxels by region.

Labels are integers: 0 is unlabelled, and in volumes -1 is outside the cortex. V is the number of
voxels (or vertices).
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator

from jne.errors import InputError
from jne.roi import ROIS, TIERS, ordered
from jne.utils.reading import reading

Regions = Annotated[list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
"""Names of ROI sets, ROIs, tiers or labels. A single name may be written without brackets."""

# The names of the labels 1, 2, ... where there is no colour table. Also those of Algonauts, whose
# own mapping files are pickles, which are never read.
LABELS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "prf-eccrois": ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4+"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": (
        "early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal",
    ),
    "nsdgeneral": ("nsdgeneral",),
}  # fmt: skip
# The paper's ten ROIs. A voxel that several sets claim belongs to the first of them: retinotopy,
# then the functional regions, the smallest first.
_PAPER = {
    "prf-visualrois": {
        "V1v": "V1", "V1d": "V1", "V2v": "V2", "V2d": "V2", "V3v": "V3", "V3d": "V3", "hV4": "V4",
    },
    "floc-faces": {"FFA-1": "FFA-1", "FFA-2": "FFA-2"},
    "floc-places": {"OPA": "OPA", "PPA": "PPA", "RSC": "RSC"},
    "floc-bodies": {"EBA": "EBA"},
}  # fmt: skip


def label_names(roi_set: str, colour_tables: list[Path]) -> dict[int, str]:
    """The name of each label of a set: from the first colour table that exists, or from LABELS.

    A line of a colour table has a number and a name, with any blanks between and after them.
    """
    for path in colour_tables:
        with reading(path, "data.root"):
            if not path.exists():
                continue
            fields = [line.split() for line in path.read_text().splitlines()]
        return {int(f[0]): f[1] for f in fields if len(f) >= 2 and f[0].isdigit() and f[0] != "0"}
    return dict(enumerate(LABELS.get(roi_set, ()), start=1))


def named(labels: NDArray, names: dict[int, str]) -> NDArray[np.str_]:
    """The name (V,) of each label (V,), '' for none; a label without a name keeps its number."""
    numbers, position = np.unique(np.rint(labels).astype(np.int64), return_inverse=True)
    text = ["" if n <= 0 else names.get(int(n), str(n)) for n in numbers]
    return np.array(text, dtype=str)[position]


def paper_roi(sets: pd.DataFrame) -> NDArray[np.str_]:
    """The paper's ROI of each voxel (V,), '' for none.

    sets: (V, n_sets), one column per ROI set with the name of each voxel's label, '' for none.
    """
    roi = np.full(len(sets), "", dtype="<U16")
    for roi_set, names in _PAPER.items():
        if roi_set in sets:
            found = sets[roi_set].map(names).fillna("").to_numpy(dtype=str)
            roi = np.where(roi == "", found, roi)
    return roi


def select(
    regions: list[str], sets: pd.DataFrame, roi: NDArray[np.str_], within: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The voxels that are in any of the regions and in `within`: indices, in ascending order.

    regions: names of ROI sets, ROIs, tiers or labels. sets, roi: as of `paper_roi`. within: (V,).
    Raises InputError, naming `data.voxels`, for an unknown region or if no voxel is selected.
    """
    selected = np.zeros(len(roi), dtype=bool)
    for name in regions:
        if name in sets:
            members = (sets[name] != "").to_numpy()
        elif name in ROIS or name in TIERS:
            members = np.isin(roi, TIERS.get(name, (name,)))
        else:
            members = (sets == name).any(axis=1).to_numpy()
            if not members.any():
                known = ", ".join(map(str, sets)) or "(none)"
                raise InputError(
                    f"data.voxels: unknown region {name!r}; there are the sets {known} and the "
                    f"ROIs {', '.join(ordered(roi))}"
                )
        selected |= members
    voxels = np.flatnonzero(selected & within)
    if not len(voxels):
        raise InputError(f"data.voxels={regions} selects no voxels")
    return voxels
