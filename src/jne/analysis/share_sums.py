"""The nonlinear share from sums over blocks of stimuli, with its interval.

V_linear and V_signal (`jne.analysis.nonlinear_share`) are sums over stimuli, and their errors
follow from sums over blocks of stimuli. For V_linear these hold the derivative f (2 y - f), f the
leave-one-out prediction. Their spread counts the pairs of stimuli whose noise meets in V_linear too
often, as the jackknife does (Efron & Stein 1981); what is too much is known, and subtracted. The
interval of the ratio is Fieller's.

B blocks, K voxels or sets of voxels.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jne.analysis.contrast import Contrast, contrast, quantile
from jne.utils.notebook import summary_html, summary_text


class Share(NamedTuple):
    """The nonlinear share of the signal, and its parts; (V,) float64 each, NaN where unknown."""

    share: NDArray[np.float64]
    """1 - linear / signal. Unbiased, so negative half the time where nothing is nonlinear; NaN
    where the signal is not above 0 by its interval."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """The ends of the 95 % interval of the share."""
    linear: NDArray[np.float64]
    """The variance of the best linear fit to the features, in squared units of the responses."""
    signal: NDArray[np.float64]
    """The variance that repeats of a stimulus share, in the same units."""

    def __repr__(self) -> str:
        return summary_text(self._title, {"nonlinear share": self.share})

    def _repr_html_(self) -> str:
        return summary_html(self._title, {"nonlinear share": self.share})

    @property
    def _title(self) -> str:
        return f"Share: {np.size(self.share)} voxels"


@dataclass(frozen=True)
class ShareSums:
    """What the shares of K voxels, or of K sets of voxels, follow from. Those of sets add up."""

    n_stimuli: int
    pair_weight: float
    """Of `pairs` in the error of `linear`."""
    linear: NDArray[np.float64]
    """(K,)"""
    variance: NDArray[np.float64]
    """(K,), of the mean responses."""
    derivative: NDArray[np.float64]
    """(B, K), of `linear`."""
    signal: NDArray[np.float64]
    """(B, K)"""
    block_size: NDArray[np.int64]
    """(B,), stimuli."""
    pairs: NDArray[np.float64]
    """(K, P, P) of sets: probes of the products of residuals over pairs of stimuli. (K, 1, 1) of
    voxels: the variance of the residuals."""

    def combined(self, sets: NDArray) -> "ShareSums":
        """Of sets of sets. sets: (J, K), the weight of each in each new one."""
        return replace(
            self,
            linear=sets @ self.linear,
            variance=sets @ self.variance,
            derivative=self.derivative @ sets.T,
            signal=self.signal @ sets.T,
            pairs=np.tensordot(sets, self.pairs, 1),
        )

    def take(self, chosen: NDArray) -> "ShareSums":
        """Some of the voxels or sets. chosen: (K,) bool, or their numbers."""
        return replace(
            self,
            linear=self.linear[chosen],
            variance=self.variance[chosen],
            derivative=self.derivative[:, chosen],
            signal=self.signal[:, chosen],
            pairs=self.pairs[chosen],
        )

    def shares(self) -> Share:
        """The share of each voxel or set, with its interval; (K,) each."""
        n = self.n_stimuli
        linear, signal = self.linear / n, self.signal.sum(axis=0) / n
        of_linear, of_signal = self._centred(self.derivative), self._centred(self.signal)
        var_signal, covariance = _product(of_signal, of_signal), _product(of_linear, of_signal)
        var_linear = self._without_pairs(_product(of_linear, of_linear), self.pairs)
        t = quantile(len(self.block_size) - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # The mean of a ratio is not the ratio of means (Beale 1962).
            ratio = (linear + covariance / signal) / (signal + var_signal / signal)
            a = signal**2 - t**2 * var_signal
            b = linear * signal - t**2 * covariance
            c = linear**2 - t**2 * var_linear
            half = np.sqrt(np.maximum(b**2 - a * c, 0)) / a
            share, low, high = 1 - ratio, 1 - b / a - half, 1 - b / a + half
        clear = (a > 0) & (signal > 0)
        share, low, high = (np.where(clear, values, np.nan) for values in (share, low, high))
        return Share(share, low, high, linear, signal)

    def contrast(self, weights: NDArray) -> Contrast:
        """The sum of the shares of sets by these weights (K,), and its error."""
        shares = self.shares()
        of_linear, of_signal = self._centred(self.derivative), self._centred(self.signal)
        by_signal = weights / shares.signal
        change = (shares.linear / shares.signal * of_signal - of_linear) @ by_signal
        pairs = np.tensordot(by_signal, self.pairs, 1)[None]
        variance = self._without_pairs(_product(change, change), pairs).item()
        value = float(weights @ shares.share)
        return contrast(value, float(np.sqrt(variance)), len(self.block_size) - 1)

    def _without_pairs(self, spread: NDArray, pairs: NDArray) -> NDArray:
        """The variance of `linear` (K,), from its spread over blocks, which counts pairs twice."""
        return np.maximum(spread - self.pair_weight * _squared(pairs), spread / 3)

    def _centred(self, values: NDArray) -> NDArray:
        """Sums over blocks (B, K), less what blocks of their sizes would have of the total, / N."""
        total = values.sum(axis=0) / self.n_stimuli
        return (values - self.block_size[:, None] * total) / self.n_stimuli


def _product(x: NDArray, y: NDArray) -> NDArray:
    """The covariance of two sums over stimuli from their sums over blocks, B in the first axis."""
    return len(x) / (len(x) - 1) * (x * y).sum(axis=0)


def _squared(pairs: NDArray) -> NDArray:
    """The sum over pairs of voxels of the squared covariance of their residuals, (K,)."""
    if pairs.shape[1] == 1:
        return np.square(pairs[:, 0, 0])
    apart = ~np.eye(pairs.shape[1], dtype=bool)
    return np.square(pairs[:, apart]).mean(axis=1)
