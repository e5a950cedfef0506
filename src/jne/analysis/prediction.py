"""How well responses are predicted, and how certain that is (Gao et al. 2025, A.2).

Everything is per voxel, over the N test stimuli, and computed in float64. A voxel with a missing
or constant response has no score: NaN, never a repaired number.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from jne.errors import InputError
from jne.utils.blocks import voxel_blocks


def r2_score(responses: NDArray, predictions: NDArray) -> NDArray[np.float64]:
    """R² of each voxel, 1 - mean((y - yhat)²) / var(y) over stimuli (A.2).

    Parameters
    ----------
    responses, predictions : (N, V) array

    Returns
    -------
    (V,) array of float64
        At most 1, negative where the mean would predict better, NaN where the response is constant.

    Raises
    ------
    ValueError
        For unequal shapes.
    """
    _check_shapes(responses, predictions)
    r2 = np.empty(responses.shape[1])
    for columns, y, error in _blocks(responses, predictions):
        variance = y.var(axis=0)
        r2[columns] = 1 - _divide(np.square(error).mean(axis=0), variance, y)
    return r2


def pearson_r(responses: NDArray, predictions: NDArray) -> NDArray[np.float64]:
    """Pearson's r of responses and predictions.

    Parameters
    ----------
    responses, predictions : (N, V) array

    Returns
    -------
    (V,) array of float64
        NaN where either is constant.

    Raises
    ------
    ValueError
        For unequal shapes.
    """
    _check_shapes(responses, predictions)
    r = np.empty(responses.shape[1])
    for columns, y, _ in _blocks(responses, predictions):
        prediction = np.asarray(predictions[:, columns], dtype=np.float64)
        centred, fitted = y - y.mean(axis=0), prediction - prediction.mean(axis=0)
        norms = np.linalg.norm(centred, axis=0) * np.linalg.norm(fitted, axis=0)
        varies = (np.ptp(y, axis=0) > 0) & (np.ptp(prediction, axis=0) > 0)
        covariance = (centred * fitted).sum(axis=0)
        r[columns] = np.divide(covariance, norms, out=np.full_like(norms, np.nan), where=varies)
    return r


def r2_p(
    responses: NDArray,
    predictions: NDArray,
    form: Literal["t_test", "plus_one", "raw"] = "t_test",
    n_bootstrap: int = 200,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """p of R² > 0, one-sided, by `t_test_p` or from resamples by `bootstrap_p`.

    Parameters
    ----------
    responses, predictions : (N, V) array
    form : {"t_test", "plus_one", "raw"}
        The t test, or a form of `bootstrap_p`.
    n_bootstrap : int
        Resamples of the test stimuli; not used by the t test.
    seed : int
        Of the resamples.
    groups : (N,) array of int, optional
        As of `t_test_p`; resamples know none.

    Returns
    -------
    (V,) array of float64
        NaN where there is no p.

    Raises
    ------
    InputError
        For resamples of stimuli that belong together.
    """
    if form == "t_test":
        return t_test_p(responses, predictions, groups)
    if groups is not None:
        raise InputError("stats.p_value", "data.groups needs the t test; write t_test", form)
    return bootstrap_p(bootstrap_r2(responses, predictions, n_bootstrap, seed), form)


def t_test_p(
    responses: NDArray, predictions: NDArray, groups: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    r"""p of R² > 0: a one-sided t test of the mean reduction of the squared error.

    .. math:: d_i = (y_i - \bar y)^2 - (y_i - \hat y_i)^2, \quad
              t = \sqrt{N - 1}\, \mathrm{mean}(d) / \mathrm{std}(d), \quad p = P(T_{N-1} > t)

    R² is mean(d) / var(y): the two have the same sign in every resample of the stimuli, so the
    test asks what the bootstrap asks, with a p as small as the data allow (after Diebold & Mariano
    1995).

    Parameters
    ----------
    responses, predictions : (N, V) array
    groups : (N,) array of int, optional
        Stimuli of a group share noise: the standard error is that of sums over groups (clustered:
        Liang & Zeger 1986), and N the number of groups.

    Returns
    -------
    (V,) array of float64
        NaN where the response is constant, 1 where the prediction is the mean response.

    Raises
    ------
    ValueError
        For unequal shapes.
    """
    _check_shapes(responses, predictions)
    n = n_stimuli = len(responses)
    if groups is not None:
        _, groups = np.unique(groups, return_inverse=True)
        n = int(groups.max()) + 1
    p = np.empty(responses.shape[1])
    for columns, y, error in _blocks(responses, predictions):
        centred = y - y.mean(axis=0)
        fitted = centred - error  # yhat - ybar
        reduction = fitted * (2 * centred - fitted)  # d, with less rounding error
        mean, spread = reduction.mean(axis=0), reduction.std(axis=0)
        if groups is not None:
            sums = np.zeros((n, len(mean)))
            np.add.at(sums, groups, reduction - mean)
            spread = np.sqrt(n * np.square(sums).sum(axis=0)) / n_stimuli
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.sqrt(n - 1) * mean / spread
        t[(mean == 0) & (spread == 0)] = -np.inf
        p[columns] = np.where(np.ptp(y, axis=0) > 0, stats.t.sf(t, n - 1), np.nan)
    return p


def resample_counts(n: int, n_bootstrap: int, seed: int) -> NDArray[np.float64]:
    """How often each resample with replacement draws each of n stimuli, (n_bootstrap, n)."""
    draws = np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))
    return np.stack([np.bincount(draw, minlength=n) for draw in draws]).astype(np.float64)


def bootstrap_r2(
    responses: NDArray, predictions: NDArray, n_bootstrap: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """R² on resamples of the test stimuli, drawn with replacement (A.2).

    A resample is a row of counts c (how often each stimulus was drawn), so all resamples of a
    block of voxels are three matrix products: c @ error², c @ y and c @ y².

    Parameters
    ----------
    responses, predictions : (N, V) array
    n_bootstrap : int
        Number of resamples.
    seed : int
        Of the resamples.

    Returns
    -------
    (n_bootstrap, V) array of float64
        NaN where the response is constant over the resample.
    """
    _check_shapes(responses, predictions)
    n = len(responses)
    counts = resample_counts(n, n_bootstrap, seed)
    r2 = np.empty((n_bootstrap, responses.shape[1]))
    for columns, y, error in _blocks(responses, predictions):
        centred = y - y.mean(axis=0)  # leaves the variances as they are, lowers rounding error
        total = counts @ np.square(centred) - np.square(counts @ centred) / n
        total[total < 1e-9 * n * y.var(axis=0)] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = counts @ np.square(error) / total
        r2[:, columns] = np.where(total > 0, 1 - ratio, np.nan)
    return r2


def bootstrap_p(
    bootstrapped_r2: NDArray, form: Literal["plus_one", "raw"] = "plus_one"
) -> NDArray[np.float64]:
    """p of R² > 0, from resamples of R²: the share of resamples with R² <= 0.

    Parameters
    ----------
    bootstrapped_r2 : (n_bootstrap, V) array
        As `bootstrap_r2` returns it. Resamples without an R² do not count in n.
    form : {"plus_one", "raw"}
        `plus_one` is (k + 1) / (n + 1), which is never 0; `raw`, the paper's, is k / n with k
        counting R² < 0.

    Returns
    -------
    (V,) array of float64
        NaN for a voxel without any resampled R².
    """
    n = np.isfinite(bootstrapped_r2).sum(axis=0)
    if form == "plus_one":
        p = ((bootstrapped_r2 <= 0).sum(axis=0) + 1) / (n + 1)
    else:
        p = (bootstrapped_r2 < 0).sum(axis=0) / np.maximum(n, 1)
    return np.where(n > 0, p, np.nan)


def fdr(p: NDArray) -> NDArray[np.float64]:
    """p adjusted by Benjamini and Hochberg's method, over the voxels that have a p.

    Parameters
    ----------
    p : (V,) array
        NaN where a voxel has none; such voxels do not count among the tests.

    Returns
    -------
    (V,) array of float64
        NaN stays NaN.
    """
    adjusted = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        adjusted[tested] = multipletests(p[tested], method="fdr_bh")[1]
    return adjusted


def holm(p: NDArray) -> NDArray[np.float64]:
    """p adjusted by Holm's step-down method, over the tests that have a p.

    Holm (1979). statsmodels has it, too, but collects garbage each time, which takes a tenth of a
    second.

    Parameters
    ----------
    p : (n,) array
        NaN where a group was not tested; such groups do not count among the tests.

    Returns
    -------
    (n,) array of float64
        NaN stays NaN.
    """
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN is last
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def _check_shapes(responses: NDArray, predictions: NDArray) -> None:
    if responses.shape != predictions.shape or responses.ndim != 2:
        raise ValueError(
            f"responses and predictions must both be (n_stimuli, n_voxels), "
            f"found {responses.shape} and {predictions.shape}"
        )


def _blocks(
    responses: NDArray, predictions: NDArray
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Blocks of voxels: their columns, responses and errors, (N, v) each."""
    for columns in voxel_blocks(responses.shape[1]):
        y = np.asarray(responses[:, columns], dtype=np.float64)
        yield columns, y, y - predictions[:, columns]


def _divide(error: NDArray, variance: NDArray, y: NDArray) -> NDArray:
    # The variance of a constant response is rounding error, not 0: test the values themselves.
    varies = np.ptp(y, axis=0) > 0
    return np.divide(error, variance, out=np.full_like(error, np.nan), where=varies)
