"""MOSAIC: eight fMRI data sets preprocessed alike, on the 91,282 standard grayordinates.

catalogue  the data sets: names, kinds of stimuli, citations, terms
files      a subject's HDF5 file, checked when it is opened
stimuli    the stimulus tables, the split, the images in users' own copies
subject    what this source shares with jne.data.mosaic_artificial: files, trials averaged
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.analysis.noise_ceiling import noise_ceiling
from jne.analysis.repeats import kept_repeats
from jne.data import regions
from jne.data.averaging.sums import VoxelNoise
from jne.data.checks import check_stimuli
from jne.data.leaks import Leaks
from jne.data.mosaic import stimuli
from jne.data.mosaic.catalogue import DATA_SETS
from jne.data.mosaic.files import open_subject
from jne.data.mosaic.subject import SubjectSource
from jne.data.nsd.images import N_IMAGES
from jne.data.prepared import write_prepared
from jne.data.splits import Share
from jne.errors import InputError
from jne.features.base import Features
from jne.features.images import Images
from jne.features.precomputed import Precomputed
from jne.roi import HCP_MMP1_TIERS, HCP_MMP1_VISUAL
from jne.utils import fslr
from jne.utils.progress import say


class Mosaic(SubjectSource):
    """`data=mosaic`."""

    comparison_caveat: ClassVar[str] = (
        "Some people are in several of MOSAIC's data sets (its participants_shared.tsv). Leaving a "
        "data set out then does not leave out its people."
    )

    leaks: Leaks = Field(default="warn", exclude=True)
    voxels: Annotated[Literal["cortex", "grayordinates"] | regions.Regions, Field(min_length=1)]
    """All of the cortex, all grayordinates, or sets, areas, groups or tiers."""
    roi: str
    """What the column `roi` holds: the labels of HCP_MMP1 or of visual."""
    noise_ceiling: Literal["repeats", "stored"]
    """Computed from the repeats that are there, or as the file has it for the test stimuli."""
    n_val: Share | Annotated[int, Field(ge=2)]
    """A share or a number of the stimuli of the phase train."""
    split_seed: int = Field(ge=0)

    @classmethod
    def external_test(
        cls, test: str, settings: Mapping[str, Any], config: Path
    ) -> dict[str, Any] | None:
        if test != "jne.data.mosaic_artificial.MosaicArtificial":
            return super().external_test(test, settings, config)
        if settings.get("dataset") not in DATA_SETS:
            raise InputError("", f"{config} must hold a data set of MOSAIC as data.dataset")
        return {"dataset": settings["dataset"]}

    # --- writing ---

    def write(self, folder: Path) -> None:
        table = stimuli.read_table(self._table)
        with open_subject(self._file, self.dataset, self._subject) as file:
            say(f"trials     reading the list in {self._file.name}", soft_wrap=True)
            trials = file.trials()
            stimulus_table = stimuli.stimulus_table(
                trials, table, self.n_val, self.split_seed, self._table
            )
            images = self.images()
            features = self.image_features.each(
                lambda space: self._features(space, images, stimulus_table)
            )
            if images is not None:
                rows = stimuli.image_rows(images, stimulus_table, self.dataset)
                stimulus_table.insert(2, "image", np.array(images.names)[rows])
            check_stimuli(
                self, features, stimulus_table
            )  # before trials are read, which takes long
            voxels, kept = self._voxel_table()
            stored = file.noise_ceiling()[kept] if self.noise_ceiling == "stored" else None
            noise = self._average(folder, file, trials, stimulus_table, kept)
        self._report(trials, stimulus_table)
        voxels["n_invalid_trials"] = noise.n_invalid
        self._add_noise_ceiling(voxels, noise, stored)
        n_shown = stimulus_table["n_repeats"].to_numpy()
        repeats = kept_repeats(n_shown, noise.between_repeats)
        write_prepared(self, folder, features, None, stimulus_table, voxels, repeats)
        (folder / "state.npz").unlink()

    def _features(
        self, space: Features, images: Images | None, stimulus_table: pd.DataFrame
    ) -> NDArray[np.floating[Any]]:
        """(N, D) of the stimuli."""
        if isinstance(space, Precomputed):
            if self.dataset == "NSD":  # by number, so that arrays for data=nsd serve here, too
                return space.of_stimuli(stimuli.nsd_numbers(stimulus_table), n_numbered=N_IMAGES)
            return space.of_stimuli(stimulus_table["stimulus"].to_numpy(dtype=str))
        assert images is not None  # as input_files says
        rows = stimuli.image_rows(images, stimulus_table, self.dataset)
        return space.extract(images, rows, len(images))

    def _voxel_table(self) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The table of the chosen grayordinates, and their numbers."""
        area = fslr.areas()
        cortex = np.arange(len(area)) < fslr.N_CORTEX
        labels = {
            "HCP_MMP1": np.where(cortex, area, ""),
            "visual": _grouped(area, HCP_MMP1_VISUAL),
            "subcortex": np.where(cortex, "", area),
            "tiers": _grouped(area, HCP_MMP1_TIERS),
        }
        sets = regions.RoiSets(
            pd.DataFrame(labels),
            {name: sorted(set(values.tolist()) - {""}) for name, values in labels.items()},
        )
        roi = regions.roi_column(sets, self.roi)
        everything = np.ones(len(area), dtype=bool)
        if self.voxels == "grayordinates":
            kept = np.flatnonzero(everything)
        elif self.voxels == "cortex":
            kept = np.flatnonzero(cortex)
        else:
            kept = regions.select(self.voxels, sets, everything)
        kept_labels = sets.labels.drop(columns="tiers").iloc[kept].reset_index(drop=True)
        numbered = pd.DataFrame({"voxel": kept, "roi": roi[kept]})
        return pd.concat([numbered, fslr.positions(kept), kept_labels], axis=1), kept

    def _add_noise_ceiling(
        self,
        voxels: pd.DataFrame,
        noise: VoxelNoise,
        stored: NDArray[np.float64] | None,
    ) -> None:
        if stored is not None:
            voxels["noise_ceiling"] = stored
            return
        if not len(noise.between_repeats):
            say(f"repeats    no stimulus of {self.subject} was repeated: there is no noise ceiling")
            return
        voxels["ncsnr"] = noise.ncsnr
        voxels["noise_ceiling"] = noise_ceiling(noise.ncsnr, noise.inverse)

    def _report(self, trials: pd.DataFrame, stimulus_table: pd.DataFrame) -> None:
        n, used = stimulus_table["split"].value_counts(), stimulus_table["n_repeats"].sum()
        kind = "videos" if DATA_SETS[self.dataset].video else "images"
        sentence = (
            f"trials     {used} of {len(stimulus_table)} {kind}: {n['train']} train, "
            f"{n['val']} val, {n['test']} test; up to {stimulus_table['n_repeats'].max()} repeats"
        )
        if len(trials) > used:
            sentence += f"; {len(trials) - used} trials of artificial images are left out"
        say(sentence, highlight=False, soft_wrap=True)


def _grouped(area: NDArray[np.str_], groups: dict[str, tuple[str, ...]]) -> NDArray[np.str_]:
    """The group of each area (V,), '' for none."""
    names = {name: group for group, members in groups.items() for name in members}
    return np.array([names.get(name, "") for name in area.tolist()])


__all__ = ["Mosaic"]
