"""What a data source is, and whose data they are."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, InstanceOf
from sklearn.model_selection import BaseCrossValidator

from jne.data.folds import Cutting
from jne.data.leaks import Leaks
from jne.data.scaling import Scaling
from jne.data.splits import SPLITS

if TYPE_CHECKING:
    from jne.data.prepared import Prepared
    from jne.features.images import Images

_HOME = "jne.data."
OWN_ARRAYS = "jne.data.external_arrays.ExternalArrays"
"""The external test set of all data: users' own."""


@dataclass(frozen=True)
class About:
    """Whose data they are. Shown in reports."""

    citation: str = ""
    licence: str = ""
    links: tuple[str, ...] = ()


class Source(BaseModel, ABC):
    """Where stimuli and responses come from. Its fields are the keys of its file in conf/data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resumable: ClassVar[bool] = False
    """Whether `write` continues with what an interrupted `write` left in the folder."""
    splits: ClassVar[tuple[str, ...]] = SPLITS
    """The splits that its stimuli are in; of an external test set, test alone."""
    in_order: ClassVar[bool] = True
    """Whether the rows may be in the order in which the stimuli were shown, not that of ids."""
    citation: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ()

    name: str
    """What the data set is called in the record."""
    subject: str
    leaks: Leaks = Field(default="refuse", exclude=True)
    """What to do where held-out stimuli are among those to train on; does not change what is
    written."""

    folds: Annotated[int, Field(ge=1)] | str | InstanceOf[BaseCrossValidator] = Field(
        default=1, exclude=True
    )
    """In how many folds every stimulus is tested once, or the column of the stimulus table that has
    them, or a splitter of scikit-learn's by `_target_`; 1: the split of the stimuli."""
    groups: str | None = Field(default=None, exclude=True)
    """The column of the stimulus table whose values are kept in one piece wherever stimuli are
    cut."""
    scale_features: Scaling = Field(default="each", exclude=True)
    """What features are divided by once they are centred: each column by its own standard
    deviation, all by one, or none."""
    purge: int = Field(default=0, ge=0, exclude=True)
    """Stimuli that are so many rows or fewer from one that is held out do not train."""

    comparison_caveat: ClassVar[str] = ""
    """What to keep in mind where several of its data sets are compared: a sentence."""
    test_caveat: ClassVar[str] = ""
    """What to keep in mind where it is an external test set: a sentence."""

    @classmethod
    def external_test(
        cls, test: str, settings: Mapping[str, Any], config: Path
    ) -> dict[str, Any] | None:
        """What an external test set takes over from the data that an encoder was trained on.

        Parameters
        ----------
        test : str
            The class of the external test set, as its `_target_`.
        settings : mapping
            The section `data` of the run's config, which may be anybody's.
        config : Path
            The file of that config.

        Returns
        -------
        dict or None
            Keys of the external test set; None where it is none of these data.

        Raises
        ------
        InputError
            Where an encoder trained with these settings has none.
        """
        return {} if test == OWN_ARRAYS else None

    @classmethod
    def mean_image(cls, settings: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """The mean functional image (X, Y, Z) behind the voxels; None where there is none.

        Parameters
        ----------
        settings : mapping
            The section `data` of a run's config, which may be anybody's.

        Returns
        -------
        (X, Y, Z) array of float64, or None
        """
        return None

    @property
    def cutting(self) -> Cutting:
        """How the stimuli are cut where they are read."""
        return Cutting(self.folds, self.groups, self.purge)

    @property
    def about(self) -> About:
        """Whose data they are."""
        return About(self.citation, self.licence, self.links)

    def input_files(self) -> list[Path]:
        """The files read. If one changes in size or date, the data are prepared again."""
        return []

    @property
    def images_path(self) -> Path | None:
        """The folder or file of images that were the stimuli; None where there is none."""
        return None

    @property
    def takes_features(self) -> bool:
        """Whether features that the config chooses, if it gives them to this source, are used."""
        return True

    @property
    def reads_images(self) -> bool:
        """Whether what is written depends on the images."""
        return self.images_path is not None and self.images_path in self.input_files()

    def images(self) -> "Images | None":
        """The images that were the stimuli; the column `image` of stimuli.csv has their names."""
        from jne.features.images import open_images  # which loads h5py and Pillow

        return None if self.images_path is None else open_images(self.images_path)

    def supersedes(self, earlier: "Prepared") -> bool:
        """Whether `write` reads the same inputs otherwise than the version that wrote `earlier`.

        Asked once of each folder of an earlier version. If so, the data are prepared again, into
        another folder.

        Parameters
        ----------
        earlier : Prepared

        Returns
        -------
        bool
        """
        return False

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write features, responses and both tables, with `write_prepared`.

        Parameters
        ----------
        folder : Path
            An empty folder, or, if the source is `resumable`, what an interrupted call left.

        Raises
        ------
        InputError
            On bad input; the message names the config key.
        """


def source_class(target: Any) -> type[Source]:
    """The source named `target`, not made; `Source` itself, which says nothing, for a foreign one.

    A run's config may be anybody's: only what this package defines is looked up.
    """
    module, _, name = str(target).rpartition(".")
    if not module.startswith(_HOME) or "." in module.removeprefix(_HOME) or not find_spec(module):
        return Source
    named = getattr(import_module(module), name, None)
    return named if isinstance(named, type) and issubclass(named, Source) else Source
