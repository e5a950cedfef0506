"""Any user's features and responses, from .npy, .npz or HDF5 files.

Features are (n_stimuli, n_features), or (n_stimuli, n_layers, n_features) with `layer` to choose
one. Responses are (n_stimuli, n_voxels), or (n_stimuli, n_voxels, n_repeats) with NaN where a
repeat is missing; repeats are averaged and give the noise ceiling.
"""

from pathlib import Path
from typing import Annotated, Literal

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.data.prepared import SPLITS, Source, write_prepared
from jne.errors import InputError
from jne.scoring import noise_ceiling, noise_ceiling_snr

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Arrays(Source):
    """`data=arrays`. Paths may be relative to `root`."""

    root: Path
    features: Path
    responses: Path
    features_key: str | None = None
    """The dataset inside an HDF5 or .npz file; needed where the file has several."""
    responses_key: str | None = None
    layer: int | None = None
    """Which layer of 3-D features; the array's first is number `first_layer`."""
    first_layer: int = 1
    """1 where the array starts at the first block, 0 where it starts at the embedding."""
    transpose_features: bool = False
    """True for features that come as (n_features, n_stimuli)."""
    transpose_responses: bool = False
    """True for responses that come as (n_voxels, n_stimuli) or (n_voxels, n_stimuli, R)."""
    voxels: Path | None = None
    """CSV with one row a voxel; every column is kept, ncsnr is used if there is one."""
    roi_column: str = "roi"
    stimuli: Path | None = None
    """CSV with one row a stimulus: stimulus (an id), split, category, ...; every column is kept."""
    split: Literal["random", "fixed"] = "random"
    """`fixed` takes the column `split` (train, val, test) of `stimuli`."""
    n_val: Share | Count = 0.1
    n_test: Share | Count = 0.1
    """Of a random split: a share of the stimuli or a number of them."""
    split_seed: int = Field(default=0, ge=0)

    def input_files(self) -> list[Path]:
        named = (self.features, self.responses, self.voxels, self.stimuli)
        return [self.root / path for path in named if path is not None]

    def write(self, folder: Path) -> None:
        features = self._features()
        responses = _read(self.root / self.responses, self.responses_key, "data.responses")
        if responses.ndim not in (2, 3):
            raise InputError(
                f"data.responses must be (n_stimuli, n_voxels) or (n_stimuli, n_voxels, "
                f"n_repeats), found shape {responses.shape}"
            )
        if self.transpose_responses:
            responses = responses.swapaxes(0, 1)
        self._check_same_stimuli(features, responses)
        stimuli = self._stimuli(len(features))
        voxels = self._voxels(responses.shape[1])
        if responses.ndim == 3:
            repeats, counts = responses, np.isfinite(responses).sum(axis=2)
            total = np.where(np.isfinite(repeats), repeats, 0).sum(axis=2)
            responses = np.divide(
                total, counts, out=np.full(counts.shape, np.nan), where=counts > 0
            )
            if "ncsnr" not in voxels:
                voxels["ncsnr"] = noise_ceiling_snr(repeats)
            test = counts[stimuli["split"].to_numpy() == "test"]
            inverse = np.divide(1, test, out=np.full(test.shape, np.nan), where=test > 0)
            voxels["noise_ceiling"] = noise_ceiling(
                voxels["ncsnr"].to_numpy(), inverse.mean(axis=0)
            )
        write_prepared(folder, features, responses, stimuli, voxels)

    def _features(self) -> NDArray:
        features = _read(self.root / self.features, self.features_key, "data.features")
        if self.layer is None:
            if features.ndim != 2:
                raise InputError(
                    f"data.features must be (n_stimuli, n_features), found shape "
                    f"{features.shape}; choose one of its layers with data.layer"
                )
            return features.T if self.transpose_features else features
        if features.ndim != 3:
            raise InputError(
                f"data.layer={self.layer} needs features of shape (n_stimuli, n_layers, "
                f"n_features), found {features.shape}; set data.layer=null"
            )
        last = self.first_layer + features.shape[1] - 1
        if not self.first_layer <= self.layer <= last:
            raise InputError(
                f"data.layer={self.layer} is out of range: {self.root / self.features} has "
                f"layers {self.first_layer} to {last}"
            )
        return features[:, self.layer - self.first_layer]

    def _check_same_stimuli(self, features: NDArray, responses: NDArray) -> None:
        n, found = len(features), responses.shape
        if found[0] == n:
            return
        message = f"data.features has {n} stimuli but data.responses has {found[0]} (shape {found})"
        if found[1] == n:
            message += f"; set data.transpose_responses={str(not self.transpose_responses).lower()}"
        elif features.shape[1] == found[0]:
            message += f"; set data.transpose_features={str(not self.transpose_features).lower()}"
        raise InputError(message)

    def _voxels(self, n_voxels: int) -> pd.DataFrame:
        if self.voxels is None:
            return pd.DataFrame({"voxel": np.arange(n_voxels), "roi": ""})
        table = _read_csv(self.root / self.voxels, "data.voxels", n_voxels, "voxels")
        if self.roi_column not in table:
            raise InputError(
                f"data.roi_column={self.roi_column} is not a column of {self.voxels}: it has "
                f"{', '.join(table.columns)}"
            )
        table = table.rename(columns={self.roi_column: "roi"})
        table["roi"] = table["roi"].fillna("").astype(str)
        if "voxel" not in table:
            table.insert(0, "voxel", np.arange(n_voxels))
        return table

    def _stimuli(self, n_stimuli: int) -> pd.DataFrame:
        if self.stimuli is None:
            table = pd.DataFrame({"stimulus": np.arange(n_stimuli)})
        else:
            table = _read_csv(self.root / self.stimuli, "data.stimuli", n_stimuli, "stimuli")
            if "stimulus" not in table:
                raise InputError(f"data.stimuli: {self.stimuli} has no column `stimulus`")
            if table["stimulus"].duplicated().any():
                twice = table["stimulus"][table["stimulus"].duplicated()].iloc[0]
                raise InputError(
                    f"data.stimuli: stimulus {twice} has several rows; give repeats of a "
                    f"stimulus as a third axis of data.responses"
                )
        if self.split == "random":
            table["split"] = self._random_split(n_stimuli)
        elif "split" not in table:
            raise InputError("data.split=fixed needs a column `split` in data.stimuli")
        unknown = sorted(set(table["split"].astype(str)).difference(SPLITS))
        if unknown:
            raise InputError(
                f"data.stimuli: unknown split {unknown[0]!r}; write {', '.join(SPLITS)}"
            )
        return table

    def _random_split(self, n: int) -> NDArray[np.str_]:
        n_test, n_val = (
            round(size * n) if isinstance(size, float) else size
            for size in (self.n_test, self.n_val)
        )
        if n_test + n_val >= n:
            raise InputError(
                f"data.n_test and data.n_val take {n_test} + {n_val} of {n} stimuli and leave "
                f"none to train on"
            )
        split = np.full(n, "train", dtype="<U5")
        order = np.random.default_rng(self.split_seed).permutation(n)
        split[order[:n_test]] = "test"
        split[order[n_test : n_test + n_val]] = "val"
        return split


def _read(path: Path, key: str | None, config_key: str) -> NDArray:
    """A numeric array from a .npy (memory-mapped), .npz or HDF5 file. Nothing is unpickled."""
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                array = archive[_only(list(archive), key, path, config_key)]
        elif path.suffix in (".h5", ".hdf5", ".hdf", ".mat"):
            with h5py.File(path, "r") as file:
                names: list[str] = []
                file.visititems(
                    lambda name, item: (
                        names.append(name) if isinstance(item, h5py.Dataset) else None
                    )
                )
                array = file[_only(names, key, path, config_key)][()]
        else:
            raise InputError(f"{config_key}: {path} is not a .npy, .npz or HDF5 file")
    except InputError:
        raise
    except (ValueError, OSError, EOFError) as error:
        if "Object arrays" in str(error) or "Python objects" in str(error):
            reason = "it holds Python objects, which are never unpickled; save a numeric array"
        else:
            reason = f"it cannot be read ({error})"
        raise InputError(f"{config_key}: {path}: {reason}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(f"{config_key}: {path} is not an array of real numbers")
    return array


def _only(names: list[str], key: str | None, path: Path, config_key: str) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return key
    found = ", ".join(names) or "nothing"
    raise InputError(f"{config_key}_key={key}: choose one dataset of {path}, which holds {found}")


def _read_csv(path: Path, config_key: str, n_rows: int, what: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{config_key}: {path} cannot be read as CSV ({error})") from error
    if len(table) != n_rows:
        raise InputError(
            f"{config_key}: {path} has {len(table)} rows, but the arrays have {n_rows} {what}"
        )
    return table
