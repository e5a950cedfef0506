"""Feature spaces side by side: one matrix of features, in which each space has its columns."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializeAsAny, model_validator

from jne.errors import InputError
from jne.features.base import Features, InOrder, OwnFeatures
from jne.features.images import Images
from jne.utils.spaces import FeatureArrays, check_names, named


class FeatureSpaces(Features):
    """`features=[clip_vit_b32,timm]`: several feature spaces, each with the keys `spaces.NAME`."""

    layer: None = None
    spaces: Annotated[dict[str, SerializeAsAny[Features]], InOrder]

    @model_validator(mode="after")
    def _check_spaces(self) -> "FeatureSpaces":
        check_names(self.spaces, "spaces")
        for name, features in self.spaces.items():
            if isinstance(features, OwnFeatures | FeatureSpaces):
                raise InputError(f"spaces.{name}", "must be features of images", features.name)
        return self

    def input_files(self) -> list[Path]:
        return [file for features in self.spaces.values() for file in features.input_files()]

    def each(self, extract: Callable[[Features], NDArray]) -> FeatureArrays:
        arrays: dict[str, NDArray] = {}
        for name, features in self.spaces.items():
            try:
                arrays |= named(name, features.each(extract))
            except InputError as error:
                raise error.at(
                    re.sub(r"^features\b", f"features.spaces.{name}", error.key)
                ) from error
        return arrays

    def are(self, *kinds: type[Features]) -> bool:
        return all(features.are(*kinds) for features in self.spaces.values())

    def extract(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray:
        raise InputError("features", "these data take one feature space", value=self.name)
