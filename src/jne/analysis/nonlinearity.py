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
    r"""How far, on average, the Jacobian of a voxel is from its mean (equation 5).

    .. math:: \mu_v = \frac{1}{N} \sum_i s_{iv}

    JNE is the spread of the deviations, not their size: a unit that switches between two
    Jacobians with equal odds has JNE 0 and mu > 0. Read the two side by side.

    Parameters
    ----------
    deviation : (N, V) array, floating point
        N at least 1, as `jacobian_deviation` returns it.

    Returns
    -------
    (V,) array of float64
        In units of the Jacobian; NaN for a voxel with NaN among its deviations.

    Raises
    ------
    ValueError
        For another shape or dtype.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: block.mean(axis=0))


def jne(deviation: ArrayLike) -> NDArray[np.float64]:
    r"""JNE: how much a voxel's deviations vary from stimulus to stimulus (equation 6).

    .. math:: \mathrm{JNE}_v = \sqrt{\frac{1}{N} \sum_i (s_{iv} - \mu_v)^2}

    The population standard deviation. 0 for a linear voxel; the larger, the more the distance of
    its Jacobian from the mean Jacobian varies.

    Parameters
    ----------
    deviation : (N, V) array, floating point
        N at least 1, as `jacobian_deviation` returns it.

    Returns
    -------
    (V,) array of float64
        In units of the Jacobian: standardised response per standardised feature.

    Raises
    ------
    ValueError
        For another shape or dtype.
    """
    s = _checked(deviation)
    return _by_block(s, lambda block: np.sqrt(np.square(_centred(block)).mean(axis=0)))


def jne_ss(deviation: ArrayLike, out: NDArray | None = None) -> NDArray:
    r"""JNE-SS: the nonlinearity of a voxel at one stimulus (A.10).

    .. math:: \mathrm{JNE\text{-}SS}_{iv} = (s_{iv} - \mu_v)^2

    Its mean over stimuli is JNE squared.

    Parameters
    ----------
    deviation : (N, V) array, floating point
        N at least 1, as `jacobian_deviation` returns it.
    out : (N, V) array, optional
        Where to write, for many voxels a memory-mapped array; by default a new array of the
        deviations' dtype.

    Returns
    -------
    (N, V) array
        `out`, in units of the Jacobian squared.

    Raises
    ------
    ValueError
        For another shape or dtype.
    """
    s = _checked(deviation)
    if out is None:
        out = np.empty(s.shape, dtype=s.dtype)
    for columns in voxel_blocks(s.shape[1]):
        out[:, columns] = np.square(_centred(np.asarray(s[:, columns], dtype=np.float64)))
    return out


def gain_change(gain: ArrayLike) -> NDArray[np.float64]:
    r"""How much the gain of a voxel's Jacobian varies over stimuli.

    .. math:: J_i = a_i \bar J + R_i, \quad \langle R_i, \bar J \rangle = 0, \quad
              \text{gain change} = \mathrm{std}_i\, a_i

    The mean of a is 1. An output nonlinearity alone, y = phi(w x), changes the gain and leaves
    the shape as it is. With `shape_change`, exactly,

    .. math:: \text{gain change}^2 + \text{shape change}^2
              = \frac{1}{N} \sum_i \|J_i - \bar J\|^2 / \|\bar J\|^2

    After Keshishian et al. 2020 (eLife 9:e53445).

    Parameters
    ----------
    gain : (N, V) array, floating point
        The array `gain` of `jacobian_deviation`.

    Returns
    -------
    (V,) array of float64
        Without unit; exactly 0 for a linear voxel.

    Raises
    ------
    ValueError
        For another shape or dtype.
    """
    return jne(gain)  # the standard deviation over stimuli


def shape_change(shape: ArrayLike) -> NDArray[np.float64]:
    r"""How much the direction of a voxel's Jacobian varies over stimuli.

    .. math:: \text{shape change} = \sqrt{\tfrac{1}{N} \textstyle\sum_i r_i^2}, \quad
              r_i = \|J_i - a_i \bar J\| / \|\bar J\|

    The part of the Jacobian that is orthogonal to the mean one: which features matter differs
    between stimuli. See `gain_change`.

    Parameters
    ----------
    shape : (N, V) array, floating point
        The array `shape` of `jacobian_deviation`.

    Returns
    -------
    (V,) array of float64
        Without unit; exactly 0 for a linear voxel.

    Raises
    ------
    ValueError
        For another shape or dtype.
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
