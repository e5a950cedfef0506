"""Prepared data as standardised batches for Lightning."""

from collections.abc import Callable, Iterator

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.data.prepared import Prepared
from jne.errors import InputError


class Batches:
    """(features, responses) already in memory, cut into batches: no workers and no collation."""

    def __init__(
        self,
        features: Tensor,
        responses: Tensor,
        batch_size: int,
        order: Callable[[], NDArray] | None = None,
    ) -> None:
        self.features, self.responses = features, responses
        self.batch_size = min(batch_size, len(features))
        self.order = order

    def __len__(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # One batch of everything needs no order, and so no copy.
        if self.order is None or len(self) == 1:
            for start in range(0, len(self.features), self.batch_size):
                rows = slice(start, start + self.batch_size)
                yield self.features[rows], self.responses[rows]
        else:
            for rows in torch.from_numpy(self.order()).split(self.batch_size):
                yield self.features[rows], self.responses[rows]


class EncodingData(pl.LightningDataModule):
    """Standardised features (N, D) and responses (N, V') of the three splits.

    Mean and standard deviation are those of the training rows. Of the V voxels, the V' with a
    finite response to every stimulus that is not constant over the training rows are kept;
    `kept` holds their indices, `voxel_status` says why the others are not.

    batch_size: None is the full batch. shuffle: pair every stimulus's features with the
    responses to another one, a null control. Raises InputError where no voxel can be kept.
    """

    def __init__(
        self, prepared: Prepared, *, batch_size: int | None, seed: int, shuffle: bool = False
    ) -> None:
        super().__init__()
        self.prepared, self.seed = prepared, seed
        self.rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
        self.batch_size = batch_size or len(self.rows["train"])
        features = np.asarray(prepared.features, dtype=np.float32)
        responses = np.asarray(prepared.responses, dtype=np.float32)
        if shuffle:
            responses = responses[np.random.default_rng(seed).permutation(len(responses))]

        train = self.rows["train"]
        missing = ~np.isfinite(responses).all(axis=0)
        constant = ~missing & (np.ptp(responses[train], axis=0) == 0)
        self.voxel_status = np.where(missing, "missing", np.where(constant, "constant", "ok"))
        self.kept = np.flatnonzero(self.voxel_status == "ok")
        if not len(self.kept):
            raise InputError(
                f"data.responses: no voxel can be trained on: of {len(constant)}, "
                f"{missing.sum()} have missing and {constant.sum()} constant responses"
            )
        if len(self.kept) < responses.shape[1]:
            responses = responses[:, self.kept]
        self.features, self.feature_mean, self.feature_scale = _standardise(features, train)
        self.responses, self.response_mean, self.response_scale = _standardise(responses, train)

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Standardised (features, responses) of a split."""
        return self.features[self.rows[name]], self.responses[self.rows[name]]

    def train_dataloader(self) -> Batches:
        # An epoch's order depends on (seed, epoch) alone: a resumed run sees the same batches.
        def order() -> NDArray:
            epoch = self.trainer.current_epoch
            return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows["train"]))

        return Batches(*self.split("train"), self.batch_size, order)

    def val_dataloader(self) -> Batches:
        return Batches(*self.split("val"), self.batch_size)

    def test_dataloader(self) -> Batches:
        return Batches(*self.split("test"), self.batch_size)


def _standardise(values: NDArray, train: NDArray) -> tuple[Tensor, Tensor, Tensor]:
    mean = values[train].mean(axis=0, dtype=np.float64)
    scale = values[train].std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1  # a constant feature becomes 0, as in scikit-learn
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    return (
        torch.from_numpy((values - mean) / scale),
        torch.from_numpy(mean),
        torch.from_numpy(scale),
    )
