"""JNE, JNE-SS and the mean deviation, from the deviations of the Jacobians (PAPER 2.4, A.10).

The deviation s[i, v] = sum_d |J_i[v, d] - mean_j J_j[v, d]| comes from `jne.jacobian`. These are
its moments over the N stimuli; NaN in a voxel's deviations gives NaN for that voxel.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 4096  # voxels at a time, so that a memory-mapped (N, V) array is never copied whole


def mean_deviation(deviation: ArrayLike) -> NDArray[np.float64]:
    """mu[v] = mean_i s[i, v] (eq. 5): how far, on average, a voxel's Jacobian is from its mean.

    JNE is the spread of the deviations, not their size: a unit that switches between two
    Jacobians with equal odds has JNE 0 and mu > 0. Read the two side by side.

    deviation: (N, V), N at least 1. Returns (V,) float64, in units of the Jacobian.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: block.mean(axis=0))


def jne(deviation: ArrayLike) -> NDArray[np.float64]:
    """JNE[v] = sqrt(mean_i (s[i, v] - mu[v])^2), the population standard deviation (eq. 6).

    0 for a linear voxel, larger the more its Jacobian changes from stimulus to stimulus.

    deviation: (N, V). Returns (V,) float64, in units of the Jacobian: standardised response per
    standardised feature.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: np.sqrt(np.square(_centred(block)).mean(axis=0)))


def jne_ss(deviation: ArrayLike, out: NDArray | None = None) -> NDArray:
    """JNE-SS[i, v] = (s[i, v] - mu[v])^2, a voxel's nonlinearity at one stimulus (A.10).

    Its mean over stimuli is JNE squared.

    deviation: (N, V). out: where to write it, (N, V), a memory-mapped array for many voxels;
    by default a new array of the deviations' own dtype. Returns `out`.
    """
    s = _checked(deviation)
    if out is None:
        out = np.empty(s.shape, dtype=s.dtype)
    for start in range(0, s.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        out[:, columns] = np.square(_centred(np.asarray(s[:, columns], dtype=np.float64)))
    return out


def _checked(deviation: ArrayLike) -> NDArray:
    s = deviation if isinstance(deviation, np.ndarray) else np.asarray(deviation)
    if s.ndim != 2 or s.shape[0] < 1 or s.dtype.kind != "f":
        raise ValueError(
            f"deviation must be floating point of shape (n_stimuli, n_voxels), "
            f"found {s.dtype} {s.shape}"
        )
    return s


def _centred(block: NDArray) -> NDArray:
    # Shifting by the first row before the mean keeps equal deviations at exactly 0.
    shifted = block - block[:1]
    return shifted - shifted.mean(axis=0)


def _by_block(s: NDArray, reduce) -> NDArray[np.float64]:
    result = np.empty(s.shape[1])
    for start in range(0, s.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        result[columns] = reduce(np.asarray(s[:, columns], dtype=np.float64))
    return result
