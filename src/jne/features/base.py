"""Features of images: what every kind of them promises; features that data bring themselves."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, SerializeAsAny, WrapSerializer

from jne.errors import InputError
from jne.features.images import Images
from jne.utils.spaces import FeatureArrays

InOrder = WrapSerializer(lambda spaces, plain: list(plain(spaces).items()))
"""Of a field with spaces by their names: their order, too, tells prepared folders apart."""


def _different(layer: object) -> object:
    if isinstance(layer, list) and not len(layer) == len(set(layer)) > 0:
        raise ValueError("must name different layers")
    return layer


Layer = Annotated[int | list[int] | None, AfterValidator(_different)]
"""One; several, each of which is a feature space; None: the last layer, or the only one."""


def each_layer(layer: Layer, read: Callable[[int | None], NDArray]) -> FeatureArrays:
    """What `read` returns of a layer; of several by names: layer_3, layer_6."""
    if isinstance(layer, list):
        return {f"layer_{number}": read(number) for number in layer}
    return read(layer)


def not_given(value: object) -> bool:
    """`exclude_if` of a later key: where it is not given, prepared folders keep their names."""
    return value is None


class Features(BaseModel, ABC):
    """Where the features of images come from. Its fields are the keys of its conf/features file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What the features are called in the record."""
    layer: Layer

    def __str__(self) -> str:
        return self.name

    def input_files(self) -> list[Path]:
        """The files read. If one changes in size or date, the data are prepared again."""
        return []

    def each(self, extract: Callable[["Features"], NDArray]) -> FeatureArrays:
        """What `extract` returns of these features; where they are of several spaces, of each.

        Parameters
        ----------
        extract : function
            From features of one space, with one layer, to an array (N, D).

        Returns
        -------
        (N, D) array, or dict of such
            By the names of the spaces.
        """
        return each_layer(
            self.layer, lambda layer: extract(self.model_copy(update={"layer": layer}))
        )

    def are(self, *kinds: type["Features"]) -> bool:
        """Whether all spaces are of some kinds.

        Parameters
        ----------
        *kinds : type
            Subclasses of Features.

        Returns
        -------
        bool
        """
        return isinstance(self, kinds)

    @property
    def one_layer(self) -> int | None:
        """The layer. Raises InputError where there are several."""
        if isinstance(self.layer, list):
            raise InputError("features.layer", "these data take one layer", value=self.layer)
        return self.layer

    @abstractmethod
    def extract(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray:
        """Features of images.

        Parameters
        ----------
        images : Images or None
            None where the data have features but no images.
        rows : (n_rows,) array of int
            The numbers of the images.
        n : int
            How many images there must be at least.

        Returns
        -------
        (n_rows, D) array of numbers

        Raises
        ------
        InputError
            Where the features cannot be had; the message names the key.
        """


class OwnFeatures(Features):
    """`features=none`: the data bring their own features."""

    def extract(self, images: Images | None, rows: NDArray[np.int64], n: int) -> NDArray:
        raise InputError("features", _CHOOSE_FEATURES)


_CHOOSE_FEATURES = (
    "these data need features of their images; choose features=clip_vit_b32, features=timm or "
    "features=precomputed"
)


def _not_own(features: Features) -> Features:
    if features.are(OwnFeatures):
        raise ValueError(_CHOOSE_FEATURES)
    return features


ImageFeatures = Annotated[SerializeAsAny[Features], AfterValidator(_not_own)]
"""The type of a field for data that come without features of their own."""


def layer_of(
    array: NDArray, layer: int | None, first_layer: int, section: str, path: Path
) -> NDArray:
    """One layer (n, D) of an array (n, L, D) whose first layer has the number `first_layer`.

    An array (n, D) has one layer, which is `layer=None`. section, path: the config section and the
    file, for error messages. Raises InputError where there is no such layer.
    """
    if array.ndim == 2 and layer is None:
        return array
    if array.ndim == 2:
        raise InputError(
            f"{section}.layer",
            f"needs features of shape (n_stimuli, n_layers, n_features), found {array.shape}; set "
            f"{section}.layer=null",
            value=layer,
        )
    if array.ndim != 3:
        raise InputError(
            section,
            "features must be (n_stimuli, n_features) or (n_stimuli, n_layers, "
            f"n_features), found shape {array.shape}",
        )
    last = first_layer + array.shape[1] - 1
    if layer is None:
        raise InputError(
            section,
            f"features must be (n_stimuli, n_features), found shape {array.shape}; "
            f"choose one of its layers with {section}.layer",
        )
    if not first_layer <= layer <= last:
        raise InputError(
            f"{section}.layer",
            f"out of range: {path} has layers {first_layer} to {last}",
            value=layer,
        )
    return array[:, layer - first_layer]
