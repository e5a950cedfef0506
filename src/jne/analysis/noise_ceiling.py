"""How well responses could be predicted: the noise ceiling from repeats, as NSD defines it.

Gao et al. 2025, A.2. Per voxel, computed in float64.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jne.analysis.repeats import moments
from jne.utils.blocks import voxel_blocks


@dataclass(frozen=True)
class Averages:
    """Repeats averaged, and how well they agree."""

    mean: NDArray[np.float64]
    """(N, V), over the repeats that are there; NaN where there is none."""
    ncsnr: NDArray[np.float64]
    """(V,), see `noise_ceiling_snr`."""
    inverse: NDArray[np.float64]
    """(V,), see `mean_inverse`; of the scored stimuli."""


def averages(repeats: NDArray, scored: NDArray[np.bool_] | slice = slice(None)) -> Averages:
    """The averages of repeats (N, V, R), NaN where one is missing. scored: (N,), for `inverse`."""
    means, (ncsnr, inverse) = np.empty(repeats.shape[:2]), np.empty((2, repeats.shape[1]))
    for v in voxel_blocks(repeats.shape[1]):
        some = moments(repeats[:, v])
        count, total, mean = some.count, some.total, some.mean
        within = some.squares.sum(axis=(0, 2))
        n = count.sum(axis=0)
        between = (count * np.square(mean - total.sum(axis=0) / np.maximum(n, 1))).sum(axis=0)
        ncsnr[v] = ncsnr_of(within, np.maximum(count - 1, 0).sum(axis=0), within + between, n)
        inverse[v] = mean_inverse(count[scored])
        means[:, v] = np.where(count > 0, mean, np.nan)
    return Averages(means, ncsnr, inverse)


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
    return averages(repeats).ncsnr


def mean_inverse(count: NDArray) -> NDArray[np.float64]:
    """The mean over stimuli of 1 / (number of repeats averaged): (V,), NaN where one has none.

    count: (N, V).
    """
    return (1 / np.where(count == 0, np.nan, count)).mean(axis=0)


def ncsnr_of(
    within: NDArray, degrees_of_freedom: NDArray, total: NDArray, n_trials: NDArray
) -> NDArray[np.float64]:
    """`noise_ceiling_snr` from sums of squares (V,), where trials are added up one by one.

    The noise variance is the variance between the repeats of a stimulus, pooled over stimuli; the
    signal variance is the rest of the variance of all single trials.

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
