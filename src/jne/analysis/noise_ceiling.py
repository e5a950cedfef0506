"""How well responses could be predicted: the noise ceiling from repeats, as NSD defines it.

Gao et al. 2025, A.2. Per voxel, computed in float64.
"""

import numpy as np
from numpy.typing import NDArray

from jne.utils.blocks import voxel_blocks


def noise_ceiling_snr(repeats: NDArray) -> NDArray[np.float64]:
    """The ncsnr: standard deviation of the signal over that of the noise, as in NSD.

    Parameters
    ----------
    repeats : (N, V, R) array
        Responses to R repeats of each stimulus, NaN where a repeat is missing.

    Returns
    -------
    (V,) array of float64
        0 where the noise explains everything, NaN where no stimulus was repeated or nothing varies.
    """
    n_voxels = repeats.shape[1]
    ncsnr = np.empty(n_voxels)
    for columns in voxel_blocks(n_voxels):
        trials = np.asarray(repeats[:, columns], dtype=np.float64)
        present = np.isfinite(trials)
        count = present.sum(axis=2)  # (N, v)
        total = np.where(present, trials, 0).sum(axis=2)
        mean = total / np.maximum(count, 1)
        within = np.where(present, np.square(trials - mean[:, :, None]), 0).sum(axis=(0, 2))
        grand_mean = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
        between = (count * np.square(mean - grand_mean)).sum(axis=0)
        ncsnr[columns] = _ncsnr(count, within, within + between)
    return ncsnr


def ncsnr_from_sums(count: NDArray, mean: NDArray, squares: NDArray) -> NDArray[np.float64]:
    """`noise_ceiling_snr` from sums over trials, where the trials themselves are not in memory.

    count, mean: (N, V), the number of trials of each stimulus and their mean. squares: (V,), the
    sum of squares over all trials. Returns (V,) float64.
    """
    grand_mean = (count * mean).sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    within = squares - (count * np.square(mean)).sum(axis=0)
    total = squares - count.sum(axis=0) * np.square(grand_mean)
    return _ncsnr(count, np.maximum(within, 0), total)


def _ncsnr(count: NDArray, within: NDArray, total: NDArray) -> NDArray[np.float64]:
    """ncsnr from the sums of squares (V,) within stimuli, and of all trials around their mean.

    The noise variance is the variance between the repeats of a stimulus, pooled over stimuli.
    The signal variance is the rest of the variance of all single trials.
    """
    return ncsnr_of(within, np.maximum(count - 1, 0).sum(axis=0), total, count.sum(axis=0))


def ncsnr_of(
    within: NDArray, degrees_of_freedom: NDArray, total: NDArray, n_trials: NDArray
) -> NDArray[np.float64]:
    """`noise_ceiling_snr` from sums of squares (V,), where trials are added up one by one.

    within: around the mean of each stimulus, of which there are `degrees_of_freedom`, the number of
    trials beyond the first of each stimulus. total: of all `n_trials` around their mean.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = within / degrees_of_freedom
        signal = total / (n_trials - 1) - noise
        return np.sqrt(np.maximum(signal, 0) / noise)


def noise_ceiling(ncsnr: NDArray, mean_inverse_repeats: NDArray | float) -> NDArray[np.float64]:
    r"""The largest R² that averages over n repeats allow (A.2).

    .. math:: \mathrm{NC} = \frac{\mathrm{ncsnr}^2}{\mathrm{ncsnr}^2 + \mathrm{mean}(1/n)}

    Parameters
    ----------
    ncsnr : (V,) array
        As `noise_ceiling_snr` returns it.
    mean_inverse_repeats : float or (V,) array
        The mean over the scored stimuli of 1 / (number of repeats averaged).

    Returns
    -------
    (V,) array of float64
        From 0 to 1, in units of R².
    """
    with np.errstate(divide="ignore"):  # no signal: 1 / inf = 0; no noise: 1 / (1 + 0) = 1
        return 1 / (1 + mean_inverse_repeats / np.square(np.asarray(ncsnr, dtype=np.float64)))
