"""Feature spaces side by side: one matrix of features, in which each space has its columns."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializeAsAny, model_validator

from jne.errors import InputError
from jne.features.base import FeatureArrays, Features, InOrder, OwnFeatures
from jne.features.images import Images

_NAME = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)  # they become part of keys and metrics


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


def check_names(names: Iterable[str], key: str) -> None:
    """Raise InputError, naming `key`, where a name is not one word of letters, digits, _ and -."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(key, f"the name of a feature space must be one word, found {name!r}")


def named(name: str, features: FeatureArrays) -> dict[str, NDArray]:
    """Features by the name of their space; of several layers NAME_layer_3 and so on."""
    if isinstance(features, Mapping):
        return {f"{name}_{layer}": array for layer, array in features.items()}
    return {name: features}


def joined(features: FeatureArrays) -> tuple[NDArray, dict[str, int] | None]:
    """Features as one matrix (N, D), and the number of columns of each space, in their order.

    None where there is one space. Raises InputError where spaces have other numbers of rows.
    """
    if not isinstance(features, Mapping):
        return features, None
    rows = {name: len(array) for name, array in features.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name} of {n}" for name, n in rows.items())
        raise InputError("data.features", f"spaces of different numbers of stimuli: {listed}")
    matrix = np.concatenate(list(features.values()), axis=1)
    if len(features) == 1:
        return matrix, None
    return matrix, {name: array.shape[1] for name, array in features.items()}
