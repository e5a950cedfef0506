"""The ncsnr as NSD computes its own maps (Allen et al. 2022), from the sessions that are there.

NSD's script is export_noiseceiling.m in github.com/cvnlab/nsddatapaper.
"""

import numpy as np
from numpy.typing import NDArray

from jne.data.averaging.means import Means

_N_REPEATS = 3  # of the images that are used


def ncsnr_as_nsd(z: Means, squared: Means) -> NDArray[np.float64]:
    """The ncsnr of each voxel: (V,), NaN where no image has three valid trials.

    The noise variance is the unbiased variance over the three trials of an image, averaged over the
    images that were shown three times; the signal variance is 1 minus that.

    z: the means of all sessions' betas, z-scored within sessions (n - 1). squared: the means of
    their squares.
    """
    complete = (z.count == _N_REPEATS) & (z.n_shown == _N_REPEATS)[:, None]  # (N, V) or (N, 1)
    mean, mean_square = z.values.astype(np.float64), squared.values
    variance = (mean_square - np.square(mean)) * _N_REPEATS / (_N_REPEATS - 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # no such image; no noise
        noise = np.where(complete, variance, 0).sum(axis=0) / complete.sum(axis=0)
        return np.sqrt(np.maximum(1 - noise, 0) / noise)
