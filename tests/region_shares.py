"""Nonlinear shares for runs that were never trained: nonlinear_share.npz and the columns."""

from pathlib import Path

import numpy as np
from finished_run import CONSTANT, N_VOXELS

from jne.analysis.share_sums import ShareSums
from jne.results import Results
from jne.results.shares import SHARES, RegionShares

N_BLOCKS = 20


def region_shares(share: dict[str, float], seed: int = 0) -> RegionShares:
    """Sums of five voxels per ROI, of signal variance 0.5, by the share of each ROI."""
    rng = np.random.default_rng(seed)
    size, k = np.tile([4, 6], N_BLOCKS // 2), len(share)
    n = int(size.sum())
    noise = 0.1 * rng.standard_normal((2, N_BLOCKS, k))
    signal = 2.5 * size[:, None] * (1 + noise[0])
    linear = signal.sum(axis=0) * (1 - np.array(list(share.values())))
    return RegionShares(
        list(share),
        ShareSums(
            n_stimuli=n,
            pair_weight=2 / n**2,
            linear=linear,
            variance=np.full(k, 5.0),
            derivative=linear / n * size[:, None] * (1 + noise[0] + noise[1]),
            signal=signal,
            block_size=size,
            pairs=0.1 * np.ones((k, 1, 1)) + 0.1 * rng.random((k, 8, 8)),
        ),
    )


def with_shares(
    run: Results, share: dict[str, float], seed: int = 0, source: str = "repeats"
) -> Results:
    """The run with these shares of its ROIs, the columns of its voxels, and a noise ceiling."""
    rng = np.random.default_rng(seed)
    voxels = run.voxels.copy()
    of_voxel = voxels["roi"].map(share) + 0.05 * rng.standard_normal(N_VOXELS)
    columns = {
        "nonlinear_share": of_voxel,
        "nonlinear_share_low": of_voxel - 0.1,
        "nonlinear_share_high": of_voxel + 0.1,
        "signal_share": 0.5,
        "linear_share": 0.5 * (1 - of_voxel),
    }
    voxels = voxels.assign(**columns)
    voxels.loc[CONSTANT, list(columns)] = np.nan
    voxels["signal_from"] = np.where(np.arange(N_VOXELS) == CONSTANT, "", source)
    voxels.insert(2, "noise_ceiling", rng.uniform(0.2, 0.9, N_VOXELS))
    voxels.to_csv(Path(run.path, "voxels.csv"), index=False)
    region_shares(share, seed).save(Path(run.path, SHARES))
    return Results(run.path)
