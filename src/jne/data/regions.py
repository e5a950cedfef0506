"""Regions: ROI sets and their labels, the paper's ROIs, and the choice of voxels by region.

Labels are integers: 0 is unlabelled, and in volumes -1 is outside the cortex. V is the number of
voxels (or vertices).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator

from jne.errors import InputError
from jne.roi import ROIS, TIERS
from jne.utils.progress import console


def _as_names(value: Any) -> Any:
    """A list of names; areas of HCP_MMP1 such as 4 come as numbers from the command line."""
    values = [value] if isinstance(value, str | int) else value
    if not isinstance(values, Sequence):
        return value
    return [str(name) if type(name) is int else name for name in values]


Regions = Annotated[list[str], BeforeValidator(_as_names)]
"""Names of ROI sets, ROIs, tiers or labels. A single name may be written without brackets."""

PAPER = "paper"
"""In place of a ROI set: the paper's ten ROIs, which come from four sets."""
# A voxel that several sets claim belongs to the first of them: retinotopy, then the functional
# regions, the smallest first.
_PAPER: dict[str, dict[str, str]] = {
    "prf-visualrois": {
        "V1v": "V1", "V1d": "V1", "V2v": "V2", "V2d": "V2", "V3v": "V3", "V3d": "V3", "hV4": "V4",
    },
    "floc-faces": {"FFA-1": "FFA-1", "FFA-2": "FFA-2"},
    "floc-places": {"OPA": "OPA", "PPA": "PPA", "RSC": "RSC"},
    "floc-bodies": {"EBA": "EBA"},
}  # fmt: skip
# The retrosplenial cortex, which is not the scene region of this name: always with its set.
_NAMESAKE = ("HCP_MMP1", "RSC")


@dataclass(frozen=True)
class RoiSets:
    """The ROI sets that are there."""

    labels: pd.DataFrame
    """(V, n_sets): one column per set, the name of each voxel's label, '' for none."""
    names: dict[str, list[str]]
    """The labels of each set, also those without a voxel in this subject."""
    paper: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _PAPER)
    """By set, the paper's ROI that a label is; in the order in which they claim a voxel."""

    @property
    def set_of(self) -> dict[str, str]:
        """The set that each of the paper's ROIs comes from, which need not be there."""
        return {roi: name for name, rois in self.paper.items() for roi in rois.values()}

    @classmethod
    def from_labels(
        cls, labels: Mapping[str, NDArray], names: Mapping[str, dict[int, str]], n_voxels: int
    ) -> "RoiSets":
        """labels: by set, the label (V,) of each voxel. names: by set, the name of each label."""
        columns, names_of_set = {}, {}
        for roi_set, values in labels.items():
            columns[roi_set] = named(values, names[roi_set])
            present = pd.unique(pd.Series(columns[roi_set]))
            names_of_set[roi_set] = list(
                dict.fromkeys([*names[roi_set].values(), *sorted(present)])
            )
            names_of_set[roi_set] = [name for name in names_of_set[roi_set] if name]
        return cls(pd.DataFrame(columns, index=range(n_voxels)), names_of_set)

    def has(self, roi_set: str, label: str) -> NDArray[np.bool_]:
        """Which voxels (V,) have a label."""
        return (self.labels[roi_set] == label).to_numpy(dtype=bool)


def named(labels: NDArray, names: dict[int, str]) -> NDArray[np.str_]:
    """The name (V,) of each label (V,), '' for none; a label without a name keeps its number."""
    numbers, position = np.unique(np.rint(labels).astype(np.int64), return_inverse=True)
    text = ["" if n <= 0 else names.get(int(n), str(n)) for n in numbers]
    return np.array(text, dtype=str)[position]


def paper_roi(sets: RoiSets) -> NDArray[np.str_]:
    """The paper's ROI of each voxel (V,), '' for none."""
    roi = np.full(len(sets.labels), "", dtype="<U16")
    for roi_set, names in sets.paper.items():
        if roi_set in sets.labels:
            paper_names = sets.labels[roi_set].map(names).fillna("").to_numpy(dtype=str)
            roi = np.where(roi == "", paper_names, roi)
    return roi


def roi_column(sets: RoiSets, source: str) -> NDArray[np.str_]:
    """The column `roi` (V,): the paper's ROIs, or the labels of a set; '' for none.

    Prints which of the paper's ROIs have no voxel. Raises InputError, naming `data.roi`, for an
    unknown set.
    """
    if source == PAPER:
        roi, set_of = paper_roi(sets), sets.set_of
        without_set = [name for name in ROIS if set_of.get(name) not in sets.names]
        empty = [name for name in ROIS if name not in without_set and not (roi == name).any()]
        if without_set:
            absent = [roi_set for roi_set in sets.paper if roi_set not in sets.names]
            _warn(
                f"roi        without {', '.join(absent)} there is no {', '.join(without_set)}; "
                f"data.roi=SET takes the labels of another set"
            )
        if empty:
            _warn(f"roi        this subject has no voxel of {', '.join(empty)}")
        return roi
    if source not in sets.names:
        raise InputError("data.roi", f"{_choices(sets)}; or write {PAPER}", value=source)
    roi = sets.labels[source].to_numpy(dtype=str)
    if source == _NAMESAKE[0]:
        roi = np.where(roi == _NAMESAKE[1], "/".join(_NAMESAKE), roi)
    return roi


def select(regions: list[str], sets: RoiSets, within: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The voxels that are in any of the regions and in `within`: indices, in ascending order.

    regions: see `_members`. within: (V,). Prints the number of voxels of each region. Raises
    InputError, naming `data.voxels`, for an unknown or ambiguous region or if no voxel is selected.
    """
    paper, n_selected = paper_roi(sets), {}
    selected = np.zeros(len(within), dtype=bool)
    for region in regions:
        for name, members in _members(region, sets, paper).items():
            selected |= members
            n_selected[name] = int((members & within).sum())
    voxels = np.flatnonzero(selected & within)
    if not len(voxels):
        raise InputError("data.voxels", "selects no voxels", value=regions)
    counts = ", ".join(f"{name} {n}" for name, n in n_selected.items() if n)
    console.print(f"voxels     {len(voxels)}: {counts}", highlight=False, soft_wrap=True)
    empty = [name for name, n in n_selected.items() if not n]
    if empty:
        _warn(f"voxels     this subject has none in {', '.join(empty)}")
    return voxels


def _members(region: str, sets: RoiSets, paper: NDArray[np.str_]) -> dict[str, NDArray[np.bool_]]:
    """The voxels (V,) of a region, or of each ROI of a tier, by the full name of what it is.

    region: `SET/LABEL`, or a set, or an ROI or tier of the paper, or a label of one set.
    """
    roi_set, slash, label = region.partition("/")
    if slash:
        if roi_set not in sets.names:
            raise InputError("data.voxels", f"{region}: {_choices(sets)}")
        if label not in sets.names[roi_set]:
            labels = ", ".join(sets.names[roi_set])
            raise InputError("data.voxels", f"{region}: {roi_set} has the labels {labels}")
        return {region: sets.has(roi_set, label)}
    if region in sets.names:
        return {region: (sets.labels[region] != "").to_numpy(dtype=bool)}
    rois = TIERS.get(region, (region,) if region in ROIS else ())
    absent = sorted({sets.set_of[roi] for roi in rois}.difference(sets.names))
    if rois and not absent:
        return {roi: paper == roi for roi in rois}
    owners = [
        name
        for name, labels in sets.names.items()
        if region in labels and (name, region) != _NAMESAKE
    ]
    if len(owners) > 1:
        choices = " or ".join(f"{name}/{region}" for name in owners)
        raise InputError("data.voxels", f"{region} is a label of several sets; write {choices}")
    if owners:
        return {f"{owners[0]}/{region}": sets.has(owners[0], region)}
    if rois:
        raise InputError("data.voxels", f"{region} needs {', '.join(absent)}; {_choices(sets)}")
    raise InputError("data.voxels", f"unknown region {region!r}; {_choices(sets, paper)}")


def _choices(sets: RoiSets, paper: Iterable[str] = ()) -> str:
    """What there is to choose from, as part of a sentence."""
    if not sets.names:
        return "there are no ROI sets"
    text = f"there are the sets {', '.join(sets.names)} and their labels"
    present = set(paper)
    rois = [roi for roi in ROIS if roi in present]
    return f"{text}, and the ROIs {', '.join(rois)}" if rois else text


def _warn(sentence: str) -> None:
    console.print(sentence, style="yellow", highlight=False, soft_wrap=True)
