"""MOSAIC: eight fMRI data sets preprocessed alike, on the 91,282 standard grayordinates.

catalogue  the data sets: names, kinds of stimuli, citations, terms
files      a subject's HDF5 file, checked when it is opened
stimuli    the stimulus tables, the split, the images in users' own copies
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from jne.analysis.noise_ceiling import noise_ceiling
from jne.analysis.repeats import kept_repeats
from jne.data import regions
from jne.data.averaging.by_stimulus import average_repeats
from jne.data.averaging.sums import VoxelNoise
from jne.data.checks import check_disk, check_stimuli
from jne.data.leaks import Leaks
from jne.data.mosaic import catalogue, stimuli
from jne.data.mosaic.catalogue import DATA_SETS
from jne.data.mosaic.files import SubjectFile, open_subject, subject_file
from jne.data.nsd.images import N_IMAGES
from jne.data.prepared import write_prepared
from jne.data.source import About, Source
from jne.data.splits import Share
from jne.errors import InputError
from jne.features.base import ImageFeatures
from jne.features.images import Images
from jne.features.precomputed import Precomputed
from jne.roi import HCP_MMP1_TIERS, HCP_MMP1_VISUAL
from jne.utils import fslr
from jne.utils.paths import Folder, UserPath
from jne.utils.progress import say
from jne.utils.reading import reading


def _check_data_set(name: str) -> str:
    if name not in DATA_SETS:
        raise ValueError(f"the data sets are {', '.join(DATA_SETS)}")
    return name


class Mosaic(Source):
    """`data=mosaic`: `root` mirrors the bucket, or holds the files that are needed directly."""

    resumable: ClassVar[bool] = True
    in_order: ClassVar[bool] = False
    comparison_caveat: ClassVar[str] = (
        "Some people are in several of MOSAIC's data sets (its participants_shared.tsv). Leaving a "
        "data set out then does not leave out its people."
    )

    leaks: Leaks = Field(default="warn", exclude=True)
    root: Folder
    dataset: Annotated[str, AfterValidator(_check_data_set)]
    """Which of MOSAIC's data sets."""
    voxels: Annotated[Literal["cortex", "grayordinates"] | regions.Regions, Field(min_length=1)]
    """All of the cortex, all grayordinates, or sets, areas, groups or tiers."""
    roi: str
    """What the column `roi` holds: the labels of HCP_MMP1 or of visual."""
    noise_ceiling: Literal["repeats", "stored"]
    """Computed from the repeats that are there, or as the file has it for the test stimuli."""
    n_val: Share | Annotated[int, Field(ge=2)]
    """A share or a number of the stimuli of the phase train."""
    split_seed: int = Field(ge=0)
    image_path: UserPath | None = Field(default=None, alias="images")
    """A folder (with folders in it) or zip of the images, which MOSAIC does not distribute."""
    image_features: ImageFeatures

    @property
    def about(self) -> About:
        data = DATA_SETS[self.dataset]
        return About(
            f"{catalogue.CITATION}; {data.citation}",
            f"{catalogue.LICENCE}; the source: {data.terms}",
            (catalogue.LINK, data.link),
        )

    # --- files ---

    @property
    def _subject(self) -> str:
        """As MOSAIC writes it: sub-01."""
        number = self.subject.removeprefix("subj").removeprefix("sub-")
        n_subjects = DATA_SETS[self.dataset].n_subjects
        if not number.isdecimal() or not 1 <= int(number) <= n_subjects:
            raise InputError(
                "subject",
                f"{self.dataset} has the subjects s1 to s{n_subjects}",
                value=self.subject,
            )
        return f"sub-{int(number):02d}"

    @cached_property
    def _file(self) -> Path:
        return subject_file(self.root, self.dataset, self._subject)

    @property
    def _table(self) -> Path:
        path = stimuli.table_file(self.root, self.dataset)
        if not path.exists():
            raise InputError(
                "data.root", f"no {path}, the stimulus table of MOSAIC", value=self.root
            )
        return path

    @property
    def images_path(self) -> Path | None:
        return None if self.image_path is None else self.root / self.image_path

    def input_files(self) -> list[Path]:
        with reading(self.root, "data.root"):
            files = [self._file, self._table]
        path = self.images_path
        if path is None and not isinstance(self.image_features, Precomputed):
            frames = (
                ": one frame per video, STEM_frame-MMMM_TTTT.jpg"
                if DATA_SETS[self.dataset].video
                else ""
            )
            raise InputError(
                "data.images",
                f"MOSAIC has no images of {self.dataset}; give a folder or zip of "
                f"them under the names in {self._table.name}{frames}, or choose "
                f"features=precomputed",
            )
        if path is not None:
            with reading(path, "data.images"):
                if not path.exists():
                    raise InputError("data.images", f"no such folder or file: {path}")
            files.append(path)
        return files + self.image_features.input_files()

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
            features = self._features(images, stimulus_table)
            if images is not None:
                rows = stimuli.image_rows(images, stimulus_table, self.dataset)
                stimulus_table.insert(2, "image", np.array(images.names)[rows])
            check_stimuli(
                self, features, stimulus_table
            )  # before trials are read, which takes long
            voxels, kept = self._voxel_table()
            stored = file.noise_ceiling()[kept] if self.noise_ceiling == "stored" else None
            check_disk(folder, self.subject, 1.02 * 4 * len(stimulus_table) * len(kept))
            keys = trials.groupby("stimulus")["key"].agg(list)
            n_shown = stimulus_table["n_repeats"].to_numpy()
            noise = average_repeats(
                folder,
                n_shown,
                (stimulus_table["split"] == "test").to_numpy(),
                len(kept),
                lambda i: file.read(keys[stimulus_table["stimulus"][i]], kept),
            )
            self._report(trials, stimulus_table)
            _report_invalid(noise, n_shown.sum(), kept, file)
        voxels["n_invalid_trials"] = noise.n_invalid
        self._add_noise_ceiling(voxels, noise, stored)
        repeats = kept_repeats(n_shown, noise.between_repeats)
        write_prepared(self, folder, features, None, stimulus_table, voxels, repeats)
        (folder / "state.npz").unlink()

    def _features(
        self, images: Images | None, stimulus_table: pd.DataFrame
    ) -> NDArray[np.floating[Any]]:
        """(N, D) of the stimuli."""
        if isinstance(self.image_features, Precomputed):
            if self.dataset == "NSD":  # by number, so that arrays for data=nsd serve here, too
                return self.image_features.of_stimuli(
                    stimuli.nsd_numbers(stimulus_table), n_numbered=N_IMAGES
                )
            return self.image_features.of_stimuli(stimulus_table["stimulus"].to_numpy(dtype=str))
        assert images is not None  # as input_files says
        rows = stimuli.image_rows(images, stimulus_table, self.dataset)
        return self.image_features.extract(images, rows, len(images))

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


def _report_invalid(
    noise: VoxelNoise, n_trials: int, kept: NDArray[np.int64], file: SubjectFile
) -> None:
    """Print how many grayordinates are not finite in some trials, and whether the file says so."""
    invalid = noise.n_invalid > 0
    if invalid.any():
        say(
            f"{invalid.sum()} of {len(kept)} grayordinates are NaN or infinite in some trials "
            f"({(noise.n_invalid == n_trials).sum()} in all): those trials are left out of their "
            f"means, and counted in voxels.csv",
            style="yellow",
            soft_wrap=True,
        )
    unlisted = int((~np.isin(kept[invalid], file.listed_invalid)).sum())
    if unlisted:
        say(
            f"{unlisted} of them are not in `nan_indices_all` of {file.path.name}",
            style="yellow",
            soft_wrap=True,
        )


__all__ = ["Mosaic"]
