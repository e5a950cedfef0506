"""Users' own features and responses, from .npy, .npz or HDF5 files.

Features are (n_stimuli, n_features), or (n_stimuli, n_layers, n_features) with `layer` to choose
one layer. Several feature spaces are several files, each under a name, or several layers. Responses
are (n_stimuli, n_voxels), or (n_stimuli, n_voxels, n_repeats) with NaN where a repeat is missing;
repeats are averaged and give the noise ceiling.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from pydantic import (
    Field,
    SerializeAsAny,
    model_validator,
)

from jne.analysis.noise_ceiling import averages, noise_ceiling
from jne.analysis.repeats import repeats_of
from jne.data.centring import offset
from jne.data.prepared import Prepared, write_prepared
from jne.data.source import Source
from jne.data.splits import SPLITS, Count, Share, random_split
from jne.data.volume import Grid, regions_of
from jne.data.voxel_table import check_voxel_table, shares_of_percent, with_numbers
from jne.errors import InputError
from jne.features.base import (
    Features,
    InOrder,
    Layer,
    OwnFeatures,
    each_layer,
    layer_of,
    not_given,
)
from jne.features.images import Images
from jne.features.pairing import check_one_order, rows_by_name
from jne.utils.arrays import read_array
from jne.utils.files import write_json
from jne.utils.paths import Folder, UserPath
from jne.utils.progress import say
from jne.utils.spaces import FeatureArrays, check_names, joined, named
from jne.utils.user_tables import read_user_table

# Keys of data.features alone, and their values where there are none
_OF_FEATURES = {"layer": None, "first_layer": 1, "features_key": None, "transpose_features": False}


class Arrays(Source):
    """`data=arrays`. Paths may be relative to `root`."""

    root: Folder
    features: UserPath | Annotated[dict[str, UserPath], InOrder] | None = None
    """Of one feature space; or of several, by their names."""
    image_path: UserPath | None = Field(default=None, alias="images")
    """A folder, zip or HDF5 file of images. Which of them a row shows is in the column `image` of
    `stimuli`; without it, image i in the order of their names belongs to row i."""
    image_features: SerializeAsAny[Features] = OwnFeatures(name="own", layer=None)
    """How features are computed from the images."""
    responses: UserPath
    features_key: str | None = None
    """The dataset inside an HDF5 or .npz file; needed where the file has several."""
    responses_key: str | None = None
    layer: Layer = None
    """Which layer of 3-D features, or which, as feature spaces; the array's first layer has
    the number `first_layer`."""
    first_layer: int = 1
    """1 where the array starts at the first block, 0 where it starts at the embedding."""
    transpose_features: bool = False
    """True for features of shape (n_features, n_stimuli)."""
    transpose_responses: bool = False
    """True for responses of shape (n_voxels, n_stimuli) or (n_voxels, n_stimuli, n_repeats)."""
    voxels: UserPath | None = None
    """A CSV with one row per voxel. All columns are kept; a column `ncsnr` is used."""
    roi_column: str | None = "roi"
    """None: its voxels have no regions."""
    mask: UserPath | None = Field(default=None, exclude_if=not_given)
    """A NIfTI image: the voxels are those above 0, in the order of nilearn's NiftiMasker."""
    surface: Literal["fsaverage5", "fsaverage6", "fsaverage", "fsLR"] | None = Field(
        default=None, exclude_if=not_given
    )
    """The voxels are all vertices of this mesh, those of the left hemisphere first."""
    atlas: UserPath | None = Field(default=None, exclude_if=not_given)
    """A NIfTI image of whole numbers on the grid of the mask, the regions of the voxels."""
    atlas_labels: UserPath | None = Field(default=None, exclude_if=not_given)
    """A table with the columns index and name."""
    noise_ceiling_unit: Literal["percent"] | None = Field(default=None, exclude_if=not_given)
    """`percent`, where that is the unit of the column `noise_ceiling`; None: shares from 0 to 1."""
    stimuli: UserPath | None = None
    """A CSV with one row per stimulus: stimulus (an id), split, ... All columns are kept."""
    split: Literal["random", "fixed"] = "random"
    """`fixed`: as in the column `split` (train, val, test) of `stimuli`."""
    n_val: Share | Count = 0.1
    n_test: Share | Count = 0.1
    """For a random split: shares or numbers of the stimuli."""
    split_seed: int = Field(default=0, ge=0)
    # Here they change the split that is drawn, and so what is written
    groups: str | None = Field(default=None, exclude_if=not_given)
    purge: int = Field(default=0, ge=0, exclude_if=lambda purge: purge == 0)

    @model_validator(mode="after")
    def _check_keys(self) -> "Arrays":
        if bool(self.features) == (self.image_path is not None):
            raise ValueError("give either data.features or data.images (and not both)")
        if self.image_path is not None and isinstance(self.image_features, OwnFeatures):
            raise ValueError("data.images needs features of them; choose features=clip_vit_b32")
        if isinstance(self.features, dict):
            check_names(self.features, "features")
        idle = [name for name, value in _OF_FEATURES.items() if getattr(self, name) != value]
        if self.image_path is not None and idle:
            raise InputError(
                idle[0],
                "has no effect on features of data.images, whose own key is features.layer; leave "
                "it out",
                value=getattr(self, idle[0]),
            )
        for name, needed in (("atlas", "mask"), ("atlas_labels", "atlas")):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                value = getattr(self, name)
                raise InputError(name, f"has no effect without data.{needed}; leave it out", value)
        if self.surface is not None and self.mask is not None:
            message = "says where the voxels are, and so does data.mask; leave one out"
            raise InputError("surface", message, value=self.surface)
        if self.voxels is None and self.noise_ceiling_unit is not None:
            raise InputError(
                "noise_ceiling_unit",
                "has no effect without data.voxels; leave it out",
                value=self.noise_ceiling_unit,
            )
        return self

    def input_files(self) -> list[Path]:
        paths = (
            *self._feature_files,
            self.image_path,
            self.responses,
            self.voxels,
            self.stimuli,
            self.mask,
            self.atlas,
            self.atlas_labels,
        )
        files = [self.root / path for path in paths if path is not None]
        return files + self.image_features.input_files()

    @property
    def images_path(self) -> Path | None:
        return None if self.image_path is None else self.root / self.image_path

    @property
    def takes_features(self) -> bool:
        return self.image_path is not None

    def write(self, folder: Path) -> None:
        responses = self._read_responses()
        images = self.images()
        if images is None:
            features = self._read_features()
            self._check_same_stimuli(features, responses)
        stimuli = self._stimulus_table(len(responses))
        if images is not None:
            rows = self._image_rows(images, stimuli)
            features = self.image_features.each(
                lambda space: space.extract(images, rows, len(images))
            )
            stimuli["image"] = np.array(images.names)[rows]
        voxels = self._voxel_table(responses.shape[1])
        repeats = None
        if responses.ndim == 3:
            repeats = repeats_of(responses)
            averaged = averages(responses, stimuli["split"].to_numpy() == "test")
            if "ncsnr" not in voxels:
                voxels["ncsnr"] = averaged.ncsnr
            voxels["noise_ceiling"] = noise_ceiling(voxels["ncsnr"].to_numpy(), averaged.inverse)
            responses = averaged.mean
        if self.mask is not None:
            write_json(folder / "space.json", self._grid.geometry())
        write_prepared(self, folder, features, responses, stimuli, voxels, repeats)

    def supersedes(self, earlier: Prepared) -> bool:
        """Earlier versions took names for numbers, paired images with rows in the order of their
        names as text, and rounded what does not fit float32 or, while it is summed, float16.
        """
        n, n_voxels = earlier.responses.shape
        stimuli, images = self._stimulus_table(n), self.images()
        if images is not None:
            stimuli["image"] = np.array(images.names)[self._image_rows(images, stimuli)]
        elif offset(joined(self._read_features())[0]) is not None:
            return True
        responses = self._read_responses()
        if responses.ndim == 3:
            rounded = responses.dtype == np.float16
        else:
            rounded = offset(responses) is not None
        voxels = self._voxel_table(n_voxels)
        return rounded or _differ(stimuli, earlier.stimuli) or _differ(voxels, earlier.voxels)

    def _read_responses(self) -> NDArray:
        """(n_stimuli, n_voxels) or (n_stimuli, n_voxels, n_repeats)."""
        path = self.root / self.responses
        responses = read_array(path, self.responses_key, "data.responses", "data.responses_key")
        if responses.ndim not in (2, 3):
            raise InputError(
                "data.responses",
                f"must be (n_stimuli, n_voxels) or (n_stimuli, n_voxels, n_repeats), found shape "
                f"{responses.shape}",
            )
        return responses.swapaxes(0, 1) if self.transpose_responses else responses

    @property
    def _feature_files(self) -> list[Path]:
        if isinstance(self.features, dict):
            return list(self.features.values())
        return [] if self.features is None else [self.features]

    def _read_features(self) -> FeatureArrays:
        if not isinstance(self.features, dict):
            assert self.features is not None  # or there would be images
            return self._read_space(self.features)
        spaces: dict[str, NDArray] = {}
        for name, file in self.features.items():
            spaces |= named(name, self._read_space(file))
        return spaces

    def _read_space(self, file: Path) -> FeatureArrays:
        path = self.root / file
        array = read_array(path, self.features_key, "data.features", "data.features_key")
        if self.transpose_features:
            array = array.T
        return each_layer(
            self.layer, lambda layer: layer_of(array, layer, self.first_layer, "data", path)
        )

    def _image_rows(self, images: Images, stimuli: pd.DataFrame) -> NDArray[np.int64]:
        """Which of the images each stimulus (N,) shows; prints the first and the last."""
        n = len(stimuli)
        if "image" in stimuli:
            rows = rows_by_name(images, stimuli["image"], "data.stimuli")
        elif len(images) == n:
            remedy = "name the image of each row in a column `image` of data.stimuli"
            check_one_order(images, "data.images", remedy)
            rows = np.arange(n)
        else:
            raise InputError(
                "data.images",
                f"{images.path} holds {len(images)} images, but data.responses has {n} stimuli; "
                f"a column `image` of data.stimuli may name those that were shown",
            )
        first, last = images.names[rows[0]], images.names[rows[-1]]
        say(f"images     row 0 is {first}, row {n - 1} is {last}", soft_wrap=True, highlight=False)
        return rows

    def _check_same_stimuli(self, features: FeatureArrays, responses: NDArray) -> None:
        matrix, _ = joined(features)
        n, shape = len(matrix), responses.shape
        if shape[0] == n:
            return
        message = f"{n} stimuli, but data.responses has {shape[0]} (shape {shape})"
        if shape[1] == n:
            message += f"; set data.transpose_responses={str(not self.transpose_responses).lower()}"
        elif matrix.shape[1] == shape[0]:
            message += f"; set data.transpose_features={str(not self.transpose_features).lower()}"
        raise InputError("data.features", message)

    @property
    def _grid(self) -> Grid:
        assert self.mask is not None
        return Grid(self.root / self.mask, "data.mask")

    def _voxel_table(self, n_voxels: int) -> pd.DataFrame:
        table = self._user_voxels(n_voxels)
        key = "surface" if self.surface is not None else "mask"
        if getattr(self, key) is None:
            return table
        places = ("hemisphere", "vertex", "mesh", "i", "j", "k")
        if taken := [name for name in places if name in table]:
            raise InputError(
                f"data.{key}",
                f"says where the voxels are, and so does the column {taken[0]} of {self.voxels}; "
                f"leave one out",
            )
        if self.surface is not None:
            from jne.data.surface import vertices_of  # loads nilearn, which takes a second

            return table.join(vertices_of(self.surface, n_voxels))
        grid = self._grid
        kept = np.flatnonzero(grid.brain())
        if len(kept) != n_voxels:
            raise InputError(
                "data.mask",
                f"has {len(kept)} voxels above 0, but data.responses has {n_voxels}",
                value=self.mask,
            )
        table[["i", "j", "k"]] = grid.positions(kept)
        if self.atlas is not None:
            if (table["roi"] != "").any():
                raise InputError(
                    "data.atlas",
                    f"names regions, and so does {self.voxels}; set data.roi_column=null",
                )
            labels = None if self.atlas_labels is None else self.root / self.atlas_labels
            table["roi"] = regions_of(grid, kept, self.root / self.atlas, labels)
        return table

    def _user_voxels(self, n_voxels: int) -> pd.DataFrame:
        if self.voxels is None:
            return pd.DataFrame({"voxel": np.arange(n_voxels), "roi": ""})
        path = self.root / self.voxels
        table = _read_table(path, "data.voxels", n_voxels, "voxels")
        if self.roi_column is None:
            table["roi"] = ""
        elif self.roi_column not in table:
            raise InputError(
                "data.roi_column",
                f"not a column of {self.voxels}, which has {', '.join(table.columns)}",
                value=self.roi_column,
            )
        elif self.roi_column != "roi" and "roi" in table:
            raise InputError(
                "data.roi_column",
                f"{self.voxels} also has a column roi; rename it",
                value=self.roi_column,
            )
        else:
            table = table.rename(columns={self.roi_column: "roi"})
        if "voxel" not in table:
            table.insert(0, "voxel", np.arange(n_voxels))
        table = with_numbers(table, "data.voxels", str(path))
        if self.noise_ceiling_unit == "percent":
            table["noise_ceiling"] = shares_of_percent(table, "data.voxels", str(self.voxels))
        check_voxel_table(table, "data.voxels", str(path))
        return table

    def _stimulus_table(self, n_stimuli: int) -> pd.DataFrame:
        if self.stimuli is None:
            table = pd.DataFrame({"stimulus": np.arange(n_stimuli)})
        else:
            table = _read_table(self.root / self.stimuli, "data.stimuli", n_stimuli, "stimuli")
            if "stimulus" not in table:
                raise InputError("data.stimuli", f"{self.stimuli} has no column `stimulus`")
            if table["stimulus"].duplicated().any():
                repeated = table["stimulus"][table["stimulus"].duplicated()].iloc[0]
                raise InputError(
                    "data.stimuli",
                    f"stimulus {repeated} has several rows; give repeats of a "
                    f"stimulus as a third axis of data.responses",
                )
        if self.split == "random":
            table["split"] = self._drawn_split(table)
        elif "split" not in table:
            raise InputError("data.split", "needs a column `split` in data.stimuli", value="fixed")
        unknown = sorted(set(table["split"]).difference(SPLITS))
        if unknown:
            raise InputError(
                "data.stimuli", f"unknown split {unknown[0]!r}; write {', '.join(SPLITS)}"
            )
        return table

    def _drawn_split(self, stimuli: pd.DataFrame) -> NDArray[np.str_] | str:
        """The split of each stimulus (N,), or that of all."""
        together = self.cutting.belonging(stimuli)
        return random_split(len(stimuli), self.n_val, self.n_test, self.split_seed, together)


def _differ(table: pd.DataFrame, earlier: pd.DataFrame) -> bool:
    """Whether a table of text has other columns or names than an earlier one."""
    names = [name for name in table if name not in earlier or not is_numeric_dtype(earlier[name])]
    names.append("stimulus" if "stimulus" in table else "voxel")
    return any(
        name not in earlier or (table[name].astype(str) != earlier[name].astype(str)).any()
        for name in names
    )


def _read_table(path: Path, config_key: str, n_rows: int, what: str) -> pd.DataFrame:
    table = read_user_table(path, config_key)
    if len(table) != n_rows:
        raise InputError(
            config_key, f"{path} has {len(table)} rows, but the arrays have {n_rows} {what}"
        )
    return table
