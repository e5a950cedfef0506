"""The Algonauts 2023 challenge as it is downloaded (Gifford et al. 2023), which is made from NSD.

Responses are on fsaverage, already z-scored within sessions and averaged over repeats. The
responses to the challenge's test images are not public, so all splits are drawn from its training
images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.data import regions
from jne.data.leaks import Leaks
from jne.data.nsd import SYNTHETIC
from jne.data.nsd.images import N_IMAGES, image_number
from jne.data.nsd.labels import LABELS
from jne.data.nsd.spaces import HEMISPHERES
from jne.data.prepared import write_prepared
from jne.data.source import Source
from jne.data.splits import Count, Share, random_split
from jne.errors import InputError
from jne.features.base import Features, ImageFeatures
from jne.features.images import Images
from jne.features.precomputed import Precomputed
from jne.utils.arrays import read_array
from jne.utils.paths import Folder
from jne.utils.reading import reading


class Algonauts(Source):
    """`data=algonauts`: `root` holds subj01, ..., subj08."""

    in_order: ClassVar[bool] = False
    citation: ClassVar[str] = (
        "Gifford et al. (2023), The Algonauts Project 2023 Challenge: How the human brain makes "
        "sense of natural scenes, arXiv 2301.03198; Allen et al. (2022), A massive 7T fMRI dataset "
        "to bridge cognitive neuroscience and artificial intelligence, Nature Neuroscience 25"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"
    links: ClassVar[tuple[str, ...]] = ("https://algonautsproject.com/2023",)

    leaks: Leaks = Field(default="warn", exclude=True)
    root: Folder
    voxels: regions.Regions | None
    """ROI sets, ROIs, tiers or labels; None: all vertices of the challenge."""
    roi: str = regions.PAPER
    """What the column `roi` holds: the paper's ten ROIs, or the labels of this ROI set."""
    n_val: Share | Count
    n_test: Share | Count
    split_seed: int = Field(ge=0)
    image_features: ImageFeatures

    @classmethod
    def external_test(
        cls, test: str, settings: Mapping[str, Any], config: Path
    ) -> dict[str, Any] | None:
        if test != SYNTHETIC:
            return super().external_test(test, settings, config)
        return {"space": "fsaverage", "zscore": "session"}

    @property
    def _folder(self) -> Path:
        return self.root / self.subject

    @property
    def _responses(self) -> dict[str, Path]:
        """The file of each hemisphere, left then right."""
        folder = self._folder / "training_split" / "training_fmri"
        return {side: folder / f"{h}_training_fmri.npy" for side, h in HEMISPHERES.items()}

    @property
    def _image_folder(self) -> Path:
        return self._folder / "training_split" / "training_images"

    @property
    def images_path(self) -> Path | None:
        return self._image_folder if self._image_folder.is_dir() else None

    def input_files(self) -> list[Path]:
        with reading(self.root, "data.root"):
            vertices = [self._mask(side, "all-vertices_fsaverage_space") for side in HEMISPHERES]
            for path in (*self._responses.values(), *vertices):
                if not path.exists():
                    raise InputError(
                        "data.root",
                        f"not an Algonauts 2023 tree with {self.subject}: no {path}",
                        value=self.root,
                    )
            files = [*self._responses.values(), *vertices]
            for paths in self._roi_files().values():
                files += paths
            if self.images_path is not None:
                files.append(self.images_path)
        return files + self.image_features.input_files()

    def _mask(self, side: str, name: str) -> Path:
        return self._folder / "roi_masks" / f"{HEMISPHERES[side]}.{name}.npy"

    def _roi_files(self) -> dict[str, list[Path]]:
        """The files of both hemispheres of each ROI set that is there.

        Raises InputError where one of them is missing.
        """
        files_of_set = {}
        for roi_set in LABELS:
            files = [self._mask(side, f"{roi_set}_challenge_space") for side in HEMISPHERES]
            masks = [file for file in files if file.exists()]
            if len(masks) == 1:
                (absent,) = set(files).difference(masks)
                raise InputError("data.root", f"{masks[0]} is there, but {absent.name} is missing")
            if masks:
                files_of_set[roi_set] = files
        return files_of_set

    def write(self, folder: Path) -> None:
        left, right = (_read(path) for path in self._responses.values())
        n, sizes = len(left), (left.shape[1], right.shape[1])
        if len(right) != n:
            raise InputError(
                "data.root",
                f"{self._responses['left']} has {n} images, "
                f"{self._responses['right']} {len(right)}",
            )
        voxels = pd.concat(map(self._vertices, HEMISPHERES, sizes), ignore_index=True)
        sets = self._roi_sets(sizes)
        voxels.insert(0, "voxel", np.arange(len(voxels)))
        voxels.insert(1, "roi", regions.roi_column(sets, self.roi))
        voxels = pd.concat([voxels, sets.labels], axis=1)
        kept = np.arange(len(voxels))
        if self.voxels is not None:
            kept = regions.select(self.voxels, sets, np.ones(len(voxels), dtype=bool))
        split = random_split(n, self.n_val, self.n_test, self.split_seed)
        stimuli = pd.DataFrame({"stimulus": np.arange(n), "split": split})
        images = self._matching_images(n)
        if images is not None:
            stimuli["stimulus"] = stimuli["image"] = images.names
        features = self.image_features.each(lambda space: self._features(space, images, n))
        responses = np.concatenate([left, right], axis=1)[:, kept]
        voxels = voxels.iloc[kept].reset_index(drop=True)
        write_prepared(self, folder, features, responses, stimuli, voxels)

    def _matching_images(self, n: int) -> Images | None:
        """The training images, of which there must be n; None where they were not downloaded."""
        images = self.images()
        if images is not None and len(images) != n:
            raise InputError(
                "data.root",
                f"{self._image_folder} has {len(images)} images, but there are responses to {n}",
            )
        return images

    def _features(self, space: Features, images: Images | None, n: int) -> NDArray[np.float32]:
        if not isinstance(space, Precomputed):
            return space.extract(images, np.arange(n), n)
        if images is None and space.ids != "sorted":
            raise InputError(
                "data.root",
                f"the names of the images in {self._image_folder} have the numbers by "
                f"which rows of features are found, and it is not there; without them, "
                f"features.ids=sorted takes one row per image, in their order",
            )
        numbers = np.arange(n) if images is None else _numbers(images)
        return space.of_stimuli(numbers, n_numbered=N_IMAGES)

    def _vertices(self, side: str, n_vertices: int) -> pd.DataFrame:
        """Columns hemisphere, vertex and mesh, in the order of a hemisphere's responses."""
        path = self._mask(side, "all-vertices_fsaverage_space")
        vertex = np.flatnonzero(_read(path))
        if len(vertex) != n_vertices:
            raise InputError(
                "data.root",
                f"{path} marks {len(vertex)} vertices, but there are responses of {n_vertices}",
            )
        return pd.DataFrame({"hemisphere": side, "vertex": vertex, "mesh": "fsaverage"})

    def _roi_sets(self, sizes: tuple[int, int]) -> regions.RoiSets:
        """sizes: the number of vertices of each hemisphere."""
        labels = {}
        for roi_set, files in self._roi_files().items():
            values = [_read(file) for file in files]
            for file, value, size in zip(files, values, sizes, strict=True):
                if len(value) != size:
                    raise InputError(
                        "data.root", f"{file} has {len(value)} vertices, expected {size}"
                    )
            labels[roi_set] = np.concatenate(values)
        return regions.RoiSets.from_labels(labels, LABELS, sum(sizes))


def _numbers(images: Images) -> NDArray[np.int64]:
    """NSD's number of each image, which is in its name."""
    numbers = []
    for name in images.names:
        number = image_number(name)
        if number is None:
            raise InputError(
                "data.root",
                f"the name of {name} in {images.path} must have NSD's number of the "
                f"image, as in train-0001_nsd-00013.png",
            )
        numbers.append(number)
    return np.array(numbers)


def _read(path: Path) -> NDArray:
    return read_array(path, None, "data.root", "data.root")
