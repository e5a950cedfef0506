"""What both sources of LAION-fMRI have: the files of a person, and their betas averaged."""

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.analysis.noise_ceiling import noise_ceiling
from jne.analysis.repeats import kept_repeats
from jne.data.averaging.by_session import (
    Averaging,
    OpenSession,
    SessionNoise,
    average_repeats,
    fresh_scratch,
)
from jne.data.checks import check_disk, check_stimuli
from jne.data.laion.files import Tree
from jne.data.laion.grid import Session
from jne.data.laion.images import LaionImages
from jne.data.laion.labels import N_SESSIONS, person_of
from jne.data.laion.trials import read_trials
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.data.volume import Grid
from jne.errors import InputError
from jne.features.base import Features, ImageFeatures
from jne.features.laion import LaionEmbedding
from jne.features.pairing import rows_by_name
from jne.features.precomputed import Precomputed
from jne.utils.files import write_json
from jne.utils.paths import Folder
from jne.utils.progress import say
from jne.utils.reading import reading

_REPEATS_OF = {"12rep": 12, "4rep": 4}


class PersonSource(Source):
    """`root` mirrors the bucket, with the folders derivatives and stimuli."""

    resumable: ClassVar[bool] = True
    in_order: ClassVar[bool] = False
    citation: ClassVar[str] = (
        "Zerbe, Roth, Mell, Herholz, Knapen & Hebart (2026), LAION-fMRI: A densely sampled 7T-fMRI "
        "dataset providing broad coverage of natural image diversity, Vision Sciences Society; "
        "betas: Prince et al. (2022), Improving the accuracy of single-trial fMRI response "
        "estimates using GLMsingle, eLife 11, e77599"
    )
    licence: ClassVar[str] = (
        "brain data CC0 1.0; the images have a data use agreement: no part may be passed on"
    )
    links: ClassVar[tuple[str, ...]] = ("https://laion-fmri.hebartlab.com",)

    root: Folder
    mask: Literal["anatomical", "rsquare"]
    """The rule of the brain mask: of the T1w image, or where R² of the GLM is above 0."""
    noise_ceiling: Literal["12rep", "4rep", "repeats"]
    """From the map of the images that have so many repeats, for those that the test images have; or
    computed from the trials."""
    image_features: ImageFeatures

    # --- files ---

    @property
    def _person(self) -> str:
        return person_of(self.subject)

    @cached_property
    def _tree(self) -> Tree:
        return Tree(self.root, self._person)

    @cached_property
    def _sessions(self) -> dict[int, tuple[Path, Path]]:
        """Betas and trials of the sessions of the release that are there."""
        files = self._tree.sessions()
        used = {number: paths for number, paths in files.items() if number <= N_SESSIONS}
        if not used:
            raise InputError(
                "data.root", f"no session from 1 to {N_SESSIONS} of {self._person}", self.root
            )
        return used

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self._tree.mask(self.mask))

    @property
    def _needs_images(self) -> bool:
        return not self.image_features.are(Precomputed, LaionEmbedding)

    def input_files(self) -> list[Path]:
        """All files that are read: whatever changes in the tree is prepared again."""
        with reading(self.root, "data.root"):
            files = [path for paths in self._sessions.values() for path in paths]
            needed = {"data.mask": self._tree.mask(self.mask)}
            if self.noise_ceiling != "repeats":
                needed["data.noise_ceiling"] = self._tree.ceiling(self.noise_ceiling)
            for key, path in needed.items():
                if not path.exists():
                    raise InputError(key, f"needs {path}", getattr(self, key[5:]))
            files += needed.values()
            if self._needs_images:
                files += [self._tree.images, self._tree.metadata]
                for path in files[-2:]:
                    if not path.exists():
                        raise InputError(
                            "features",
                            f"{self.image_features} needs the images, {path}, which have a data "
                            f"use agreement; choose features=laion_clip for embeddings without one",
                        )
        return files + self.image_features.input_files()

    # --- writing ---

    def _trials(self) -> pd.DataFrame:
        """As of `read_trials`."""
        return read_trials({n: paths[1] for n, paths in self._sessions.items()}, self._person)

    def _write(
        self,
        folder: Path,
        trials: pd.DataFrame,
        stimuli: pd.DataFrame,
        voxels: pd.DataFrame,
        kept: NDArray[np.int64],
    ) -> None:
        """Write the means of the stimuli (N,) at the voxels (V,), all trials of a session z-scored.

        kept: (V,), the numbers of the voxels in the grid.
        """
        names = stimuli["stimulus"].to_numpy(dtype=str)
        trials["row"] = pd.Index(names).get_indexer(pd.Index(trials["label"]))
        test = (stimuli["split"] == "test").to_numpy()
        averaging = Averaging(trials, "session", self.noise_ceiling, test)
        scratch = fresh_scratch(folder)
        self._check_disk(folder, len(trials), averaging, len(kept))
        features = self.image_features.each(lambda space: self._features(space, names))
        check_stimuli(self, features, stimuli)  # before betas are read, which takes long
        ncsnr = None
        if self.noise_ceiling != "repeats":
            ncsnr = self._ncsnr()[kept]
        n_trials = trials["session"].value_counts()

        def open_session(number: int) -> OpenSession:
            unpacked = scratch / f"session_{number}.raw"
            path = self._sessions[number][0]
            return Session(path, int(n_trials[number]), self._grid, kept, unpacked)

        for number in self._sessions:  # a wrong one is not noticed hours later
            open_session(number)
        noise = average_repeats(folder, averaging, np.arange(len(kept)), open_session)
        _count_invalid(voxels, noise)
        voxels["ncsnr"] = noise.ncsnr if ncsnr is None else ncsnr
        voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), noise.inverse)
        write_json(folder / "space.json", self._grid.geometry())
        repeats = kept_repeats(averaging.repeats.presentations.sum(axis=1), noise.between_repeats)
        write_prepared(self, folder, features, None, stimuli, voxels, repeats)
        shutil.rmtree(scratch)
        self._report_sessions()

    def _check_disk(self, folder: Path, n_trials: int, averaging: Averaging, n_voxels: int) -> None:
        copies = 2 if len(averaging.blocks(n_voxels)) > 1 else 1
        n_values = copies * len(averaging.test) + n_trials
        check_disk(folder, self.subject, 1.02 * 4 * n_values * n_voxels)

    def _features(self, space: Features, names: NDArray[np.str_]) -> NDArray[np.floating[Any]]:
        """(N, D) of the images with these names."""
        if isinstance(space, Precomputed | LaionEmbedding):
            return space.of_stimuli(names)
        images = LaionImages(self._tree.images, self._tree.metadata)
        rows = rows_by_name(images, pd.Series(names), "data.root")
        return space.extract(images, rows, len(images))

    def _ncsnr(self) -> NDArray[np.float64]:
        """The ncsnr of each voxel of the grid, from the map of ceilings, which are percent."""
        path = self._tree.ceiling(self.noise_ceiling)
        ceiling = self._grid.read(path)
        ceiling[~np.isfinite(ceiling)] = np.nan
        largest = np.nanmax(ceiling, initial=0)
        if np.nanmin(ceiling, initial=0) < 0 or not 1 < largest <= 100:
            raise InputError(
                "data.noise_ceiling",
                f"{path} must hold percent of the variance, from 0 to 100; its largest value is "
                f"{largest:g}",
                value=self.noise_ceiling,
            )
        with np.errstate(divide="ignore"):  # 100 %: no noise
            return np.sqrt(ceiling / (100 - ceiling) / _REPEATS_OF[self.noise_ceiling])

    def _report_sessions(self) -> None:
        later = [number for number in self._tree.sessions() if number > N_SESSIONS]
        n = len(self._sessions)
        sentence = f"sessions   {n} of {N_SESSIONS}"
        if later:
            sentence += f"; {len(later)} later ones, which have other images, are left out"
        say(sentence, style=None if n == N_SESSIONS else "yellow", soft_wrap=True)


def _count_invalid(voxels: pd.DataFrame, noise: SessionNoise) -> None:
    """Add how many sessions of each voxel are left out; print it."""
    voxels["n_invalid_sessions"] = (~noise.valid).sum(axis=0)
    invalid = voxels["n_invalid_sessions"] > 0
    if invalid.any():
        say(
            f"{invalid.sum()} of {len(voxels)} voxels are constant, NaN or infinite in some "
            f"sessions ({(~noise.valid.any(axis=0)).sum()} in all): those trials are left out of "
            f"their means",
            style="yellow",
            soft_wrap=True,
        )
