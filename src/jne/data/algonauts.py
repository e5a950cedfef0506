"""The Algonauts 2023 challenge as it is downloaded (Gifford et al. 2023), made from NSD.

Responses are on fsaverage, z-scored within sessions and averaged over repeats already. The
challenge kept the responses to its test images, so all splits are drawn from the training images.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SerializeAsAny

from jne.data.nsd import rois
from jne.data.prepared import Source, random_split, write_prepared
from jne.errors import InputError
from jne.features.base import Features, OwnFeatures, Precomputed
from jne.features.images import Images
from jne.utils.arrays import read_array

_HEMISPHERES = {"left": "lh", "right": "rh"}
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Algonauts(Source):
    """`data=algonauts`: `root` holds subj01, ..., subj08."""

    citation: ClassVar[str] = (
        "Gifford et al. (2023), The Algonauts Project 2023 Challenge: How the human brain makes "
        "sense of natural scenes, arXiv 2301.03198; Allen et al. (2022), A massive 7T fMRI dataset "
        "to bridge cognitive neuroscience and artificial intelligence, Nature Neuroscience 25"
    )
    licence: ClassVar[str] = "NSD data access agreement: no part may be passed on"

    root: Path
    voxels: Annotated[list[str] | None, BeforeValidator(lambda v: [v] if isinstance(v, str) else v)]
    """ROI sets, ROIs, tiers or labels; None: all vertices of the challenge."""
    n_val: Share | Count
    n_test: Share | Count
    split_seed: int = Field(ge=0)
    image_features: SerializeAsAny[Features]

    @property
    def _folder(self) -> Path:
        return self.root / self.subject

    @property
    def _fmri(self) -> dict[str, Path]:
        folder = self._folder / "training_split" / "training_fmri"
        return {side: folder / f"{h}_training_fmri.npy" for side, h in _HEMISPHERES.items()}

    @cached_property
    def _image_folder(self) -> Path:
        return self._folder / "training_split" / "training_images"

    @property
    def images_path(self) -> Path | None:
        return self._image_folder if self._image_folder.is_dir() else None

    def input_files(self) -> list[Path]:
        if isinstance(self.image_features, OwnFeatures):
            self.image_features.of(None, np.arange(0), 0)  # tells what to choose
        for path in self._fmri.values():
            if not path.exists():
                raise InputError(
                    f"data.root={self.root} is not an Algonauts 2023 tree with {self.subject}: "
                    f"no {path}"
                )
        return [*self._fmri.values(), *self.image_features.input_files()]

    def write(self, folder: Path) -> None:
        parts = {side: read_array(path, None, "data", "data") for side, path in self._fmri.items()}
        n = len(parts["left"])
        if len(parts["right"]) != n:
            raise InputError(
                f"data: {self._fmri['left']} has {n} images, {self._fmri['right']} "
                f"{len(parts['right'])}"
            )
        voxels = pd.concat(
            [self._hemisphere(side, array.shape[1]) for side, array in parts.items()],
            ignore_index=True,
        )
        sets = voxels.drop(columns=["hemisphere", "vertex"]).fillna("")
        roi = rois.paper_roi(sets)
        voxels.insert(0, "voxel", np.arange(len(voxels)))
        voxels.insert(1, "roi", roi)
        kept = np.ones(len(voxels), dtype=bool)
        if self.voxels is not None:
            kept = rois.chosen(self.voxels, sets, roi, "data.voxels")
        split = random_split(n, self.n_val, self.n_test, self.split_seed)
        stimuli = pd.DataFrame({"stimulus": np.arange(n), "split": split})
        images = None
        if not isinstance(self.image_features, Precomputed):
            images = self._checked_images(n)
            stimuli["stimulus"] = stimuli["image"] = images.names
        features = self.image_features.of(images, np.arange(n), n)
        responses = np.concatenate(list(parts.values()), axis=1)
        write_prepared(
            folder, features, responses[:, kept], stimuli, voxels[kept].reset_index(drop=True)
        )

    def _checked_images(self, n: int) -> Images:
        images = self.images()
        if images is None or len(images) != n:
            found = 0 if images is None else len(images)
            raise InputError(
                f"data: {self._image_folder} has {found} images, but there are responses to {n}"
            )
        return images

    def _hemisphere(self, side: str, n_vertices: int) -> pd.DataFrame:
        """Vertices of a hemisphere in the order of its responses, a column an ROI set."""
        letter, masks = _HEMISPHERES[side], self._folder / "roi_masks"
        everything = masks / f"{letter}.all-vertices_fsaverage_space.npy"
        if not everything.exists():
            raise InputError(
                f"data.root={self.root} is not an Algonauts 2023 tree: no {everything}"
            )
        vertex = np.flatnonzero(read_array(everything, None, "data", "data"))
        table = pd.DataFrame({"hemisphere": side, "vertex": vertex})
        if len(vertex) != n_vertices:
            raise InputError(
                f"data: {everything} marks {len(vertex)} vertices, but there are responses of "
                f"{n_vertices}"
            )
        for name, labels in rois.LABELS.items():
            path = masks / f"{letter}.{name}_challenge_space.npy"
            if path.exists():
                values: NDArray = read_array(path, None, "data", "data")
                if len(values) != n_vertices:
                    raise InputError(
                        f"data: {path} has {len(values)} vertices, expected {n_vertices}"
                    )
                table[name] = rois.named(values, dict(enumerate(labels, start=1)))
        return table
