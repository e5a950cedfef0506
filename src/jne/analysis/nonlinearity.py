"""JNE, JNE-SS, the mean deviation, and the changes of gain and shape, from `jne.jacobian`.

Gao et al. 2025, sections 2.4 and A.10. The deviation s[i, v] = sum_d |J_i[v, d] - mean_j J_j[v, d]|
and the gain and shape of each Jacobian come from there; these functions take their moments over the
N stimuli. A voxel with NaN among its values gets NaN.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jne.utils.blocks import voxel_blocks


def mean_deviation(deviation: ArrayLike) -> NDArray[np.float64]:
    """mu[v] = mean_i s[i, v] (eq. 5): how far, on average, a voxel's Jacobian is from its mean.

    JNE is the spread of the deviations, not their size: a unit that switches between two
    Jacobians with equal odds has JNE 0 and mu > 0. Read the two side by side.

    deviation: (N, V) floating point, N at least 1. Returns (V,) float64, in units of the Jacobian.
    Raises ValueError for another shape or dtype.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: block.mean(axis=0))


def jne(deviation: ArrayLike) -> NDArray[np.float64]:
    """JNE[v] = sqrt(mean_i (s[i, v] - mu[v])^2), the population standard deviation (eq. 6).

    0 for a linear voxel; the larger, the more the distance of its Jacobian from the mean Jacobian
    varies from stimulus to stimulus.

    deviation: (N, V) floating point. Returns (V,) float64, in units of the Jacobian: standardised
    response per standardised feature. Raises ValueError for another shape or dtype.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: np.sqrt(np.square(_centred(block)).mean(axis=0)))


def jne_ss(deviation: ArrayLike, out: NDArray | None = None) -> NDArray:
    """JNE-SS[i, v] = (s[i, v] - mu[v])^2, the nonlinearity of a voxel at one stimulus (A.10).

    Its mean over stimuli is JNE squared.

    deviation: (N, V) floating point. out: (N, V), an array to write to, for many voxels a
    memory-mapped one; by default a new array of the deviations' dtype. Returns `out`. Raises
    ValueError for another shape or dtype.
    """
    s = _checked(deviation)
    if out is None:
        out = np.empty(s.shape, dtype=s.dtype)
    for columns in voxel_blocks(s.shape[1]):
        out[:, columns] = np.square(_centred(np.asarray(s[:, columns], dtype=np.float64)))
    return out


def gain_change(gain: ArrayLike) -> NDArray[np.float64]:
    """gain_change[v] = std_i a[i, v], how much the gain of a voxel's Jacobian varies over stimuli.

    J_i is a[i] Jbar plus a part that is orthogonal to Jbar, and the mean of a is 1. An output
    nonlinearity alone, y = phi(w x), changes the gain and leaves the shape as it is. Together with
    `shape_change`, gain_change^2 + shape_change^2 = mean_i ||J_i - Jbar||^2 / ||Jbar||^2. After
    Keshishian et al. 2020 (eLife 9:e53445).

    gain: (N, V) floating point, from `jacobian_deviation`. Returns (V,) float64, without unit;
    exactly 0 for a linear voxel. Raises ValueError for another shape or dtype.
    """
    return jne(gain)  # the standard deviation over stimuli


def shape_change(shape: ArrayLike) -> NDArray[np.float64]:
    """shape_change[v] = sqrt(mean_i r[i, v]^2): how much the direction of the Jacobian varies.

    r[i] = ||J_i - a_i Jbar|| / ||Jbar||, the part of the Jacobian that is orthogonal to the mean
    Jacobian: which features matter differs between stimuli. See `gain_change`.

    shape: (N, V) floating point, from `jacobian_deviation`. Returns (V,) float64, without unit;
    exactly 0 for a linear voxel. Raises ValueError for another shape or dtype.
    """
    r = _checked(shape)
    return _by_block(r, lambda block: np.sqrt(np.square(block).mean(axis=0)))


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


def _by_block(s: NDArray, reduce: Callable[[NDArray], NDArray]) -> NDArray[np.float64]:
    result = np.empty(s.shape[1])
    for columns in voxel_blocks(s.shape[1]):
        result[columns] = reduce(np.asarray(s[:, columns], dtype=np.float64))
    return result
