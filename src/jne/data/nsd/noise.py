"""The ncsnr as NSD computes its own maps (Allen et al. 2022), from the sessions that are there.

NSD's script is export_noiseceiling.m in github.com/cvnlab/nsddatapaper.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.data.nsd.betas import (
    Standardised,
    average_repeats,
    count_repeats,
    count_valid,
    standardise,
    units_of,
)
from jne.data.nsd.spaces import Session
from jne.utils.blocks import voxel_blocks

_N_REPEATS = 3  # of the images that are used


def ncsnr_as_nsd(
    folder: Path,
    trials: pd.DataFrame,
    n_images: int,
    n_voxels: int,
    read_session: Callable[[int, int], Session],
) -> NDArray[np.float64]:
    """The ncsnr of each voxel: (V,), NaN where no image has three valid trials.

    Betas are z-scored within sessions (n - 1). The noise variance is the unbiased variance over the
    three trials of an image, averaged over the images that were shown three times; the signal
    variance is 1 minus that.

    folder: where the means are kept while sessions are read; an interrupted computation continues
    with them. trials: as of `average_repeats`. read_session: function of a session's number and its
    number of trials.
    """
    unit = units_of(trials, "session")

    def read(session: int, units: NDArray[np.int64]) -> Standardised:
        betas, saturated = read_session(session, len(units))
        valid = standardise(betas, units, ddof=1)
        both = np.concatenate([betas, np.square(betas)], axis=1)
        return Standardised(both, np.tile(valid, 2), np.tile(saturated, 2))

    folder.mkdir(exist_ok=True)
    averaged = average_repeats(folder, trials, unit, n_images, 2 * n_voxels, read)
    shown = count_repeats(trials, unit, n_images)
    shown = shown * (shown.sum(axis=1) == _N_REPEATS)[:, None]
    means = np.load(folder / "responses.npy", mmap_mode="r")
    ncsnr = np.empty(n_voxels)
    for v in voxel_blocks(n_voxels):
        complete = count_valid(shown, averaged.valid[:, v]) == _N_REPEATS  # (N, v)
        mean = means[:, v].astype(np.float64)
        mean_square = means[:, n_voxels + v.start : n_voxels + v.stop].astype(np.float64)
        variance = (mean_square - np.square(mean)) * _N_REPEATS / (_N_REPEATS - 1)
        with np.errstate(divide="ignore", invalid="ignore"):  # no such image; no noise
            noise = np.where(complete, variance, 0).sum(axis=0) / complete.sum(axis=0)
            ncsnr[v] = np.sqrt(np.maximum(1 - noise, 0) / noise)
    return ncsnr
