"""Any user's features and responses, from .npy, .npz or HDF5 files.

Features are (n_stimuli, n_features), or (n_stimuli, n_layers, n_features) with `layer` to choose
one. Responses are (n_stimuli, n_voxels), or (n_stimuli, n_voxels, n_repeats) with NaN where a
repeat is missing; repeats are averaged and give the noise ceiling.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator

from jne.analysis.noise_ceiling import noise_ceiling, noise_ceiling_snr
from jne.data.prepared import SPLITS, Source, random_split, write_prepared
from jne.errors import InputError
from jne.features.base import Features, OwnFeatures, layer_of
from jne.utils.arrays import read_array

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Arrays(Source):
    """`data=arrays`. Paths may be relative to `root`."""

    root: Path
    features: Path | None = None
    image_path: Path | None = Field(default=None, alias="images")
    """A folder, zip or HDF5 file of images, image i in sorted order that of row i of responses."""
    image_features: SerializeAsAny[Features] = OwnFeatures(name="own", layer=None)
    """What is taken from the images."""
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

    @model_validator(mode="after")
    def _features_from_one_place(self) -> "Arrays":
        if (self.features is None) == (self.image_path is None):
            raise ValueError("give either data.features or data.images (and not both)")
        if self.image_path is not None and isinstance(self.image_features, OwnFeatures):
            raise ValueError("data.images needs features of them; choose features=clip_vit_b32")
        return self

    def input_files(self) -> list[Path]:
        named = (self.features, self.image_path, self.responses, self.voxels, self.stimuli)
        own = [self.root / path for path in named if path is not None]
        return own + self.image_features.input_files()

    @property
    def images_path(self) -> Path | None:
        return None if self.image_path is None else self.root / self.image_path

    def write(self, folder: Path) -> None:
        responses = read_array(
            self.root / self.responses,
            self.responses_key,
            "data.responses",
            "data.responses_key",
        )
        if responses.ndim not in (2, 3):
            raise InputError(
                f"data.responses must be (n_stimuli, n_voxels) or (n_stimuli, n_voxels, "
                f"n_repeats), found shape {responses.shape}"
            )
        if self.transpose_responses:
            responses = responses.swapaxes(0, 1)
        features = self._features(len(responses))
        self._check_same_stimuli(features, responses)
        stimuli = self._stimuli(len(features))
        images = self.images()
        if images is not None:
            stimuli["image"] = images.names
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

    def _features(self, n_stimuli: int) -> NDArray:
        images = self.images()
        if images is None:
            features = read_array(
                self.root / self.features, self.features_key, "data.features", "data.features_key"
            )
            if self.transpose_features:
                features = features.T
            path = self.root / self.features
            return layer_of(features, self.layer, self.first_layer, "data", path)
        if len(images) != n_stimuli:
            raise InputError(
                f"data.images: {images.path} holds {len(images)} images, but data.responses has "
                f"{n_stimuli} stimuli"
            )
        return self.image_features.of(images, np.arange(n_stimuli), n_stimuli)

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
            table["split"] = random_split(n_stimuli, self.n_val, self.n_test, self.split_seed)
        elif "split" not in table:
            raise InputError("data.split=fixed needs a column `split` in data.stimuli")
        unknown = sorted(set(table["split"].astype(str)).difference(SPLITS))
        if unknown:
            raise InputError(
                f"data.stimuli: unknown split {unknown[0]!r}; write {', '.join(SPLITS)}"
            )
        return table


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
