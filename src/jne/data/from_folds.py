"""Values of all test stimuli, of which each fold has those of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jne.data.datamodule import EncodingData


class FromFolds:
    """(N, V') values of all test stimuli, from those of each fold, computed for some voxels."""

    def __init__(self, data: "EncodingData", values: Sequence[Any], centred: bool) -> None:
        self._data, self._values, self._centred = data, values, centred
        self.shape = len(data.rows["test"]), data.n_trained

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows_columns: tuple[slice, NDArray[np.int64]]) -> NDArray[np.float32]:
        rows, voxels = rows_columns
        data, result = self._data, np.empty((self.shape[0], len(voxels)), dtype=np.float32)
        scale = data.response_scale[voxels].double()
        mean = data.response_mean[voxels].double()
        for part, values in zip(data.parts, self._values, strict=True):
            at = np.searchsorted(data.rows["test"], part.rows["test"])
            ratio = part.response_scale[voxels].double() / scale
            shift = (part.response_mean[voxels].double() - mean) / scale
            result[at] = values[:, voxels] * ratio.numpy()
            if not self._centred:
                result[at] += shift.numpy()
        return result[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        return self[:, np.arange(self.shape[1])].astype(dtype or np.float32, copy=False)
