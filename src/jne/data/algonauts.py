"""The Algonauts 2023 challenge as it is downloaded (Gifford et al. 2023), which is made from NSD.

Responses are on fsaverage, already z-scored within sessions and averaged over repeats. The
responses to the challenge's test images are not public, so all splits are drawn from its training
images.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from jne.data.nsd import rois
from jne.data.nsd.spaces import HEMISPHERES
from jne.data.prepared import Source, write_prepared
from jne.data.splits import Count, Share, random_split
from jne.errors import InputError
from jne.features.base import ImageFeatures, Precomputed
from jne.features.images import Images
from jne.utils.arrays import read_array
from jne.utils.reading import reading


class Algonauts(Source):
    """`data=algonauts`: `root` holds subj01, ..., subj08."""

    citation: ClassVar[str] = (
        "Gifford et al. (2023), The Algonauts Project 2023 Challenge: How the human brain makes "
        "sense of natural scenes, arXiv 2301.03198; Allen et al. (2022), A massive 7T fMRI dataset "
        "to bridge cognitive neuroscience and artificial intelligence, Nature Neuroscience 25"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"

    root: Path
    voxels: rois.Regions | None
    """ROI sets, ROIs, tiers or labels; None: all vertices of the challenge."""
    n_val: Share | Count
    n_test: Share | Count
    split_seed: int = Field(ge=0)
    image_features: ImageFeatures

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
            for path in self._responses.values():
                if not path.exists():
                    raise InputError(
                        f"data.root={self.root} is not an Algonauts 2023 tree with "
                        f"{self.subject}: no {path}"
                    )
        return [*self._responses.values(), *self.image_features.input_files()]

    def write(self, folder: Path) -> None:
        left, right = (_read(path) for path in self._responses.values())
        n = len(left)
        if len(right) != n:
            raise InputError(
                f"data.root: {self._responses['left']} has {n} images, "
                f"{self._responses['right']} {len(right)}"
            )
        voxels = pd.concat(
            [self._hemisphere("left", left.shape[1]), self._hemisphere("right", right.shape[1])],
            ignore_index=True,
        )
        sets = voxels.drop(columns=["hemisphere", "vertex"]).fillna("")
        roi = rois.paper_roi(sets)
        voxels.insert(0, "voxel", np.arange(len(voxels)))
        voxels.insert(1, "roi", roi)
        kept = np.arange(len(voxels))
        if self.voxels is not None:
            kept = rois.select(self.voxels, sets, roi, np.ones(len(voxels), dtype=bool))
        split = random_split(n, self.n_val, self.n_test, self.split_seed)
        stimuli = pd.DataFrame({"stimulus": np.arange(n), "split": split})
        images = None
        if not isinstance(self.image_features, Precomputed):
            images = self._matching_images(n)
            stimuli["stimulus"] = stimuli["image"] = images.names
        features = self.image_features.of(images, np.arange(n), n)
        responses = np.concatenate([left, right], axis=1)[:, kept]
        voxels = voxels.iloc[kept].reset_index(drop=True)
        write_prepared(self, folder, features, responses, stimuli, voxels)

    def _matching_images(self, n: int) -> Images:
        """The training images, of which there must be n."""
        images = self.images()
        if images is None or len(images) != n:
            n_images = 0 if images is None else len(images)
            raise InputError(
                f"data.root: {self._image_folder} has {n_images} images, but there are responses "
                f"to {n}"
            )
        return images

    def _hemisphere(self, side: str, n_vertices: int) -> pd.DataFrame:
        """The vertices of a hemisphere, in the order of its responses.

        Columns: hemisphere, vertex, and for each ROI set the name of the vertex's label.
        """
        prefix, masks = HEMISPHERES[side], self._folder / "roi_masks"
        path = masks / f"{prefix}.all-vertices_fsaverage_space.npy"
        if not path.exists():
            raise InputError(f"data.root={self.root} is not an Algonauts 2023 tree: no {path}")
        vertex = np.flatnonzero(_read(path))
        if len(vertex) != n_vertices:
            raise InputError(
                f"data.root: {path} marks {len(vertex)} vertices, but there are responses of "
                f"{n_vertices}"
            )
        table = pd.DataFrame({"hemisphere": side, "vertex": vertex})
        for name, labels in rois.LABELS.items():
            path = masks / f"{prefix}.{name}_challenge_space.npy"
            if path.exists():
                values = _read(path)
                if len(values) != n_vertices:
                    raise InputError(
                        f"data.root: {path} has {len(values)} vertices, expected {n_vertices}"
                    )
                table[name] = rois.named(values, dict(enumerate(labels, start=1)))
        return table


def _read(path: Path) -> NDArray:
    return read_array(path, None, "data.root", "data.root")
