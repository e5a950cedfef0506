"""Which stimuli train and which validate, where a penalty is chosen: -1 only trains."""

import numpy as np
from numpy.typing import NDArray

from jne.data.datamodule import StandardisedData

N_FOLDS = 5


def validation_fold(data: StandardisedData) -> NDArray[np.int64]:
    """The folds of training and validation stimuli: the former only train, the latter validate."""
    return np.repeat([-1, 0], [len(data.rows["train"]), len(data.rows["val"])])


def cross_validation(data: StandardisedData) -> NDArray[np.int64]:
    """Folds of training and validation stimuli, of equal size and at random."""
    n = len(data.rows["train"]) + len(data.rows["val"])
    return np.random.default_rng(0).permutation(np.arange(n) % N_FOLDS)
