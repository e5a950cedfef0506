"""What both sources of MOSAIC have: the files of a subject, and the trials averaged."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from jne.data.averaging.by_stimulus import average_repeats
from jne.data.averaging.sums import VoxelNoise
from jne.data.checks import check_disk
from jne.data.mosaic import catalogue, stimuli
from jne.data.mosaic.catalogue import DATA_SETS
from jne.data.mosaic.files import SubjectFile, subject_file
from jne.data.source import About, Source
from jne.errors import InputError
from jne.features.base import ImageFeatures
from jne.features.precomputed import Precomputed
from jne.utils.paths import Folder, UserPath
from jne.utils.progress import say
from jne.utils.reading import reading


def _check_data_set(name: str) -> str:
    if name not in DATA_SETS:
        raise ValueError(f"the data sets are {', '.join(DATA_SETS)}")
    return name


class SubjectSource(Source):
    """`root` mirrors the bucket, or holds the files that are needed directly."""

    resumable: ClassVar[bool] = True
    in_order: ClassVar[bool] = False

    root: Folder
    dataset: Annotated[str, AfterValidator(_check_data_set)]
    """Which of MOSAIC's data sets."""
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
        if path is None and not self.image_features.are(Precomputed):
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

    def _average(
        self,
        folder: Path,
        file: SubjectFile,
        trials: pd.DataFrame,
        table: pd.DataFrame,
        kept: NDArray[np.int64],
    ) -> VoxelNoise:
        """Write the means of the stimuli of a table (N,) at the grayordinates `kept` (V,)."""
        check_disk(folder, self.subject, 1.02 * 4 * len(table) * len(kept))
        keys, n_shown = trials.groupby("stimulus")["key"].agg(list), table["n_repeats"].to_numpy()
        noise = average_repeats(
            folder,
            n_shown,
            (table["split"] == "test").to_numpy(),
            len(kept),
            lambda i: file.read(keys[table["stimulus"][i]], kept),
        )
        _report_invalid(noise, n_shown.sum(), kept, file)
        return noise


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
