"""How well responses are predicted, how sure that is, and how well they could be (PAPER 6, A.2).

Everything is per voxel, over the N test stimuli, and computed in float64. A voxel with a missing
or constant response has no score: NaN, never a repaired number.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

_BLOCK = 4096  # voxels at a time: bounds the float64 copies at 8 * N * _BLOCK bytes


def r2_score(responses: NDArray, predictions: NDArray) -> NDArray[np.float64]:
    """R2[v] = 1 - mean_i (y - yhat)^2 / var_i(y), NaN where the response is constant (A.2).

    responses, predictions: (N, V). Returns (V,) float64, at most 1, negative when worse than
    the mean.
    """
    _same_shape(responses, predictions)
    r2 = np.empty(responses.shape[1])
    for columns, y, error in _blocks(responses, predictions):
        variance = y.var(axis=0)
        r2[columns] = 1 - _divide(np.square(error).mean(axis=0), variance, y)
    return r2


def pearson_r(responses: NDArray, predictions: NDArray) -> NDArray[np.float64]:
    """Pearson's r of responses and predictions, NaN where either is constant.

    responses, predictions: (N, V). Returns (V,) float64.
    """
    _same_shape(responses, predictions)
    r = np.empty(responses.shape[1])
    for columns, y, _ in _blocks(responses, predictions):
        prediction = np.asarray(predictions[:, columns], dtype=np.float64)
        centred, fitted = y - y.mean(axis=0), prediction - prediction.mean(axis=0)
        norms = np.linalg.norm(centred, axis=0) * np.linalg.norm(fitted, axis=0)
        varies = (np.ptp(y, axis=0) > 0) & (np.ptp(prediction, axis=0) > 0)
        covariance = (centred * fitted).sum(axis=0)
        r[columns] = np.divide(covariance, norms, out=np.full_like(norms, np.nan), where=varies)
    return r


def resample_counts(n: int, n_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """How often each of n stimuli is drawn in each resample with replacement, (n_bootstrap, n)."""
    draws = np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))
    return np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(np.float64)


def bootstrap_r2(
    responses: NDArray, predictions: NDArray, n_bootstrap: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """R2 on `n_bootstrap` resamples of the test stimuli, drawn with replacement (A.2).

    A resample is a row of counts c (how often each stimulus was drawn), so all resamples of a
    block of voxels are three matrix products: c @ error^2, c @ y and c @ y^2.

    responses, predictions: (N, V). Returns (n_bootstrap, V) float64; NaN where the response is
    constant over the resample.
    """
    _same_shape(responses, predictions)
    n = len(responses)
    counts = resample_counts(n, n_bootstrap, seed)
    r2 = np.empty((n_bootstrap, responses.shape[1]))
    for columns, y, error in _blocks(responses, predictions):
        centred = y - y.mean(axis=0)  # the variance of a resample does not move, its rounding does
        total = counts @ np.square(centred) - np.square(counts @ centred) / n
        total[total < 1e-9 * n * y.var(axis=0)] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = counts @ np.square(error) / total
        r2[:, columns] = np.where(total > 0, 1 - ratio, np.nan)
    return r2


def bootstrap_p(
    bootstrapped_r2: NDArray, form: Literal["sound", "paper"] = "sound"
) -> NDArray[np.float64]:
    """p[v] of R2 > 0, from resamples of R2: the share of resamples with R2 <= 0.

    `sound` is (k + 1) / (n + 1), never 0; `paper` is k / n with k counting R2 < 0.

    bootstrapped_r2: (n_bootstrap, V). Returns (V,) float64, NaN for a voxel without a single
    resampled R2; resamples without an R2 are left out of n.
    """
    n = np.isfinite(bootstrapped_r2).sum(axis=0)
    if form == "sound":
        p = ((bootstrapped_r2 <= 0).sum(axis=0) + 1) / (n + 1)
    else:
        p = (bootstrapped_r2 < 0).sum(axis=0) / np.maximum(n, 1)
    return np.where(n > 0, p, np.nan)


def fdr(p: NDArray) -> NDArray[np.float64]:
    """Benjamini-Hochberg adjusted p over the voxels that have one; NaN stays NaN.

    p: (V,). Returns (V,) float64. Voxels without a p do not count among the tests.
    """
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], method="fdr_bh")[1]
    return adjusted


def noise_ceiling_snr(repeats: NDArray) -> NDArray[np.float64]:
    """ncsnr[v]: standard deviation of the signal over that of the noise, as in NSD.

    repeats: (N, V, R), NaN where a repeat is missing. Returns (V,) float64; 0 where the noise
    explains everything, NaN where no stimulus of a voxel was repeated or nothing varies.
    """
    n_voxels = repeats.shape[1]
    ncsnr = np.empty(n_voxels)
    for start in range(0, n_voxels, _BLOCK):
        columns = slice(start, start + _BLOCK)
        trials = np.asarray(repeats[:, columns], dtype=np.float64)
        there = np.isfinite(trials)
        count = there.sum(axis=2)  # (N, v)
        total = np.where(there, trials, 0).sum(axis=2)
        mean = total / np.maximum(count, 1)
        within = np.where(there, np.square(trials - mean[:, :, None]), 0).sum(axis=(0, 2))
        grand_mean = total.sum(axis=0) / np.maximum(count.sum(axis=0), 1)
        between = (count * np.square(mean - grand_mean)).sum(axis=0)
        ncsnr[columns] = _ncsnr(count, within, within + between)
    return ncsnr


def ncsnr_from_sums(count: NDArray, mean: NDArray, squares: NDArray) -> NDArray[np.float64]:
    """`noise_ceiling_snr` of trials that are no longer there.

    count, mean: (N, V) trials of each stimulus and their mean. squares: (V,) sum over all trials
    of their squares. Returns (V,) float64.
    """
    grand_mean = (count * mean).sum(axis=0) / np.maximum(count.sum(axis=0), 1)
    within = squares - (count * np.square(mean)).sum(axis=0)
    total = squares - count.sum(axis=0) * np.square(grand_mean)
    return _ncsnr(count, np.maximum(within, 0), total)


def _ncsnr(count: NDArray, within: NDArray, total: NDArray) -> NDArray[np.float64]:
    """From the sums of squares (V,) within stimuli and of all trials around their mean.

    The noise variance is the variance between the repeats of a stimulus, pooled over stimuli;
    the signal variance is what is left of the variance of all single trials.
    """
    free = np.maximum(count - 1, 0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = within / free
        signal = total / (count.sum(axis=0) - 1) - noise
        return np.sqrt(np.maximum(signal, 0) / noise)


def noise_ceiling(ncsnr: NDArray, mean_inverse_repeats: NDArray | float) -> NDArray[np.float64]:
    """The largest R2 that averages over repeats allow: ncsnr^2 / (ncsnr^2 + mean(1/n)) (A.2).

    ncsnr: (V,). mean_inverse_repeats: the mean over the scored stimuli of 1 / (number of
    repeats averaged), one number or one a voxel. Returns (V,) float64, from 0 to 1, of R2.
    """
    with np.errstate(divide="ignore"):  # no signal: 1 / inf = 0; no noise: 1 / (1 + 0) = 1
        return 1 / (1 + mean_inverse_repeats / np.square(np.asarray(ncsnr, dtype=np.float64)))


def _same_shape(responses: NDArray, predictions: NDArray) -> None:
    if responses.shape != predictions.shape or responses.ndim != 2:
        raise ValueError(
            f"responses and predictions must both be (n_stimuli, n_voxels), "
            f"found {responses.shape} and {predictions.shape}"
        )


def _blocks(responses: NDArray, predictions: NDArray):
    for start in range(0, responses.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        y = np.asarray(responses[:, columns], dtype=np.float64)
        yield columns, y, y - predictions[:, columns]


def _divide(error: NDArray, variance: NDArray, y: NDArray) -> NDArray:
    # A constant response has a variance of rounding errors only; ask the values themselves.
    varies = np.ptp(y, axis=0) > 0
    return np.divide(error, variance, out=np.full_like(error, np.nan), where=varies)
