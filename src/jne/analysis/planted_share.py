"""How much of what can be explained in a voxel is nonlinear: JNE turned around by planted twins.

A planted twin is a surrogate voxel of known nonlinear share a, with the linear part and the noise
of a real one. JNE grows with a, and at the same a with the signal-to-noise ratio; among voxels of
the same linear power, planted twins show how. docs/inference.md
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

N_MATCHED = 30
"""How many planted twins, those of the voxels with the nearest linear power, make a curve."""
CONFIDENCE = 0.9
MAX_NOISE_CONVERTED = 0.95
"""The share of a voxel's noise that its planted twins may turn into signal."""


def largest_share(linear_power: NDArray) -> NDArray:
    """The nonlinear share at which MAX_NOISE_CONVERTED of the noise would be signal.

    linear_power: share of the variance that is linear, any shape. A voxel of linear power L and
    nonlinear share a has the nonlinear power L a / (1 - a), and 1 - L is all there is.
    """
    signal = linear_power + MAX_NOISE_CONVERTED * (1 - linear_power)
    return 1 - linear_power / signal


def planted_share(
    jne: NDArray, linear_power: NDArray, shares: NDArray, planted: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The nonlinear share of the explainable variance of each voxel, and an interval for it.

    jne, linear_power: (V,). shares: (n_shares, V), ascending, the first 0: what was planted into
    the twins of each voxel. planted: (n_shares, V), their JNE.

    The estimate is where the mean JNE of the N_MATCHED planted twins of nearest linear power, as a
    function of what was planted, reaches the voxel's. Below the JNE of linear twins it is negative,
    by the mirrored curve, so that its mean over linear voxels is 0. It is at most 1 - linear_power.
    The interval holds the shares at which the voxel's JNE lies between the quantiles of the planted
    twins' (CONFIDENCE, two-sided).

    Returns estimate, low end, high end, (V,) each; NaN where a value is.
    """
    everything = np.vstack([jne[None], linear_power[None], shares, planted])
    complete = np.flatnonzero(np.isfinite(everything).all(axis=0))
    result = np.full((3, len(jne)), np.nan)
    if not len(complete):
        return result[0], result[1], result[2]
    order = complete[np.argsort(linear_power[complete], kind="stable")]
    n = min(N_MATCHED, len(order))
    start = np.clip(np.arange(len(order)) - n // 2, 0, len(order) - n)
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    for voxel, first in zip(order, start, strict=True):
        like = order[first : first + n]
        x, a = jne[voxel], shares[:, like].mean(axis=1)
        # More nonlinear is not less JNE: what falls is noise.
        curve = np.maximum.accumulate(planted[:, like].mean(axis=1))
        low, high = np.maximum.accumulate(np.quantile(planted[:, like], tails, axis=1), axis=1)
        ends = _crossing(x, high, a, "left"), _crossing(x, low, a, "right")
        estimates = np.array([_inverse(x, curve, a), *ends])
        # The linear and the nonlinear power are at most the whole variance
        result[:, voxel] = np.minimum(estimates, 1 - linear_power[voxel])
    return result[0], result[1], result[2]


def _inverse(x: float, curve: NDArray, a: NDArray) -> float:
    """Where the curve reaches x; beyond its ends, by its last piece and by its mirror image.

    NaN for a curve that does not rise: the encoder has learned nothing of what was planted.
    """
    if curve[-1] <= curve[0]:
        return np.nan
    if x < curve[0]:
        return -_inverse(2 * curve[0] - x, curve, a)
    k = min(int(np.searchsorted(curve, x, side="right")) - 1, len(a) - 2)
    rise = curve[k + 1] - curve[k]
    if rise <= 0:  # flat at its end
        return float(a[np.searchsorted(curve, curve[k])])
    return float(min(a[k] + (x - curve[k]) * (a[k + 1] - a[k]) / rise, 1))


def _crossing(x: float, curve: NDArray, a: NDArray, side: Literal["left", "right"]) -> float:
    """The smallest (left) or largest (right) share at which the curve is x; 0 or 1 beyond it."""
    k = int(np.searchsorted(curve, x, side=side))
    if k == 0 or k == len(a):
        return 0.0 if k == 0 else 1.0
    return float(a[k - 1] + (x - curve[k - 1]) * (a[k] - a[k - 1]) / (curve[k] - curve[k - 1]))
