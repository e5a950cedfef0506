"""What unseen responses say of voxels and of sets of them: sums over voxels, per stimulus.

A region, a tier or a difference of regions is tested over stimuli, so noise that voxels share is
not counted as evidence of many. The variance that is explained is a sum of products over pairs of
stimuli. Its error counts the pairs twice, as the jackknife does (Efron & Stein 1981), and what is
too much is subtracted.

n stimuli, K voxels or sets of voxels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from jne.analysis.contrast import Contrast, contrast, quantile

N_REGRESSORS = 5
"""The constant, ridge and least-squares regression, linear and nonlinear part of the prediction."""
MIN_STIMULI = N_REGRESSORS + 2
"""The fewest stimuli, or groups of them, that the regression is made over: two degrees of freedom
for what it leaves."""


class ValidatedShare(NamedTuple):
    """The validated share with its 95 % interval; (K,) float64 each."""

    share: NDArray[np.float64]
    """Of the variance that is predicted, how much by the nonlinear part alone. NaN where nothing is
    predicted."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class EvidenceSums:
    """What the evidence of K sets of voxels follows from. Those of sets add up.

    Variances are in units of a voxel's variance over the stimuli.
    """

    n_voxels: NDArray[np.float64]
    """(K,) that have evidence."""
    product: NDArray[np.float64]
    """(n, K): response times nonlinear part, of both what the linear regressors leave. Their sum is
    positive where the nonlinear part exists in the responses."""
    spread: NDArray[np.float64]
    """(n, K): the product with what the nonlinear part leaves of the response, too."""
    nonlinear: NDArray[np.float64]
    """(K,), variance that the nonlinear part alone explains."""
    nonlinear_pull: NDArray[np.float64]
    """(n, K), half its derivative by the weight of a stimulus."""
    pairs: NDArray[np.float64]
    """(K,), the squared products of two stimuli, over all pairs of different ones."""
    linear: NDArray[np.float64]
    """(K,), variance that the linear regressors explain."""
    linear_pull: NDArray[np.float64]
    """(n, K), its derivative by the weight of a stimulus."""

    def combined(self, sets: NDArray) -> "EvidenceSums":
        """Of unions of sets. sets: (J, K), 1 for the members of each union.

        Of `pairs`, the products of different sets are missing, which widens intervals.
        """
        members = np.asarray(sets, dtype=np.float64)
        summed = {name: values @ members.T for name, values in vars(self).items()}
        return EvidenceSums(**summed)

    @property
    def z(self) -> NDArray[np.float64]:
        """(K,), standard normal where no voxel of a set is nonlinear; NaN without evidence."""
        error = np.sqrt(np.square(self.spread).sum(axis=0))
        total = self.product.sum(axis=0)
        return np.divide(total, error, out=np.full_like(error, np.nan), where=error > 0)

    @property
    def p(self) -> NDArray[np.float64]:
        """(K,), one-sided, of `z` as a t of n - 5 degrees of freedom."""
        return one_sided_p(self.z, len(self.product) - N_REGRESSORS)

    def share(self) -> ValidatedShare:
        """The validated share of each set."""
        half = quantile() * np.sqrt(self._nonlinear_variance())
        ends = self.nonlinear - half, self.nonlinear + half
        error = np.sqrt(np.square(self.linear_pull).sum(axis=0))
        return validated_share(self.nonlinear, ends, self.linear, error)

    def contrast(self, weights: NDArray) -> Contrast:
        """The sum of the validated shares of sets by these weights (K,), and its error.

        Where the nonlinear parts are small, the error counts pairs of stimuli twice, and is too
        large.
        """
        total = self.nonlinear + self.linear
        share = self.nonlinear / total
        pull = 2 * (1 - share) * self.nonlinear_pull - share * self.linear_pull
        change = pull @ (weights / total)
        return contrast(float(weights @ share), float(np.sqrt(np.square(change).sum())))

    def _nonlinear_variance(self) -> NDArray[np.float64]:
        spread = 4 * np.square(self.nonlinear_pull).sum(axis=0)
        return np.maximum(spread - 2 * self.pairs, 2 * self.pairs)


def one_sided_p(z: NDArray[np.float64], degrees: int) -> NDArray[np.float64]:
    """p of z > 0, NaN where z is."""
    return np.asarray(stats.t.sf(z, degrees))


def validated_share(
    nonlinear: NDArray[np.float64],
    ends: tuple[NDArray[np.float64], NDArray[np.float64]],
    linear: NDArray[np.float64],
    linear_error: NDArray[np.float64],
) -> ValidatedShare:
    """nonlinear / (nonlinear + linear), (K,), with its interval from those of the two (Zou 2008).

    ends: of the 95 % interval of `nonlinear`. linear_error: standard error of `linear`. NaN where
    the sum is not above 0 by its interval.
    """
    half = quantile() * linear_error
    total = nonlinear + linear
    predicted = total > np.hypot(half, (ends[1] - ends[0]) / 2)
    share = _share(nonlinear, linear)
    above = np.hypot(_share(ends[1], linear) - share, _share(nonlinear, linear - half) - share)
    lowest, heaviest = _share(ends[0], linear), _share(nonlinear, linear + half)
    with np.errstate(divide="ignore", invalid="ignore"):
        # On a logarithmic scale, on which the error of `linear` takes no end to 0
        ratio = np.exp(-np.hypot(np.log(lowest / share), np.log(heaviest / share)))
    positive = (ends[0] > 0) & (share > 0)
    below = np.where(positive, share * (1 - ratio), np.hypot(share - lowest, share - heaviest))
    bounds = share, share - below, np.minimum(share + above, 1)
    return ValidatedShare(*(np.where(predicted, values, np.nan) for values in bounds))


def _share(nonlinear: NDArray, linear: NDArray) -> NDArray:
    """Of variances that may both be estimated below 0."""
    linear = np.maximum(linear, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(nonlinear + linear > 0, nonlinear / (nonlinear + linear), 0)


def squared_pairs(products: Tensor) -> float:
    """The sum over pairs of different stimuli of their squared products, (n, n)."""
    squares = products.double().square()
    return float(squares.sum() - squares.trace())
