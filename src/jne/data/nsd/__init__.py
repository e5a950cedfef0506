"""The Natural Scenes Dataset as it is downloaded (Allen et al. 2022): volume or fsaverage betas.

spaces     the volume of a subject and the fsaverage surface: files, shapes, positions
behaviour  the trials, the split of the images, the sessions that are there
images     NSD's images by their numbers
sessions   the files of a session, from which some voxels are read
labels     the names of labels
"""

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.analysis.noise_ceiling import noise_ceiling
from jne.analysis.repeats import kept_repeats
from jne.data import regions
from jne.data.averaging.by_session import (
    Averaging,
    OpenSession,
    SessionNoise,
    average_repeats,
    fresh_scratch,
)
from jne.data.checks import check_disk, check_stimuli
from jne.data.leaks import Leaks
from jne.data.nsd.behaviour import read_trials, report_sessions, stimulus_table
from jne.data.nsd.images import N_IMAGES, rows_of
from jne.data.nsd.labels import label_names
from jne.data.nsd.spaces import Surface, Volume
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.data.splits import Share
from jne.errors import InputError
from jne.features.base import Features, ImageFeatures
from jne.features.images import open_images
from jne.features.precomputed import Precomputed
from jne.utils.files import write_json
from jne.utils.paths import Folder, UserPath
from jne.utils.progress import console
from jne.utils.reading import reading

SYNTHETIC = "jne.data.nsd_synthetic.NSDSynthetic"
"""The external test set of NSD, which imports this module."""


class NSD(Source):
    """`data=nsd`: `root` is the tree that holds nsddata and nsddata_betas."""

    resumable: ClassVar[bool] = True
    in_order: ClassVar[bool] = False
    citation: ClassVar[str] = (
        "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and "
        "artificial intelligence, Nature Neuroscience 25, 116-126"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"
    links: ClassVar[tuple[str, ...]] = ("https://naturalscenesdataset.org",)

    leaks: Leaks = Field(default="warn", exclude=True)
    root: Folder
    space: Literal["func1pt8mm", "func1mm", "fsaverage"]
    betas: str
    """The folder of the betas version."""
    voxels: Annotated[Literal["brainmask"] | regions.Regions, Field(min_length=1)]
    """The whole brain mask (on fsaverage: every vertex), or ROI sets, ROIs, tiers, labels."""
    roi: str = regions.PAPER
    """What the column `roi` holds: the paper's ten ROIs, or the labels of this ROI set."""
    zscore: Literal["run", "session", "none"]
    feature_zscore: Literal["train", "run"]
    """train: on the training stimuli, when they are read. run: over the trials of each run, here.
    """
    noise_ceiling: Literal["ncsnr", "repeats", "repeats_as_nsd"]
    """From NSD's ncsnr maps, or computed from the sessions that are there: from the averaged trials
    of all repeated images, or as NSD computes its maps."""
    n_val: Share | Annotated[int, Field(ge=2)]
    split_seed: int = Field(ge=0)
    image_path: UserPath | None = Field(default=None, alias="images")
    """A folder, zip or HDF5 file of the images, which may be relative to `root`; None: NSD's HDF5
    file below `root`."""
    image_features: ImageFeatures

    # --- of a run's config ---

    @classmethod
    def external_test(
        cls, test: str, settings: Mapping[str, Any], config: Path
    ) -> dict[str, Any] | None:
        if test != SYNTHETIC:
            return super().external_test(test, settings, config)
        if settings.get("feature_zscore", "train") != "train":
            raise InputError(
                "test",
                "the encoder was trained on features z-scored within runs, which have no "
                "counterpart for other stimuli; train with data.feature_zscore=train",
            )
        kept = {key: settings.get(key) for key in ("space", "zscore")}
        for key, word in kept.items():
            if word not in get_args(cls.model_fields[key].annotation):
                raise InputError("", f"{config} must hold a word as data.{key}")
        return kept

    @classmethod
    def mean_image(cls, settings: Mapping[str, Any]) -> NDArray[np.float64] | None:
        root, subject, space = (settings.get(key) for key in ("root", "subject", "space"))
        if not (isinstance(root, str) and isinstance(subject, str) and isinstance(space, str)):
            return None
        try:
            return Volume(Path(root), subject, space).mean_image()
        except InputError:
            return None

    # --- files ---

    @property
    def _behaviour(self) -> Path:
        return self.root / "nsddata" / "ppdata" / self.subject / "behav" / "responses.tsv"

    @property
    def _betas(self) -> Path:
        parts = ("nsddata_betas", "ppdata", self.subject, self.space, self.betas)
        return self.root.joinpath(*parts)

    @property
    def _images(self) -> Path:
        return self.root / (self.image_path or "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")

    @property
    def images_path(self) -> Path | None:
        return self._images if self._images.exists() else None

    @property
    def _needs_images(self) -> bool:
        """Whether images are looked up: for their features, or to name the files of a folder."""
        return self.image_path is not None or not self.image_features.are(Precomputed)

    @cached_property
    def _space(self) -> Volume | Surface:
        if self.space == "fsaverage":
            return Surface(self.root)
        return Volume(self.root, self.subject, self.space)

    @cached_property
    def _sessions(self) -> dict[int, list[Path]]:
        """The files of each session that is there."""
        files = {n: self._space.session_files(self._betas, n) for n in range(1, 100)}
        return {session: paths for session, paths in files.items() if paths}

    def _colour_tables(self, roi_set: str) -> list[Path]:
        """Those that are there, the subject's before that of fsaverage."""
        folder = self.root / "nsddata" / "freesurfer"
        paths = [
            folder / subject / "label" / f"{roi_set}.mgz.ctab"
            for subject in (self.subject, "fsaverage")
        ]
        return [path for path in paths if path.exists()]

    def _ncsnr_files(self) -> list[Path]:
        if self.noise_ceiling != "ncsnr":
            return []
        files = self._space.map_files(self._betas, "ncsnr")
        for file in files:
            if not file.exists():
                raise InputError(
                    "data.noise_ceiling",
                    f"needs {file}; choose data.noise_ceiling=repeats",
                    value="ncsnr",
                )
        return files

    def input_files(self) -> list[Path]:
        """All files that are read: whatever changes in the tree is prepared again."""
        with reading(self.root, "data.root"):
            mask = self._space.mask_files()
            for path in (self.root / "nsddata", self._behaviour, *mask):
                if not path.exists():
                    raise InputError(
                        "data.root",
                        f"not an NSD tree with {self.subject}: no {path}",
                        value=self.root,
                    )
            if not self._sessions:
                raise InputError(
                    "data",
                    f"no betas of {self.subject} in {self._betas}; change data.space or data.betas",
                )
            files = [self._behaviour, *mask, *self._ncsnr_files()]
            for paths in self._sessions.values():
                files += paths
            for roi_set, paths in self._space.roi_files().items():
                files += [*paths, *self._colour_tables(roi_set)[:1]]
            if self._needs_images:
                if not self._images.exists():
                    raise InputError(
                        "data.images",
                        f"no images at {self._images}; give a folder, zip or HDF5 "
                        f"file of them, or choose features=precomputed",
                    )
                files.append(self._images)
        return files + self.image_features.input_files()

    # --- writing ---

    def write(self, folder: Path) -> None:
        trials = read_trials(self._behaviour, self._sessions)
        stimuli = stimulus_table(trials, self.n_val, self.split_seed, self.subject)
        numbers = stimuli["stimulus"].to_numpy()
        stimuli.insert(2, "image", self._image_names(numbers))
        voxels, kept = self._voxel_table()
        test = (stimuli["split"] == "test").to_numpy()
        averaging = Averaging(trials, self.zscore, self.noise_ceiling, test)
        scratch = fresh_scratch(folder)
        self._check_disk(folder, trials, averaging, len(voxels))
        features = self.image_features.each(lambda space: self._features(space, trials, numbers))
        check_stimuli(self, features, stimuli)  # before betas are read, which takes long
        ncsnr = None
        if self.noise_ceiling == "ncsnr":
            ncsnr = self._space.read_map(self._ncsnr_files())[kept]
        order, n_trials = self._space.order(kept), trials["session"].value_counts()

        def open_session(session: int) -> OpenSession:
            unpacked = scratch / f"session_{session}.npy"
            files = self._sessions[session]
            return self._space.open_session(files, n_trials[session], kept[order], unpacked)

        noise = average_repeats(folder, averaging, order, open_session)
        _count_invalid(voxels, trials, averaging.unit, noise)
        voxels["ncsnr"] = noise.ncsnr if ncsnr is None else ncsnr
        voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), noise.inverse)
        geometry = self._space.geometry()
        if geometry is not None:
            write_json(folder / "space.json", geometry)
        repeats = kept_repeats(averaging.repeats.presentations.sum(axis=1), noise.between_repeats)
        write_prepared(self, folder, features, None, stimuli, voxels, repeats)
        shutil.rmtree(scratch)
        report_sessions(self.subject, self._sessions, stimuli)

    def _check_disk(
        self, folder: Path, trials: pd.DataFrame, averaging: Averaging, n_voxels: int
    ) -> None:
        n_means = trials["row"].nunique() * n_voxels
        copies = 2 if len(averaging.blocks(n_voxels)) > 1 else 1
        compressed = [n for n, files in self._sessions.items() if files[0].suffix == ".gz"]
        n_unpacked = trials["session"].isin(compressed).sum() * n_voxels
        check_disk(folder, self.subject, 1.02 * (4 * copies * n_means + 2 * n_unpacked))

    def _image_names(self, numbers: NDArray[np.int64]) -> NDArray[np.str_]:
        """The name of each image (N,) in its folder, zip or HDF5 file."""
        if not self._needs_images:
            return numbers.astype(str)  # as in the HDF5 file
        images = open_images(self._images)
        return np.array(images.names)[rows_of(images, numbers)]

    def _features(
        self, space: Features, trials: pd.DataFrame, numbers: NDArray[np.int64]
    ) -> NDArray[np.floating[Any]]:
        """(N, D) of the images with these numbers (N,)."""
        features: NDArray[np.floating[Any]]
        if isinstance(space, Precomputed):
            features = space.of_stimuli(numbers, n_numbered=N_IMAGES)
        else:
            images = open_images(self._images)
            features = space.extract(images, rows_of(images, numbers), len(images))
        if self.feature_zscore == "train":
            return features
        total = np.zeros(features.shape)
        for _, run in trials.groupby(["session", "run"]):
            row = run["row"].to_numpy()
            values = features[row].astype(np.float64)
            spread = values.std(axis=0)
            z = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
            np.add.at(total, row, z)
        return total / np.bincount(trials["row"])[:, None]

    def _voxel_table(self) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The table of the chosen voxels, and their numbers in the space."""
        brain = self._space.brain()
        labels, names = {}, {}
        for roi_set, files in self._space.roi_files().items():
            labels[roi_set] = self._space.read_map(files)
            names[roi_set] = label_names(roi_set, self._colour_tables(roi_set))
        sets = regions.RoiSets.from_labels(labels, names, len(brain))
        roi = regions.roi_column(sets, self.roi)
        if self.voxels == "brainmask":
            kept = np.flatnonzero(brain)
        else:
            kept = regions.select(self.voxels, sets, brain)
        parts = [
            pd.DataFrame({"voxel": kept, "roi": roi[kept]}),
            self._space.positions(kept),
            sets.labels.iloc[kept].reset_index(drop=True),
        ]
        return pd.concat(parts, axis=1), kept


def _count_invalid(
    voxels: pd.DataFrame, trials: pd.DataFrame, unit: NDArray[np.int64], noise: SessionNoise
) -> None:
    """Add how many sessions and runs of each voxel are left out, and trials saturated; print it."""
    units = trials.groupby(unit)
    session, n_runs = units["session"].first().to_numpy(), units["run"].nunique().to_numpy()
    whole = [~noise.valid[session == number].any(axis=0) for number in np.unique(session)]
    voxels["n_invalid_sessions"] = np.sum(whole, axis=0)
    voxels["n_invalid_runs"] = n_runs @ ~noise.valid
    voxels["n_saturated_trials"] = noise.saturated
    invalid, saturated = voxels["n_invalid_runs"] > 0, voxels["n_saturated_trials"] > 0
    if invalid.any():
        console.print(
            f"[yellow]{invalid.sum()} of {len(voxels)} voxels are constant or missing in some runs "
            f"({(voxels['n_invalid_runs'] == n_runs.sum()).sum()} in all runs): those trials are "
            f"left out of their means[/yellow]",
            soft_wrap=True,
        )
    if saturated.any():
        console.print(
            f"[yellow]{saturated.sum()} of {len(voxels)} voxels have trials at an end of the int16 "
            f"range: they are kept, and counted in voxels.csv[/yellow]",
            soft_wrap=True,
        )
