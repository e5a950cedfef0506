"""Is the noise of neighbouring rows alike? What ridge regression leaves of them says so."""

import numpy as np
from numpy.typing import NDArray

from jne.analysis.evidence import Columns
from jne.data.datamodule import EncodingData
from jne.utils.blocks import even_blocks

_FEWEST_PAIRS = 50
_TOO_MUCH = 0.2
_VOXELS_AT_ONCE = 4096


def lag_one(data: EncodingData, ridge: Columns) -> float:
    """The median over voxels of the correlation between the residuals of consecutive rows.

    ridge: predictions of the test stimuli, (n, V'). NaN where fewer than fifty pairs of test
    stimuli are consecutive rows.
    """
    pairs = np.flatnonzero(np.diff(data.rows["test"]) == 1)
    if len(pairs) < _FEWEST_PAIRS:
        return float("nan")
    r = np.empty(data.n_trained)
    for voxels in even_blocks(data.n_trained, _VOXELS_AT_ONCE):
        truth = data.responses.block(data.rows["test"], voxels).numpy()
        left = truth - ridge[:, np.arange(voxels.start, voxels.stop)]
        r[voxels] = _correlation(left[pairs], left[pairs + 1])
    return float(np.median(r))


def autocorrelated(data: EncodingData, ridge: Columns) -> str:
    """A sentence where rows share noise, and nothing holds them together; else nothing."""
    if data.belonging.clusters(data.rows["test"]) is not None:
        return ""
    r = lag_one(data, ridge)
    if not r > _TOO_MUCH:
        return ""
    return (
        f"what ridge regression leaves of the responses to consecutive rows is correlated (median "
        f"r {r:.2f}): rows share noise, so folds and splits of single rows leak; name runs in "
        f"data.groups, or set data.purge"
    )


def _correlation(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum(axis=0))
    return np.divide((x * y).sum(axis=0), size, out=np.zeros(len(size)), where=size > 0)
