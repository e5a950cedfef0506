"""ROI masks of LAION-fMRI, one file each, as ROI sets: a category is a set."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.regions import RoiSets
from jne.data.volume import Grid
from jne.errors import InputError
from jne.roi import ROIS

# hV4 is V4 as in NSD. MPA, the medial place area, is the scene region also called RSC (Silson,
# Steel & Baker 2016, Frontiers in Human Neuroscience 10:412). V3A and V3B are no part of V3.
PAPER = {
    "retinotopy": {
        "V1v": "V1", "V1d": "V1", "V2v": "V2", "V2d": "V2", "V3v": "V3", "V3d": "V3", "hV4": "V4",
    },
    "face": {"FFA1": "FFA-1", "FFA2": "FFA-2"},
    "place": {"OPA": "OPA", "PPA": "PPA", "MPA": "RSC"},
    "body": {"EBA": "EBA"},
}  # fmt: skip
"""The paper's ROI of a mask, by category, in the order in which they claim a voxel."""


@dataclass(frozen=True)
class MaskSets(RoiSets):
    """ROI sets whose labels may overlap: a column of labels has the smallest of them."""

    masks: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    """(V,) by category and label."""

    def has(self, roi_set: str, label: str) -> NDArray[np.bool_]:
        return self.masks[roi_set, label]


def read_rois(files: Iterable[Path], grid: Grid, inside: NDArray[np.int64]) -> MaskSets:
    """The masks of a person, of the voxels `inside` (V,) of the grid.

    Raises InputError for one of another grid, and for one that is there under two spellings.
    """
    masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
    paths: dict[tuple[str, str], Path] = {}
    for path in files:
        name = path.parent.name, clean(path.name.partition("_label-")[2].removesuffix(_SUFFIX))
        if name in paths:
            raise InputError("data.root", f"{paths[name]} and {path.name} are one ROI; keep one")
        paths[name] = path
        masks[name] = grid.read(path)[inside] > 0
    labels = pd.DataFrame(index=range(len(inside)))
    names: dict[str, list[str]] = {}
    for category, label in masks:
        names.setdefault(category, []).append(label)
    for category, members in names.items():
        column = np.full(len(inside), "", dtype=object)
        for label in sorted(members, key=lambda label: -masks[category, label].sum()):
            column[masks[category, label]] = label
        labels[category] = column
    return MaskSets(labels, names, PAPER, masks)


def clean(label: str) -> str:
    """The name of an ROI without hyphens, which some copies of the files have."""
    return label.replace("-", "")


def clean_region(region: str) -> str:
    """A region of `data.voxels` as the masks are called; the paper's ROIs keep their hyphens."""
    return region if region in ROIS else clean(region)


_SUFFIX = "_mask.nii.gz"
