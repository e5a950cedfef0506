"""Prepared data as standardised batches for Lightning."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.prepared import Prepared
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks

_IN_MEMORY = 2**30  # up to these bytes, responses are standardised once and held in memory
_AT_ONCE = 2**30  # bytes of responses in one pass through the encoder


class Batch(NamedTuple):
    """Standardised features (n, D) and responses (n, V') of n stimuli."""

    features: Tensor
    responses: Tensor
    weight: float
    """What to multiply the batch's mean loss with: 1, or for a part of a batch what makes the
    gradient that of the whole batch."""


class Responses:
    """Standardised responses (N, V') of all stimuli, indexed by rows.

    Up to a gigabyte is standardised once and held in memory. A larger array stays on disk,
    memory-mapped, and rows are standardised whenever they are asked for.
    """

    def __init__(
        self, values: NDArray, order: NDArray | None, kept: NDArray, mean: Tensor, scale: Tensor
    ) -> None:
        """values: (N, V) as on disk. order: (N,), the row of each stimulus in values; None: the
        same. kept: (V',), the columns to keep. mean, scale: (V',).
        """
        self._values, self._order, self._kept = values, order, kept
        self._mean, self._scale = mean, scale
        self.shape = (len(values), len(kept))
        self._held = None
        if 4 * len(values) * len(kept) <= _IN_MEMORY:
            self._held = self._standardised(np.arange(len(values)))

    def __getitem__(self, rows: NDArray | slice) -> Tensor:
        if self._held is not None:
            return self._held[rows]
        return self._standardised(np.arange(self.shape[0])[rows])

    def block(self, rows: NDArray, voxels: slice) -> Tensor:
        """The responses (n, v) of some of the V' voxels to the stimuli `rows`."""
        if self._held is not None:
            return self._held[rows, voxels]
        columns = self._kept[voxels]
        values = self._values[:, columns[0] : columns[-1] + 1]  # of the file, read once
        values = values[rows if self._order is None else self._order[rows]]
        return self._standardise(values[:, columns - columns[0]], voxels)

    def _standardised(self, rows: NDArray) -> Tensor:
        values = self._values[rows if self._order is None else self._order[rows]]
        if self.shape[1] < values.shape[1]:
            values = values[:, self._kept]
        return self._standardise(values, slice(None))

    def _standardise(self, values: NDArray, voxels: slice) -> Tensor:
        values = np.asarray(values, dtype=np.float32)  # all indexed by arrays, so copies
        return torch.from_numpy(values).sub_(self._mean[voxels]).div_(self._scale[voxels])


@dataclass(frozen=True)
class Twins:
    """Made-up voxels to train on beside the V' real ones, each the twin of one of them.

    There are `n_draws` twins of each of K voxels, T = n_draws K, draw after draw.
    """

    voxels: NDArray[np.int64]
    """(K,), which of the V' trained voxels have twins."""
    n_draws: int
    responses: NDArray[np.float32]
    """(N, T), standardised by the training stimuli."""
    mean: Tensor
    scale: Tensor
    """(T,), of the training stimuli, in the units of the data."""

    def per_draw(self, values: NDArray, n_voxels: int) -> NDArray[np.float64]:
        """Values (T,) as (n_draws, n_voxels); NaN for voxels without a twin."""
        spread = np.full((self.n_draws, n_voxels), np.nan)
        spread[:, self.voxels] = values.reshape(self.n_draws, -1)
        return spread


def _as_they_are(values: NDArray[np.float32]) -> Responses:
    n = values.shape[1]
    return Responses(values, None, np.arange(n), torch.zeros(n), torch.ones(n))


class _WithTwins:
    """Responses (N, V' + T): those of the real voxels, then those of the twins."""

    def __init__(self, real: Responses, twins: NDArray[np.float32]) -> None:
        self._real = real
        self._twins = _as_they_are(twins)
        self.shape = (len(twins), real.shape[1] + twins.shape[1])

    def __getitem__(self, rows: NDArray | slice) -> Tensor:
        return torch.cat([self._real[rows], self._twins[rows]], dim=1)

    def block(self, rows: NDArray, voxels: slice) -> Tensor:
        n_real = self._real.shape[1]
        blocks = []
        if voxels.start < n_real:
            blocks.append(self._real.block(rows, slice(voxels.start, min(voxels.stop, n_real))))
        if voxels.stop > n_real:
            twins = slice(max(voxels.start - n_real, 0), voxels.stop - n_real)
            blocks.append(self._twins.block(rows, twins))
        return torch.cat(blocks, dim=1)


class Batches:
    """Batches of some rows, cut directly from memory or disk, without workers or collation.

    A batch that is too large for one pass comes in `n_parts` parts, for a Trainer with
    `accumulate_grad_batches=n_parts`. The Trainer divides each part's mean loss by n_parts whatever
    the part's size; the weights correct for that.
    """

    def __init__(
        self,
        features: Tensor,
        responses: Responses | _WithTwins,
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


class EncodingData(pl.LightningDataModule):
    """Standardised features (N, D) and responses (N, V') of the three splits.

    Mean and standard deviation are those of the training stimuli. Of the V voxels, V' are trained:
    those whose responses are all finite and not constant over the training stimuli. `kept` (V',)
    has their indices; `voxel_status` (V,) is ok, missing or constant.

    A batch whose responses take more than a gigabyte (`batch_bytes`) comes in `n_parts` parts.

    batch_size: None for the full batch. shuffle: pair each stimulus's features with the responses
    to another stimulus, as a null control. Raises InputError where no voxel can be trained.
    """

    def __init__(
        self, prepared: Prepared, *, batch_size: int | None, seed: int, shuffle: bool = False
    ) -> None:
        super().__init__()
        self.prepared, self.seed, self.shuffled = prepared, seed, shuffle
        self.rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
        self.batch_size = batch_size or len(self.rows["train"])
        features = np.asarray(prepared.features, dtype=np.float32)
        train, values = self.rows["train"], prepared.responses
        mean, scale = features[train].mean(axis=0, dtype=np.float64), _scale(features[train])
        self.feature_mean, self.feature_scale = _float32(mean), _float32(scale)
        self.features = torch.from_numpy(
            (features - self.feature_mean.numpy()) / self.feature_scale.numpy()
        )

        order = np.random.default_rng(seed).permutation(len(values)) if shuffle else None
        self.voxel_status, mean, scale = _survey(values, train if order is None else order[train])
        self.kept = np.flatnonzero(self.voxel_status == "ok")
        if not len(self.kept):
            raise InputError(
                f"data: no voxel can be trained on: of {len(mean)}, "
                f"{(self.voxel_status == 'missing').sum()} have missing and "
                f"{(self.voxel_status == 'constant').sum()} constant responses"
            )
        self.response_mean = _float32(mean[self.kept])
        self.response_scale = _float32(scale[self.kept])
        self.responses: Responses | _WithTwins = Responses(
            values, order, self.kept, self.response_mean, self.response_scale
        )
        self.twins: Twins | None = None
        self._set_batch_bytes()

    def add_twins(self, twins: Twins) -> None:
        """Train on twins, too: from here on, their T outputs follow those of the real voxels."""
        assert self.twins is None
        assert isinstance(self.responses, Responses)
        self.twins, self.responses = twins, _WithTwins(self.responses, twins.responses)
        self.response_mean = torch.cat([self.response_mean, twins.mean])
        self.response_scale = torch.cat([self.response_scale, twins.scale])
        self._set_batch_bytes()

    def with_responses(self, values: NDArray[np.float32]) -> "EncodingData":
        """The same stimuli with other responses (N, K), which are not standardised."""
        other = copy(self)
        other.responses = _as_they_are(values)
        other._set_batch_bytes()
        return other

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
        """The encoder's number of outputs: V', or V' + T with twins."""
        return self.responses.shape[1]

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


def _survey(values: NDArray, train: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Status, mean and scale (V,) of the responses `values` (N, V) over the rows `train`."""
    n_voxels = values.shape[1]
    status = np.full(n_voxels, "ok", dtype="<U8")
    mean, scale = np.empty(n_voxels), np.empty(n_voxels)
    for v in voxel_blocks(n_voxels):
        block = np.asarray(values[:, v], dtype=np.float32)
        trained = block[train]
        status[v][np.ptp(trained, axis=0) == 0] = "constant"
        status[v][~np.isfinite(block).all(axis=0)] = "missing"
        with np.errstate(invalid="ignore", over="ignore"):  # missing responses
            mean[v], scale[v] = trained.mean(axis=0, dtype=np.float64), _scale(trained)
    return status, mean, scale


def _scale(train: NDArray) -> NDArray[np.float64]:
    """Standard deviations over rows; 1 where that is 0."""
    scale = train.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1  # a constant feature becomes 0, as in scikit-learn
    return scale


def _float32(values: NDArray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
