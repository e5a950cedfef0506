"""The Natural Scenes Dataset as it is downloaded (Allen et al. 2022): volume or fsaverage betas.

N distinct images seen, V voxels. One session at a time is read, z-scored and worked into the mean
over repeats on disk, so that memory stays that of a session and an interrupted preparation goes on
from the session it was at.
"""

import shutil
from collections.abc import Iterator
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny
from sklearn.model_selection import train_test_split

from jne.analysis.noise_ceiling import ncsnr_from_sums, noise_ceiling
from jne.data.nsd import rois
from jne.data.prepared import Source, write_prepared
from jne.errors import InputError
from jne.features.base import Features, OwnFeatures, Precomputed
from jne.features.images import Hdf5Images, Images
from jne.utils.blocks import voxel_blocks
from jne.utils.files import atomic_file, write_array, write_json
from jne.utils.progress import console, stage_progress

_PERCENT = 300  # volume betas are percent signal change times this, as int16
_SATURATED = np.iinfo(np.int16).max
_N_SHARED = 1000  # 10KID up to this: the images that all subjects saw
_N_FSAVERAGE = 163_842
_HEMISPHERES = {"left": "lh", "right": "rh"}
Count = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(gt=0, lt=1)]


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
    """Folder of the betas version."""
    voxels: Annotated[
        Literal["brainmask"] | list[str],
        BeforeValidator(lambda v: [v] if isinstance(v, str) and v != "brainmask" else v),
        Field(min_length=1),
    ]
    """All of the brain mask (of fsaverage: every vertex), or ROI sets, ROIs, tiers, labels."""
    zscore: Literal["run", "session", "none"]
    feature_zscore: Literal["train", "run"]
    """train: on the training stimuli, when read. run: over the trials of each run, here."""
    noise_ceiling: Literal["ncsnr", "repeats"]
    """From NSD's ncsnr maps, or computed from the repeats read."""
    n_val: Share | Count
    split_seed: int = Field(ge=0)
    image_features: SerializeAsAny[Features]

    # --- files ---

    @property
    def _ppdata(self) -> Path:
        return self.root / "nsddata" / "ppdata" / self.subject

    @property
    def _betas(self) -> Path:
        parts = ("nsddata_betas", "ppdata", self.subject, self.space, self.betas)
        return self.root.joinpath(*parts)

    @property
    def _images(self) -> Path:
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"

    @property
    def _on_surface(self) -> bool:
        return self.space == "fsaverage"

    @property
    def images_path(self) -> Path | None:
        return self._images if self._images.exists() else None

    def input_files(self) -> list[Path]:
        self._check_tree()
        files = [self._ppdata / "behav" / "responses.tsv"]
        files += [path for paths in self._sessions.values() for path in paths]
        if isinstance(self.image_features, Precomputed):
            return files + self.image_features.input_files()
        return [*files, self._images, *self.image_features.input_files()]

    def _check_tree(self) -> None:
        if isinstance(self.image_features, OwnFeatures):
            self.image_features.of(None, np.arange(0), 0)  # tells what to choose
        for path in (self.root / "nsddata", self._ppdata / "behav" / "responses.tsv"):
            if not path.exists():
                raise InputError(
                    f"data.root={self.root} is not an NSD tree with {self.subject}: no {path}"
                )
        if not self._sessions:
            raise InputError(
                f"data: no betas of {self.subject}: looked for {self._session_names(1)[0]} and so "
                f"on in {self._betas}; see data.space and data.betas"
            )

    def _session_names(self, session: int) -> list[str]:
        if self._on_surface:
            return [f"{h}.betas_session{session:02d}.mgh" for h in _HEMISPHERES.values()]
        return [f"betas_session{session:02d}.{suffix}" for suffix in ("hdf5", "mat", "nii.gz")]

    @cached_property
    def _sessions(self) -> dict[int, list[Path]]:
        """The files of each session that is there."""
        found = {}
        for session in range(1, 100):
            paths = [self._betas / name for name in self._session_names(session)]
            there = [path for path in paths if path.exists()]
            if self._on_surface and len(there) == 2:
                found[session] = there
            elif not self._on_surface and there:
                found[session] = there[:1]
        return found

    # --- writing ---

    def write(self, folder: Path) -> None:
        trials = self._trials()
        ids = np.unique(trials["id"])
        voxels, space, kept = self._voxels()
        self._check_disk(folder, len(ids), len(voxels))
        stimuli = self._stimuli(trials, ids)
        features = self._features(trials, ids)
        valid, squares, saturated = self._average(folder, trials, ids, kept)
        voxels["n_invalid_sessions"] = (~valid).sum(axis=0)
        voxels["n_saturated_trials"] = saturated
        self._finish(folder, trials, ids, stimuli, voxels, valid, squares, kept)
        if space is not None:
            write_json(folder / "space.json", space)
        write_prepared(folder, features, None, stimuli, voxels)
        (folder / "state.npz").unlink()
        _tell(voxels, len(valid))

    def _trials(self) -> pd.DataFrame:
        """One row a trial of the sessions that are there: session, run, id (0-based), shared."""
        path = self._ppdata / "behav" / "responses.tsv"
        table = pd.read_csv(path, sep="\t")
        for column in ("SESSION", "RUN", "73KID", "10KID"):
            if column not in table:
                raise InputError(f"data: {path} has no column {column}")
        table = table[table["SESSION"].isin(self._sessions)]
        absent = sorted(set(self._sessions).difference(table["SESSION"]))
        if absent:
            raise InputError(f"data: {path} has no trials of session {absent[0]}")
        return pd.DataFrame(
            {
                "session": table["SESSION"].astype(np.int64),
                "run": table["RUN"].astype(np.int64),
                "id": table["73KID"].astype(np.int64) - 1,  # the file counts from 1
                "shared": table["10KID"] <= _N_SHARED,
            }
        ).reset_index(drop=True)

    def _stimuli(self, trials: pd.DataFrame, ids: NDArray) -> pd.DataFrame:
        by_id = trials.groupby("id")
        shared = by_id["shared"].first().loc[ids].to_numpy()
        others = np.flatnonzero(~shared)
        n_val = self.n_val if isinstance(self.n_val, int) else ceil(self.n_val * len(others))
        if n_val >= len(others) - 1:
            raise InputError(
                f"data.n_val={self.n_val} of the {len(others)} images outside the shared ones "
                f"leaves none to train on; give a smaller number or a share"
            )
        split = np.where(shared, "test", "train").astype("<U5")
        _, val = train_test_split(others, test_size=n_val, random_state=self.split_seed)
        split[val] = "val"
        return pd.DataFrame(
            {
                "stimulus": ids,
                "split": split,
                "image": ids.astype(str),
                "n_repeats": by_id.size().loc[ids].to_numpy(),
            }
        )

    def _features(self, trials: pd.DataFrame, ids: NDArray) -> NDArray:
        features, images = self.image_features, None
        if isinstance(features, Precomputed):
            # One row an image of all 73,000, or one an image this subject saw, in the same order.
            rows = np.arange(len(ids)) if features.n_rows() == len(ids) else ids
            found = features.of(None, rows, int(rows.max()) + 1)
        else:
            images = Hdf5Images(self._images)
            found = features.of(images, ids, int(ids.max()) + 1)
        if self.feature_zscore == "train":
            return found
        row = np.searchsorted(ids, trials["id"])
        total = np.zeros(found.shape)
        for _, run in trials.groupby(["session", "run"]):
            own = row[run.index]
            values = found[own].astype(np.float64)
            spread = values.std(axis=0)
            z = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
            np.add.at(total, own, z)
        return total / np.bincount(row, minlength=len(ids))[:, None]

    def _average(
        self, folder: Path, trials: pd.DataFrame, ids: NDArray, kept: NDArray
    ) -> tuple[NDArray, NDArray, NDArray]:
        """responses.npy: z-scored betas (N, V), averaged over an image's valid repeats.

        A session's new rows are written aside, whole, before they replace the old ones, so that
        doing it again after a kill gives the same rows. Returns which voxels were valid in each
        session (S, V), and over all trials the sum of squares and the saturated trials (V,).
        """
        n_voxels = len(kept)
        path, state_path = folder / "responses.npy", folder / "state.npz"
        sessions = sorted(self._sessions)
        if state_path.exists():
            with np.load(state_path, allow_pickle=False) as saved:
                state = dict(saved)
        else:
            np.lib.format.open_memmap(path, "w+", np.float32, (len(ids), n_voxels)).flush()
            state = {
                "done": np.array(0),
                "valid": np.zeros((len(sessions), n_voxels), dtype=bool),
                "squares": np.zeros(n_voxels),
                "saturated": np.zeros(n_voxels, dtype=np.int64),
            }
        responses = np.load(path, mmap_mode="r+")
        repeats = self._repeats(trials, ids, sessions)
        for rows_path in folder.glob("rows_*.npy"):
            k = int(rows_path.stem.removeprefix("rows_"))
            if k < state["done"]:  # killed while the rows of this session were being replaced
                self._replace(responses, trials, ids, sessions[k], rows_path)
            else:  # killed before the state knew of them
                rows_path.unlink()
        with stage_progress() as progress:
            task = progress.add_task(
                "betas", total=len(sessions), unit="sessions", completed=int(state["done"])
            )
            for k in range(int(state["done"]), len(sessions)):
                own = trials[trials["session"] == sessions[k]]
                betas, saturated = self._read_session(sessions[k], len(own), kept)
                valid = _standardise(betas, own["run"].to_numpy(), self.zscore)
                image = np.searchsorted(ids, own["id"])
                order = np.argsort(image, kind="stable")
                rows, first = np.unique(image[order], return_index=True)
                for v in voxel_blocks(n_voxels):
                    z = np.where(valid[v], betas[:, v], 0).astype(np.float64)
                    state["squares"][v] += np.square(z).sum(axis=0)
                    before = repeats[rows, :k] @ state["valid"][:k, v].astype(np.float64)
                    new = before * responses[rows, v] + np.add.reduceat(z[order], first, axis=0)
                    count = before + np.outer(repeats[rows, k], valid[v])
                    # The first rows of the session's own array carry the result: no second copy.
                    betas[: len(rows), v] = np.divide(
                        new, count, out=np.zeros_like(new), where=count > 0
                    )
                state["valid"][k] = valid
                state["saturated"] += saturated
                state["done"] = np.array(k + 1)
                rows_path = folder / f"rows_{k}.npy"
                write_array(rows_path, betas[: len(rows)])
                with atomic_file(state_path) as temporary, open(temporary, "wb") as file:
                    np.savez(file, **state)
                self._replace(responses, trials, ids, sessions[k], rows_path)
                progress.update(task, advance=1)
        return state["valid"], state["squares"], state["saturated"]

    @staticmethod
    def _replace(
        responses: NDArray, trials: pd.DataFrame, ids: NDArray, session: int, rows_path: Path
    ) -> None:
        own = trials.loc[trials["session"] == session, "id"]
        responses[np.unique(np.searchsorted(ids, own))] = np.load(rows_path, mmap_mode="r")
        responses.flush()
        rows_path.unlink()

    @staticmethod
    def _repeats(trials: pd.DataFrame, ids: NDArray, sessions: list[int]) -> NDArray[np.float64]:
        """(N, S): how often each image was shown in each session."""
        counts = np.zeros((len(ids), len(sessions)))
        row = np.searchsorted(ids, trials["id"])
        np.add.at(counts, (row, np.searchsorted(sessions, trials["session"])), 1)
        return counts

    def _finish(self, folder, trials, ids, stimuli, voxels, valid, squares, kept) -> None:
        """Missing responses become NaN; ncsnr and the noise ceiling join the voxel table."""
        responses = np.load(folder / "responses.npy", mmap_mode="r+")
        repeats = self._repeats(trials, ids, sorted(self._sessions))
        test = stimuli["split"].to_numpy() == "test"
        inverse, computed = np.empty(len(voxels)), np.empty(len(voxels))
        for v in voxel_blocks(len(voxels)):
            count = repeats @ valid[:, v].astype(np.float64)  # (N, v)
            mean = np.where(count > 0, responses[:, v], 0).astype(np.float64)
            missing = count == 0
            if missing.any():
                block = np.array(responses[:, v])
                block[missing] = np.nan
                responses[:, v] = block
            inverse[v] = (1 / np.where(missing, np.nan, count))[test].mean(axis=0)
            computed[v] = ncsnr_from_sums(count, mean, squares[v])
        responses.flush()
        voxels["ncsnr"] = computed if self.noise_ceiling == "repeats" else self._map("ncsnr")[kept]
        voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), inverse)

    def _check_disk(self, folder: Path, n_images: int, n_voxels: int) -> None:
        needed = 4 * n_voxels * (n_images + 750)
        there = sum(path.stat().st_blocks * 512 for path in folder.glob("responses.npy"))
        free = shutil.disk_usage(folder).free
        if free + there < needed * 1.02:
            raise InputError(
                f"output: preparing {self.subject} needs {needed * 1.02 / 1e9:.1f} GB at {folder}, "
                f"where {free / 1e9:.1f} GB are free"
            )

    # --- betas and maps ---

    def _read_session(self, session: int, n_trials: int, kept: NDArray) -> tuple[NDArray, NDArray]:
        """Betas (n_trials, V) float32 in percent signal change, and saturated trials (V,)."""
        paths = self._sessions[session]
        try:
            if self._on_surface:
                return self._read_surface(paths, n_trials, kept)
            return self._read_volume(paths[0], n_trials, kept)
        except (OSError, EOFError, KeyError, nib.filebasedimages.ImageFileError) as error:
            raise InputError(f"data: {paths[0]} cannot be read ({error})") from error

    def _read_volume(self, path: Path, n_trials: int, kept: NDArray) -> tuple[NDArray, NDArray]:
        shape = self._grid.shape
        i, j, k = np.unravel_index(kept, shape)
        raw = np.empty((n_trials, len(kept)), dtype=np.float32)
        saturated = np.zeros(len(kept), dtype=np.int64)
        for level, slab in self._slabs(path, n_trials, np.unique(k)):  # (n_trials, Y, X) int16
            own = np.flatnonzero(k == level)
            values = slab[:, j[own], i[own]]
            saturated[own] = (np.abs(values.astype(np.int32)) >= _SATURATED).sum(axis=0)
            # Zero in every trial: outside the brain or invalid in this session
            raw[:, own] = np.where(values.any(axis=0), values / np.float32(_PERCENT), np.nan)
        return raw, saturated

    def _slabs(self, path: Path, n_trials: int, levels: NDArray) -> Iterator[tuple[int, NDArray]]:
        """Axial slices (n_trials, Y, X) of a session, int16."""
        expected = (n_trials, *self._grid.shape[::-1])
        if path.suffix in (".hdf5", ".mat"):
            with h5py.File(path, "r") as file:
                betas = file["betas"]
                _check_shape(path, betas.shape, expected)
                for level in levels:  # a chunk is one voxel: whole slices read each chunk once
                    yield int(level), betas[:, level]
        else:
            image = nib.load(path)
            _check_shape(path, image.shape[::-1], expected)
            volume = np.asarray(image.dataobj.get_unscaled())  # (X, Y, Z, n_trials)
            for level in levels:
                yield int(level), volume[:, :, level].transpose(2, 1, 0)

    def _read_surface(
        self, paths: list[Path], n_trials: int, kept: NDArray
    ) -> tuple[NDArray, NDArray]:
        raw = np.empty((n_trials, len(kept)), dtype=np.float32)
        for side, path in enumerate(paths):
            image = nib.load(path)
            _check_shape(path, image.shape, (_N_FSAVERAGE, 1, 1, n_trials))
            own = np.flatnonzero(kept // _N_FSAVERAGE == side)
            values = np.asarray(image.dataobj)[:, 0, 0]  # percent signal change already
            raw[:, own] = values[kept[own] % _N_FSAVERAGE].T
        return raw, np.zeros(len(kept), dtype=np.int64)

    @cached_property
    def _grid(self) -> nib.Nifti1Image:
        """The brain mask: its shape and affine are those of every volume of the subject."""
        path = self._ppdata / self.space / "brainmask.nii.gz"
        if not path.exists():
            raise InputError(f"data.root={self.root} is not an NSD tree: no {path}")
        return nib.load(path)

    def _map(self, name: str) -> NDArray[np.float64]:
        """A map of the betas' folder over the whole grid, flat."""
        if self._on_surface:
            paths = [self._betas / f"{h}.{name}.mgh" for h in _HEMISPHERES.values()]
        else:
            paths = [self._betas / f"{name}.nii.gz"]
        if not all(path.exists() for path in paths):
            raise InputError(
                f"data.noise_ceiling=ncsnr needs {paths[0]}; choose data.noise_ceiling=repeats"
            )
        return self._flat(paths)

    def _flat(self, paths: list[Path]) -> NDArray[np.float64]:
        """One volume, or both hemispheres one after the other, flat and on the right grid."""
        expected = (_N_FSAVERAGE,) if self._on_surface else self._grid.shape
        parts = []
        for path in paths:
            image = nib.load(path)
            values = np.asarray(image.dataobj, dtype=np.float64)
            values = values.ravel() if self._on_surface else values
            _check_shape(path, values.shape, expected)
            parts.append(values.ravel())
        return np.concatenate(parts)

    def _roi_sets(self) -> pd.DataFrame:
        """A column an ROI set that is there: the name of each voxel's label, '' for none."""
        freesurfer = self.root / "nsddata" / "freesurfer"
        labels = [freesurfer / who / "label" for who in (self.subject, "fsaverage")]
        if self._on_surface:
            folder, prefix, suffix = labels[1], "lh.", ".mgz"
        else:
            folder, prefix, suffix = self._ppdata / self.space / "roi", "", ".nii.gz"
        columns = {}
        for path in sorted(folder.glob(f"{prefix}*{suffix}")):
            name = path.name.removeprefix(prefix).removesuffix(suffix)
            if name.startswith(("lh.", "rh.", "probmap_")):  # halves of a set; probabilities
                continue
            paths = [path]
            if self._on_surface:
                paths.append(folder / f"rh.{name}{suffix}")
            tables = [label / f"{name}.mgz.ctab" for label in labels]
            names = rois.label_names(name, tables)
            columns[name] = rois.named(self._flat(paths), names)
        return pd.DataFrame(columns)

    def _voxels(self) -> tuple[pd.DataFrame, dict | None, NDArray[np.int64]]:
        """The voxel table, the space of a volume, and which of the flat grid they are."""
        if self._on_surface:
            inside = np.ones(2 * _N_FSAVERAGE, dtype=bool)
        else:
            inside = np.asarray(self._grid.dataobj).ravel() > 0
        sets = self._roi_sets()
        if sets.empty:
            sets = pd.DataFrame(index=range(len(inside)))
        roi = rois.paper_roi(sets)
        if self.voxels != "brainmask":
            inside &= rois.chosen(self.voxels, sets, roi, "data.voxels")
        kept = np.flatnonzero(inside)
        if not len(kept):
            raise InputError(f"data.voxels={self.voxels}: no voxel of {self.subject} is in there")
        table = pd.DataFrame({"voxel": kept, "roi": roi[kept]})
        space = None
        if self._on_surface:
            sides = np.array(list(_HEMISPHERES))
            table["hemisphere"] = sides[kept // _N_FSAVERAGE]
            table["vertex"] = kept % _N_FSAVERAGE
        else:
            shape = self._grid.shape
            table["i"], table["j"], table["k"] = np.unravel_index(kept, shape)
            space = {"shape": list(shape), "affine": self._grid.affine.tolist()}
        return pd.concat([table, sets.iloc[kept].reset_index(drop=True)], axis=1), space, kept


def _standardise(betas: NDArray, run: NDArray, zscore: str) -> NDArray[np.bool_]:
    """Z-score (n_trials, V) in place; which voxels were finite and varied in every run (V,)."""
    valid = np.isfinite(betas).all(axis=0)
    groups = [run == number for number in np.unique(run)] if zscore == "run" else [slice(None)]
    for v in voxel_blocks(betas.shape[1]):
        for group in groups:
            values = betas[group, v].astype(np.float64)
            valid[v] &= np.ptp(values, axis=0) > 0
            if zscore != "none":
                spread = values.std(axis=0)
                scale = np.where(spread > 0, spread, 1)
                betas[group, v] = (values - values.mean(axis=0)) / scale
    return valid


def _check_shape(path: Path, found: tuple, expected: tuple) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(f"data: {path} has shape {tuple(found)}, expected {tuple(expected)}")


def _tell(voxels: pd.DataFrame, n_sessions: int) -> None:
    invalid = int((voxels["n_invalid_sessions"] > 0).sum())
    saturated = int((voxels["n_saturated_trials"] > 0).sum())
    if invalid:
        everywhere = int((voxels["n_invalid_sessions"] == n_sessions).sum())
        console.print(
            f"[yellow]{invalid} of {len(voxels)} voxels are constant or missing in some session "
            f"({everywhere} in all): those trials are left out of their means[/yellow]"
        )
    if saturated:
        console.print(
            f"[yellow]{saturated} of {len(voxels)} voxels have trials at the end of the int16 "
            f"range: kept, and counted in voxels.csv[/yellow]"
        )
