"""LAION-fMRI as it is downloaded (Zerbe et al. 2026): single-trial betas in the space of the T1w.

files    where the files are
labels   people, sessions and images by their names
trials   what a person saw
splits   the official splits
grid     the volume: maps and sessions of betas on it
rois     ROI masks as ROI sets
images   the images, which have terms of their own
person   what this source shares with jne.data.laion_ood: the betas of a person averaged
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.data import regions
from jne.data.laion.files import Tree
from jne.data.laion.labels import person_of
from jne.data.laion.person import PersonSource
from jne.data.laion.rois import clean_region, read_rois
from jne.data.laion.splits import OfficialSplit, report, split_file, stimulus_table
from jne.data.leaks import Leaks
from jne.data.nifti import read_values
from jne.data.splits import Share
from jne.errors import InputError
from jne.utils.paths import UserPath
from jne.utils.reading import reading


class LaionFMRI(PersonSource):
    """`data=laion`."""

    leaks: Leaks = Field(default="warn", exclude=True)
    voxels: Annotated[Literal["brainmask"] | regions.Regions, Field(min_length=1)]
    """The whole mask, or categories of ROIs, ROIs by name or as category/name, tiers."""
    roi: str = regions.PAPER
    """What the column `roi` holds: the paper's ROIs, or the ROIs of a category."""
    split: Annotated[str, Field(pattern=r"^\w+$")]
    """The name of an official split."""
    pool: Literal["own", "shared", "pooled"]
    """Whose images it splits: the person's, those that all saw, or those of all people."""
    splits_path: UserPath | None = Field(alias="splits")
    """The folder of the split files, from `root`; None: that of the authors' package."""
    n_val: Share | Annotated[int, Field(ge=2)]
    """A share or a number of the train images of the split."""
    split_seed: int = Field(ge=0)

    @classmethod
    def external_test(
        cls, test: str, settings: Mapping[str, Any], config: Path
    ) -> dict[str, Any] | None:
        if test != "jne.data.laion_ood.LaionOOD":
            return super().external_test(test, settings, config)
        kept = {key: settings.get(key) for key in ("mask", "noise_ceiling")}
        for key, word in kept.items():
            if word not in get_args(cls.model_fields[key].annotation):
                raise InputError("", f"{config} must hold a word as data.{key}")
        return kept

    @classmethod
    def mean_image(cls, settings: Mapping[str, Any]) -> NDArray[np.float64] | None:
        root, subject = (settings.get(key) for key in ("root", "subject"))
        if not (isinstance(root, str) and isinstance(subject, str)):
            return None
        try:
            return read_values(Tree(Path(root), person_of(subject)).t1w)
        except InputError:
            return None

    @property
    def _split_file(self) -> Path:
        folder = None if self.splits_path is None else self.root / self.splits_path
        return split_file(folder, self.pool, self.split, self._person)

    def input_files(self) -> list[Path]:
        with reading(self.root, "data.root"):
            return [*super().input_files(), *self._tree.rois(), self._split_file]

    def write(self, folder: Path) -> None:
        trials = self._trials()
        split = OfficialSplit.read(self._split_file, self._person)
        stimuli = stimulus_table(trials["label"], split, self.n_val, self.split_seed)
        report(split, trials["label"], stimuli)
        self._write(folder, trials, stimuli, *self._voxel_table())

    def _voxel_table(self) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The table of the chosen voxels, and their numbers in the grid."""
        brain = np.flatnonzero(self._grid.brain())
        sets = read_rois(self._tree.rois(), self._grid, brain)
        roi, chosen = regions.roi_column(sets, self.roi), np.arange(len(brain))
        if self.voxels != "brainmask":
            names = [clean_region(name) for name in self.voxels]
            chosen = regions.select(names, sets, np.ones(len(brain), dtype=bool))
        kept = brain[chosen]
        parts = [
            pd.DataFrame({"voxel": kept, "roi": roi[chosen]}),
            self._grid.positions(kept),
            sets.labels.iloc[chosen].reset_index(drop=True),
        ]
        return pd.concat(parts, axis=1), kept


__all__ = ["LaionFMRI"]
