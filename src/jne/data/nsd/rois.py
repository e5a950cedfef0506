"""The regions of NSD's own ROI sets, under the paper's names.

Labels are whole numbers: 0 is unlabelled, and in volumes -1 is outside the cortex.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError
from jne.roi import ROIS, TIERS, ordered

# What the numbers mean where no colour table says so; also Algonauts' (whose own mapping files
# are pickles, which are never read).
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
# The paper's ten ROIs. Where two sets claim a voxel the first keeps it: retinotopy, then the
# smallest functional regions first.
_PAPER = {
    "prf-visualrois": {
        "V1v": "V1", "V1d": "V1", "V2v": "V2", "V2d": "V2", "V3v": "V3", "V3d": "V3", "hV4": "V4",
    },
    "floc-faces": {"FFA-1": "FFA-1", "FFA-2": "FFA-2"},
    "floc-places": {"OPA": "OPA", "PPA": "PPA", "RSC": "RSC"},
    "floc-bodies": {"EBA": "EBA"},
}  # fmt: skip


def label_names(roi_set: str, colour_tables: list[Path]) -> dict[int, str]:
    """Name of each label of a set: from the first colour table there is, else the known ones.

    A colour table has a number and a name a line, with any blanks between and after them.
    """
    for path in colour_tables:
        if path.exists():
            fields = [line.split() for line in path.read_text().splitlines()]
            return {
                int(f[0]): f[1] for f in fields if len(f) >= 2 and f[0].isdigit() and f[0] != "0"
            }
    return dict(enumerate(LABELS.get(roi_set, ()), start=1))


def named(labels: NDArray, names: dict[int, str]) -> NDArray[np.str_]:
    """(V,) names of (V,) labels, '' for none; a label without a name keeps its number."""
    numbers = np.rint(labels).astype(np.int64)
    found, position = np.unique(numbers, return_inverse=True)
    text = ["" if n <= 0 else names.get(int(n), str(n)) for n in found]
    return np.array(text, dtype=str)[position]


def paper_roi(sets: pd.DataFrame) -> NDArray[np.str_]:
    """(V,) the paper's ROI of each voxel, '' for none, from the columns of its ROI sets."""
    roi = np.full(len(sets), "", dtype="<U16")
    for roi_set, names in _PAPER.items():
        if roi_set in sets:
            own = sets[roi_set].map(names).fillna("").to_numpy(dtype=str)
            roi = np.where(roi == "", own, roi)
    return roi


def chosen(wanted: list[str], sets: pd.DataFrame, roi: NDArray[np.str_], key: str) -> NDArray:
    """(V,) bool: voxels of any of the wanted ROI sets, ROIs, tiers or labels.

    Raises InputError, naming the config key, for a name that is none of these.
    """
    inside = np.zeros(len(roi), dtype=bool)
    for name in wanted:
        if name in sets:
            own = (sets[name] != "").to_numpy()
        elif name in ROIS or name in TIERS:
            own = np.isin(roi, TIERS.get(name, (name,)))
        else:
            own = (sets == name).any(axis=1).to_numpy()
            if not own.any():
                raise InputError(
                    f"{key}: unknown region {name!r}; there are the sets "
                    f"{', '.join(sets) or '(none)'} and the ROIs {', '.join(ordered(roi))}"
                )
        inside |= own
    return inside
