r"""How much of the signal is nonlinear in the features, without an encoder. docs/share.md

.. math:: \mathrm{share} = 1 - V_\mathrm{linear} / V_\mathrm{signal}

V_signal is the variance that repeats of a stimulus share (`jne.analysis.repeats`). V_linear is the
covariance of the responses with their leave-one-out predictions by least squares, y - e / (1 - h)
for residuals e and leverages h (`jne.analysis.leave_one_out`): the weights without a stimulus know
nothing of its noise, so it is unbiased for the variance of the best linear fit, whatever the noise
(Kline, Saggio & Solvsten 2020). Their ratio and its interval: `jne.analysis.share_sums`.

N stimuli, D features, V voxels.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from jne.analysis.leave_one_out import LeaveOneOut
from jne.analysis.repeats import blocks_of, moments, repeats_of
from jne.analysis.share_sums import Share
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks

_AT_ONCE = 2**24  # responses


def nonlinear_share(
    X: ArrayLike,
    y: ArrayLike,
    *,
    repeats: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    n_components: int | None = None,
) -> Share:
    """How much of the signal in responses is nonlinear in features. No model is trained.

    Parameters
    ----------
    X : (N, D) array
        Features of the stimuli; with `repeats`, of each row of `y`.
    y : (N, V, R) array, or (T, V) array
        Responses to R repeats of each stimulus, NaN where a repeat is missing; or, with `repeats`,
        to T trials.
    repeats : (T,) array, optional
        Which stimulus each row of `y` is a response to.
    groups : (N,) or (T,) array, optional
        Stimuli of a group, such as a film, are left out together.
    n_components : int, optional
        Regress on so many principal components of the features. The share is then relative to
        them: what is linear in the others counts as nonlinear.

    Returns
    -------
    Share
        NaN for voxels with missing or constant responses, or no signal.

    Raises
    ------
    InputError
        A `ValueError`: where shapes do not agree, no stimulus has repeats, or stimuli are too few.

    Notes
    -----
    Stimuli are assumed to be independent draws, and noise to be independent between repeats. See
    docs/share.md.
    """
    features, trials = np.asarray(X, dtype=np.float64), np.asarray(y)
    labels = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if repeats is not None:
        features, trials, labels = _stacked(features, trials, np.asarray(repeats), labels)
    if trials.ndim != 3:
        raise InputError("y", f"must be (N, V, R), or (T, V) with repeats, found {trials.shape}")
    if features.ndim != 2 or len(features) != len(trials):
        raise InputError("X", f"must be ({len(trials)}, D), found {features.shape}")
    if labels is not None and len(labels) != len(trials):
        raise InputError("groups", f"must have {len(trials)} values, found {len(labels)}")
    if not np.isfinite(features).all():
        raise InputError("X", "has NaN or infinite values")
    # A block holds whole groups
    block = None if labels is None else blocks_of(labels.max() + 1)[labels]
    noise = repeats_of(trials, block)
    if noise is None:
        raise InputError("y", "has no repeats: at most one response to each stimulus")
    spread = features.std(axis=0)
    z = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    left_out = LeaveOneOut(torch.from_numpy(z), noise.block, n_components, labels)
    parts = []
    for v in voxel_blocks(trials.shape[1], max(_AT_ONCE // len(trials), 1)):
        some = moments(trials[:, v])
        mean = some.mean
        usable = (some.count > 0).all(axis=0) & (np.ptp(mean, axis=0) > 0)
        scale = np.where(usable, mean.std(axis=0), 1)
        z_mean = torch.from_numpy(((mean - mean.mean(axis=0)) / scale)[left_out.order]).float()
        of_block = replace(noise, noise=(noise.noise[:, v] / scale**2).astype(np.float32))
        share = left_out.sums(z_mean, of_block).shares()
        share = share._replace(linear=share.linear * scale**2, signal=share.signal * scale**2)
        parts.append([np.where(usable, values, np.nan) for values in share])
    return Share(*np.concatenate(parts, axis=1))


def _stacked(
    features: NDArray, rows: NDArray, stimulus: NDArray, groups: NDArray | None
) -> tuple[NDArray, NDArray, NDArray | None]:
    """Features (N, D), responses (N, V, R) and groups (N,) of the stimuli of T rows."""
    if rows.ndim != 2 or len(rows) != len(stimulus) or len(features) != len(rows):
        raise InputError(
            "repeats",
            f"must have a value for each row of X and y, found {len(stimulus)} for "
            f"{len(features)} and {len(rows)} rows",
        )
    _, first, number = np.unique(stimulus, return_index=True, return_inverse=True)
    if (features != features[first][number]).any():
        raise InputError("repeats", "gives rows of X that differ to one stimulus")
    if groups is not None and (groups != groups[first][number]).any():
        raise InputError("groups", "has the repeats of one stimulus in several groups")
    order = np.argsort(number, kind="stable")
    count = np.bincount(number)
    turn = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    trials = np.full((len(first), rows.shape[1], count.max()), np.nan)
    trials[number[order], :, turn] = rows[order]
    return features[first], trials, None if groups is None else groups[first]
