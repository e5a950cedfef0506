"""The Natural Scenes Dataset as it is downloaded (Allen et al. 2022): volume or fsaverage betas.

spaces  the volume of a subject and the fsaverage surface: files, shapes, positions
betas   sessions z-scored and averaged over repeats, in a way that survives a kill
rois    regions, their names in the paper, and the choice of voxels
"""

import shutil
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from sklearn.model_selection import train_test_split

from jne.analysis.noise_ceiling import noise_ceiling
from jne.data.nsd import rois
from jne.data.nsd.betas import Averaged, average_repeats, count_repeats, mark_missing
from jne.data.nsd.spaces import Session, Surface, Volume
from jne.data.prepared import Source, check_stimuli, write_prepared
from jne.data.splits import MIN_TEST_STIMULI, Share
from jne.errors import InputError
from jne.features.base import ImageFeatures, Precomputed
from jne.utils.files import write_json
from jne.utils.progress import console
from jne.utils.reading import reading

_N_SHARED = 1000  # 10KID up to this: the images that all subjects saw
_N_TRIALS = 750  # of a session


class NSD(Source):
    """`data=nsd`: `root` is the tree that holds nsddata and nsddata_betas."""

    resumable: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and "
        "artificial intelligence, Nature Neuroscience 25, 116-126"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"

    root: Path
    space: Literal["func1pt8mm", "func1mm", "fsaverage"]
    betas: str
    """The folder of the betas version."""
    voxels: Annotated[Literal["brainmask"] | rois.Regions, Field(min_length=1)]
    """The whole brain mask (on fsaverage: every vertex), or ROI sets, ROIs, tiers, labels."""
    zscore: Literal["run", "session", "none"]
    feature_zscore: Literal["train", "run"]
    """train: on the training stimuli, when they are read. run: over the trials of each run, here.
    """
    noise_ceiling: Literal["ncsnr", "repeats"]
    """From NSD's ncsnr maps, or computed from the repeats in the sessions that are there."""
    n_val: Share | Annotated[int, Field(ge=2)]
    split_seed: int = Field(ge=0)
    image_features: ImageFeatures

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
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"

    @property
    def images_path(self) -> Path | None:
        return self._images if self._images.exists() else None

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

    def input_files(self) -> list[Path]:
        with reading(self.root, "data.root"):
            for path in (self.root / "nsddata", self._behaviour):
                if not path.exists():
                    raise InputError(
                        f"data.root={self.root} is not an NSD tree with {self.subject}: no {path}"
                    )
            if not self._sessions:
                raise InputError(
                    f"data: no betas of {self.subject} in {self._betas}; change data.space or "
                    f"data.betas"
                )
        files = [self._behaviour, *(path for paths in self._sessions.values() for path in paths)]
        if not isinstance(self.image_features, Precomputed):
            files.append(self._images)
        return files + self.image_features.input_files()

    # --- writing ---

    def write(self, folder: Path) -> None:
        trials = self._trials()
        images = trials.groupby("id").agg(shared=("shared", "first"), n_repeats=("run", "size"))
        voxels, kept = self._voxel_table()
        self._check_disk(folder, len(images), len(voxels))
        stimuli = self._stimulus_table(images)
        features = self._features(trials, stimuli["stimulus"].to_numpy())
        check_stimuli(self, features, stimuli)  # before betas are read, which takes long
        ncsnr = None if self.noise_ceiling == "repeats" else self._ncsnr_map()[kept]

        def read_session(session: int, n_trials: int) -> Session:
            return self._space.read_session(self._sessions[session], n_trials, kept)

        averaged = average_repeats(
            folder, trials, len(images), len(voxels), read_session, self.zscore
        )
        shown, test = count_repeats(trials, len(images)), stimuli["split"].to_numpy() == "test"
        computed, inverse = mark_missing(folder, shown, averaged, test)
        voxels["n_invalid_sessions"] = (~averaged.valid).sum(axis=0)
        voxels["n_saturated_trials"] = averaged.saturated
        voxels["ncsnr"] = computed if ncsnr is None else ncsnr
        voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), inverse)
        geometry = self._space.geometry()
        if geometry is not None:
            write_json(folder / "space.json", geometry)
        write_prepared(self, folder, features, None, stimuli, voxels)
        (folder / "state.npz").unlink()
        _report_invalid(voxels, averaged)

    def _trials(self) -> pd.DataFrame:
        """One row per trial of the sessions that are there, in their order.

        Columns: session, run, id (73KID counted from 0), shared, row (of the image in `stimuli`).
        """
        with reading(self._behaviour, "data.root"):
            table = pd.read_csv(self._behaviour, sep="\t")
        for column in ("SESSION", "RUN", "73KID", "10KID"):
            if column not in table:
                raise InputError(f"data.root: {self._behaviour} has no column {column}")
        table = table[table["SESSION"].isin(self._sessions)]
        absent = sorted(set(self._sessions).difference(table["SESSION"]))
        if absent:
            raise InputError(
                f"data.root: {self._behaviour} has no trials of session {absent[0]}, but there "
                f"are betas of it"
            )
        ids = table["73KID"].to_numpy(np.int64) - 1  # the file counts from 1
        return pd.DataFrame(
            {
                "session": table["SESSION"].to_numpy(np.int64),
                "run": table["RUN"].to_numpy(np.int64),
                "id": ids,
                "shared": table["10KID"].to_numpy() <= _N_SHARED,
                "row": np.unique(ids, return_inverse=True)[1],
            }
        )

    def _stimulus_table(self, images: pd.DataFrame) -> pd.DataFrame:
        """images: shared and n_repeats by id, in ascending order."""
        shared = images["shared"].to_numpy()
        if shared.sum() < MIN_TEST_STIMULI:
            raise InputError(
                f"data.root: the test stimuli are the shared images of the sessions that are "
                f"there, which are {shared.sum()}, but JNE needs at least {MIN_TEST_STIMULI}; "
                f"download more sessions of {self.subject}"
            )
        others = np.flatnonzero(~shared)
        n_val = self.n_val if isinstance(self.n_val, int) else ceil(self.n_val * len(others))
        if n_val >= len(others) - 1:
            raise InputError(
                f"data.n_val={self.n_val} of the {len(others)} images that are not shared leaves "
                f"none to train on; give a smaller number or a share"
            )
        split = np.where(shared, "test", "train").astype("<U5")
        _, val = train_test_split(others, test_size=n_val, random_state=self.split_seed)
        split[val] = "val"
        ids = images.index.to_numpy()
        return pd.DataFrame(
            {
                "stimulus": ids,
                "split": split,
                "image": ids.astype(str),
                "n_repeats": images["n_repeats"].to_numpy(),
            }
        )

    def _features(self, trials: pd.DataFrame, ids: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """(N, D) of the images with these ids."""
        rows, images = ids, None
        if not isinstance(self.image_features, Precomputed):
            images = self.images()
        elif self.image_features.n_rows() == len(ids):
            # One row for each image that this subject saw, in place of all 73,000 images.
            rows = np.arange(len(ids))
        features = self.image_features.of(images, rows, int(rows.max()) + 1)
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
        sets = self._roi_sets(len(brain))
        roi = rois.paper_roi(sets)
        if self.voxels == "brainmask":
            kept = np.flatnonzero(brain)
        else:
            kept = rois.select(self.voxels, sets, roi, brain)
        parts = [
            pd.DataFrame({"voxel": kept, "roi": roi[kept]}),
            self._space.positions(kept),
            sets.iloc[kept].reset_index(drop=True),
        ]
        return pd.concat(parts, axis=1), kept

    def _roi_sets(self, n_voxels: int) -> pd.DataFrame:
        """One column per ROI set that is there: the name of each voxel's label, '' for none."""
        freesurfer = self.root / "nsddata" / "freesurfer"
        sets = {}
        for name, files in self._space.roi_files().items():
            tables = [
                freesurfer / subject / "label" / f"{name}.mgz.ctab"
                for subject in (self.subject, "fsaverage")
            ]
            sets[name] = rois.named(self._space.read_map(files), rois.label_names(name, tables))
        return pd.DataFrame(sets, index=range(n_voxels))

    def _ncsnr_map(self) -> NDArray[np.float64]:
        files = self._space.map_files(self._betas, "ncsnr")
        if not all(file.exists() for file in files):
            raise InputError(
                f"data.noise_ceiling=ncsnr needs {files[0]}; choose data.noise_ceiling=repeats"
            )
        return self._space.read_map(files)

    def _check_disk(self, folder: Path, n_images: int, n_voxels: int) -> None:
        needed = 1.02 * 4 * n_voxels * (n_images + _N_TRIALS)
        there = sum(path.stat().st_blocks * 512 for path in folder.glob("responses.npy"))
        free = shutil.disk_usage(folder).free
        if free + there < needed:
            raise InputError(
                f"output: preparing {self.subject} needs {needed / 1e9:.1f} GB at {folder}, where "
                f"{free / 1e9:.1f} GB are free"
            )


def _report_invalid(voxels: pd.DataFrame, averaged: Averaged) -> None:
    """Print how many voxels have sessions without a valid trial, or saturated trials."""
    n_invalid = voxels["n_invalid_sessions"]
    saturated = int((voxels["n_saturated_trials"] > 0).sum())
    if (n_invalid > 0).any():
        console.print(
            f"[yellow]{(n_invalid > 0).sum()} of {len(voxels)} voxels are constant or missing in "
            f"some sessions ({(n_invalid == len(averaged.valid)).sum()} in all sessions): those "
            f"trials are left out of their means[/yellow]"
        )
    if saturated:
        console.print(
            f"[yellow]{saturated} of {len(voxels)} voxels have trials at an end of the int16 "
            f"range: they are kept, and counted in voxels.csv[/yellow]"
        )
