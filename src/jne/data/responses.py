"""Responses, standardised in memory or read from disk."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.errors import InputError
from jne.utils.blocks import voxel_blocks

_IN_MEMORY = 2**30  # up to these bytes, responses are standardised once and held in memory


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


def unscaled(values: NDArray[np.float32]) -> Responses:
    """Responses (N, V') that need no standardisation."""
    n = values.shape[1]
    return Responses(values, None, np.arange(n), torch.zeros(n), torch.ones(n))


def voxel_statistics(values: NDArray, train: NDArray) -> tuple[NDArray, NDArray, NDArray]:
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
            mean[v], scale[v] = trained.mean(axis=0, dtype=np.float64), spread(trained)
    return status, mean, scale


def spread(train: NDArray) -> NDArray[np.float64]:
    """Standard deviations over rows; 1 where that is 0."""
    scale = train.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1  # a constant feature becomes 0, as in scikit-learn
    return scale


def check_vary(features: NDArray[np.float32], key: str) -> None:
    """Raise InputError, naming `key`, where all features (n, D) to train on are constant."""
    if (features == features[0]).all():
        raise InputError(
            key,
            f"all features are constant over the {len(features)} stimuli to train on, so that "
            f"nothing can be learned; give features that vary",
        )


def float32(values: NDArray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
