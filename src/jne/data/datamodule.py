"""Standardised batches for Lightning, of arrays or of a prepared folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.centring import with_offset
from jne.data.contents import combined, contents_of
from jne.data.folds import Belonging, Cutting
from jne.data.from_folds import FromFolds
from jne.data.prepared import Prepared
from jne.data.responses import (
    Responses,
    check_vary,
    float32,
    unscaled,
    voxel_statistics,
)
from jne.data.scaling import Scaling, feature_scale
from jne.data.splits import SPLITS
from jne.errors import InputError
from jne.stages import digest_of
from jne.utils.blocks import among_all

_SEED_OF_HALVES = 2**20  # another than those of folds, which would be the halves
_FEWEST = 3  # stimuli of a split, of a half of the data
_AT_ONCE = 2**30  # bytes of responses in one pass through the encoder


class Batch(NamedTuple):
    """Standardised features (n, D) and responses (n, V') of n stimuli."""

    features: Tensor
    responses: Tensor
    weight: float
    """What to multiply the batch's mean loss with: 1, or for a part of a batch what makes the
    gradient that of the whole batch."""


class Batches:
    """Batches of some rows, cut directly from memory or disk, without workers or collation.

    A batch that is too large for one pass comes in `n_parts` parts, for a Trainer with
    `accumulate_grad_batches=n_parts`. The Trainer divides each part's mean loss by n_parts whatever
    the part's size; the weights correct for that.
    """

    def __init__(
        self,
        features: Tensor,
        responses: Responses,
        rows: NDArray,
        batch_size: int,
        n_parts: int = 1,
        order: Callable[[], NDArray] | None = None,
    ) -> None:
        """features: (N, D). rows: which of the N stimuli. order: function that returns a new order
        of `rows` for each epoch; None: always the same.
        """
        self.features, self.responses, self.rows = features, responses, rows
        self.batch_size, self.n_parts, self.order = min(batch_size, len(rows)), n_parts, order
        self._whole: Batch | None = None

    def __len__(self) -> int:
        return sum(1 for _ in self._cut(self.rows))

    def __iter__(self) -> Iterator[Batch]:
        if self.batch_size == len(self.rows) and self.n_parts == 1:
            # The order does not matter to a batch of all rows, which is cut only once.
            if self._whole is None:
                self._whole = self._batch(self.rows, 1.0)
            yield self._whole
            return
        rows = self.rows if self.order is None else self.rows[self.order()]
        for part, weight in self._cut(rows):
            yield self._batch(part, weight)

    def _cut(self, rows: NDArray) -> Iterator[tuple[NDArray, float]]:
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            for part in np.array_split(batch, self.n_parts):
                if len(part):
                    yield part, len(part) * self.n_parts / len(batch)

    def _batch(self, rows: NDArray, weight: float) -> Batch:
        return Batch(self.features[rows], self.responses[rows], weight)


class StandardisedData(pl.LightningDataModule):
    """Standardised features (N, D) and responses (N, V') of each split.

    Mean and standard deviation are those of the training stimuli. Of the V voxels, V' are trained:
    those whose responses are all finite and not constant over the training stimuli. `kept` (V',)
    has their indices; `voxel_status` (V,) is ok, missing or constant.

    A batch whose responses take more than a gigabyte (`batch_bytes`) comes in `n_parts` parts.

    features: (N, D), finite. responses: (N, V), NaN where missing. Both as measured, float32, less
    their offsets (D,) and (V,) (`jne.data.centring`). rows: those of `train`, `val` and, if there
    is one, `test`. batch_size: None for the full batch. shuffle: pair each stimulus's features with
    the responses to another stimulus, as a null control. features_key: what leads to the features.
    belonging: which stimuli belong together. status: (V,), that of voxels which other data choose.
    feature_spaces: the columns of each feature space, contiguous and in order; None: there is one.
    scale_features: see `jne.data.scaling.feature_scale`, which scales spaces one by one.
    Raises InputError where no voxel can be trained, or all features are constant.

    feature_mean, feature_scale (D,) and response_mean, response_scale (V',) are in the units of the
    data: float32, the means float64 where there are offsets.
    """

    identity: Mapping[str, Any]
    """Plain values that stand for the data in a store of stages."""

    def __init__(
        self,
        features: NDArray,
        responses: NDArray,
        rows: Mapping[str, NDArray[np.int64]],
        *,
        batch_size: int | None,
        seed: int,
        shuffle: bool = False,
        feature_offset: NDArray[np.float64] | None = None,
        response_offset: NDArray[np.float64] | None = None,
        features_key: str = "features",
        belonging: Belonging | None = None,
        status: NDArray[np.str_] | None = None,
        scale_features: Scaling = "each",
        feature_spaces: dict[str, slice] | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.identity, self.feature_spaces = rows, {}, feature_spaces
        self.belonging = belonging or Belonging()
        if not len(rows["train"]):  # of an external test set, which is for evaluate.py
            raise InputError("data", "there is no stimulus to train on")
        self.batch_size, self.seed = batch_size or len(self.rows["train"]), seed
        features = np.asarray(features, dtype=np.float32)
        train, values = self.rows["train"], responses
        trained = features[train]
        check_vary(trained, features_key)
        centre = float32(trained.mean(axis=0, dtype=np.float64))
        scale = feature_scale(trained, scale_features, feature_spaces, features_key)
        self.feature_scale = torch.from_numpy(scale)
        self.features = torch.from_numpy((features - centre.numpy()) / self.feature_scale.numpy())
        self.feature_mean = with_offset(centre, feature_offset)

        order = np.random.default_rng(seed).permutation(len(values)) if shuffle else None
        self.voxel_status, mean, scale = voxel_statistics(
            values, train if order is None else order[train]
        )
        if status is not None:
            self.voxel_status = status
        self.kept = np.flatnonzero(self.voxel_status == "ok")
        if not len(self.kept):
            raise InputError(
                "data",
                f"no voxel can be trained on: of {len(mean)}, "
                f"{(self.voxel_status == 'missing').sum()} have missing and "
                f"{(self.voxel_status == 'constant').sum()} constant responses",
            )
        centre = float32(mean[self.kept])
        self.response_scale = float32(scale[self.kept])
        self.responses = Responses(values, order, self.kept, centre, self.response_scale)
        offset = None if response_offset is None else response_offset[self.kept]
        self.response_mean = with_offset(centre, offset)
        self._set_batch_bytes()

    def with_responses(self, values: NDArray[np.float32]) -> Self:
        """The same stimuli with other responses (N, K), which are not standardised."""
        other = copy(self)
        other.responses = unscaled(values)
        other._set_batch_bytes()
        return other

    def with_test(self, features: Tensor) -> Self:
        """The same stimuli to train on, with others to test, whose responses it does not have.

        features: (n, D), standardised as these are.
        """
        other = copy(self)
        other.features = torch.cat([self.features, features])
        other.rows = {**self.rows, "test": np.arange(len(self.features), len(other.features))}
        return other

    @property
    def test_clusters(self) -> NDArray[np.int64] | None:
        """(n_test,), see `Belonging.clusters`."""
        return self.belonging.clusters(self.rows["test"])

    def _set_batch_bytes(self) -> None:
        rows = min(self.batch_size, len(self.rows["train"]))
        self.batch_bytes = 4 * rows * self.n_outputs
        self.n_parts = -(-rows // max(_AT_ONCE // (4 * self.n_outputs), 1))

    @property
    def n_features(self) -> int:
        """D, the encoder's number of inputs."""
        return self.features.shape[1]

    @property
    def n_trained(self) -> int:
        """V', the number of trained voxels."""
        return len(self.kept)

    @property
    def n_outputs(self) -> int:
        """The encoder's number of outputs: V', or K of `with_responses`."""
        return self.responses.shape[1]

    def all_voxels(self, values: NDArray, chosen: NDArray | None = None) -> NDArray:
        """Values (..., V') of the trained voxels, or of those `chosen` among them, as (..., V).

        NaN for all others.
        """
        trained = self.kept if chosen is None else self.kept[chosen]
        return among_all(values, trained, len(self.voxel_status), values.dtype)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Standardised (features, responses) of a split."""
        return self.features[self.rows[name]], self.responses[self.rows[name]]

    def train_dataloader(self) -> Batches:
        # The order depends only on the seed and the epoch: a resumed run sees the same batches.
        def order() -> NDArray:
            assert self.trainer is not None
            epoch = self.trainer.current_epoch
            return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows["train"]))

        return self._batches("train", self.n_parts, order)

    def val_dataloader(self) -> Batches:
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        return self._batches("test")

    def _batches(
        self, split: str, n_parts: int = 1, order: Callable[[], NDArray] | None = None
    ) -> Batches:
        size = self.batch_size if split == "train" else -(-self.batch_size // self.n_parts)
        return Batches(self.features, self.responses, self.rows[split], size, n_parts, order)


class EncodingData(StandardisedData):
    """The data of a prepared folder. `prepared` has its tables.

    Where its stimuli are tested in folds, each by an encoder that has not seen it, `parts` has the
    data of the folds, and these are all stimuli: standardised over all, and all of them to test.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        batch_size: int | None,
        seed: int,
        shuffle: bool = False,
        rows: Mapping[str, NDArray[np.int64]] | None = None,
        belonging: Belonging | None = None,
        status: NDArray[np.str_] | None = None,
        scale_features: Scaling = "each",
    ) -> None:
        """rows: of each split, where these are not those of the stimulus table."""
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "belonging": belonging,
            "scale_features": scale_features,
        }
        super().__init__(
            prepared.features,
            prepared.responses,
            {split: prepared.rows(split) for split in SPLITS} if rows is None else rows,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            feature_offset=prepared.offset("feature"),
            response_offset=prepared.offset("response"),
            features_key=prepared.features_key,
            belonging=belonging,
            status=status,
            scale_features=scale_features,
            feature_spaces=prepared.feature_spaces,
        )
        self.prepared = prepared
        contents = combined(contents_of(prepared))
        self.identity = {"contents": contents, "order": seed if shuffle else None}
        if rows is not None or belonging is not None:
            split = {name: chosen.tolist() for name, chosen in self.rows.items()}
            groups = None if self.belonging.groups is None else self.belonging.groups.tolist()
            cut = digest_of([split, groups, self.belonging.purge])
            self.identity = {**self.identity, "cut": cut}
        if scale_features != "each":
            self.identity = {**self.identity, "scale_features": scale_features}
        self._parts: list[EncodingData] = []

    @classmethod
    def cut(
        cls,
        prepared: Prepared,
        cutting: Cutting,
        *,
        batch_size: int | None,
        seed: int,
        shuffle: bool = False,
        scale_features: Scaling = "each",
    ) -> "EncodingData":
        """Cut into folds, groups in one piece; by default the split of the stimulus table.

        Raises InputError, naming the key, where the stimuli cannot be cut so.
        """
        settings: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "scale_features": scale_features,
        }
        if cutting == Cutting():
            return cls(prepared, **settings)
        belonging = cutting.belonging(prepared.stimuli)
        settings["belonging"] = belonging
        if cutting.folds == 1:
            rows = {split: prepared.rows(split) for split in SPLITS}
            return cls(prepared, rows=belonging.apart(rows), **settings)
        every = np.arange(len(prepared.stimuli))
        cuts = [{"train": every, "val": every[:0], "test": every}]
        cuts += cutting.cut(belonging, prepared.stimuli, seed)
        whole, *parts = (cls(prepared, rows=rows, **settings) for rows in cuts)
        status = whole.voxel_status
        for part in parts:
            status = np.where(status == "ok", part.voxel_status, status)
        if any((data.voxel_status != status).any() for data in (whole, *parts)):  # constant in one
            whole, *parts = (cls(prepared, rows=rows, status=status, **settings) for rows in cuts)
        whole._parts = parts
        return whole

    @property
    def parts(self) -> "Sequence[EncodingData]":
        """The data that an encoder each is trained and tested on: those of the folds, or these."""
        return self._parts or [self]

    def halves(self) -> "list[EncodingData]":
        """Two disjoint halves of the stimuli, groups in one piece, cut as these are.

        Raises InputError where a split has too few stimuli.
        """
        every = np.arange(len(self.prepared.stimuli))
        halves = self.belonging.folds(every, 2, _SEED_OF_HALVES)
        return [self._only(every[half]) for _, half in halves]

    def _only(self, chosen: NDArray[np.int64]) -> "EncodingData":
        rows = {name: of_split[np.isin(of_split, chosen)] for name, of_split in self.rows.items()}
        few = {name: len(of_split) for name, of_split in rows.items()}
        if min(few["train"], few["test"]) < _FEWEST or (not self._parts and few["val"] < _FEWEST):
            raise InputError("halves", f"a half of the stimuli has too few: {few}", True)
        part = EncodingData(self.prepared, rows=rows, status=self.voxel_status, **self._settings)
        part._parts = [of_fold._only(chosen) for of_fold in self._parts]
        return part

    def in_order(self, values: Sequence[Any], *, centred: bool = False) -> Any:
        """What `parts` have for their test stimuli, (n, V') each, as (N, V') for those of all.

        In the standard units of all. Of a single part, as it is; else computed for some voxels at
        a time (`FromFolds`). centred: differences, to which no mean is added.
        """
        if len(self.parts) == 1:
            return values[0]
        return FromFolds(self, values, centred)
