r"""How much of the signal is nonlinear in the features, without an encoder. docs/share.md

.. math:: \mathrm{share} = 1 - V_\mathrm{linear} / V_\mathrm{signal}

V_signal is the variance that repeats of a stimulus share (`jne.analysis.repeats`). V_linear is the
covariance of the responses with their leave-one-out predictions by least squares, y - e / (1 - h)
for residuals e and leverages h: the weights without a stimulus know nothing of its noise, so it is
unbiased for the variance of the best linear fit, whatever the noise (Kline, Saggio & Solvsten
2020).

Both are sums over stimuli, and their errors follow from sums over blocks of stimuli. For V_linear
these hold the derivative f (2 y - f), f the leave-one-out prediction. Their spread counts the pairs
of stimuli whose noise meets in V_linear too often, as the jackknife does (Efron & Stein 1981); what
is too much is known, and subtracted. The interval of the ratio is Fieller's.

N stimuli, D features, V voxels, B blocks, K voxels or sets of voxels.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from jne.analysis.repeats import Repeats, blocks_of, repeats_of
from jne.errors import InputError
from jne.utils.blocks import voxel_blocks

CONFIDENCE = 0.95
MIN_STIMULI_PER_FEATURE = 2
_TINY = 1e-10  # eigenvalues of the features, of the largest: below, they depend on each other
_N_PROBES = 64
_AT_ONCE = 2**24  # responses


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

    def take(self, chosen: NDArray[np.bool_]) -> "ShareSums":
        """Some of the voxels or sets. chosen: (K,)."""
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
        spread = _product(of_linear, of_linear)
        var_linear = np.maximum(spread - self.pair_weight * _squared(self.pairs), spread / 3)
        t = _quantile(len(self.block_size))
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

    def difference(self, first: int, second: int) -> tuple[float, float, float]:
        """The share of one set minus that of another, with the ends of its 95 % interval."""
        shares = self.shares()
        rates = []
        for k in (first, second):
            ratio = shares.linear[k] / shares.signal[k]
            of_linear, of_signal = self._centred(self.derivative), self._centred(self.signal)
            rates.append((ratio * of_signal[:, k] - of_linear[:, k]) / shares.signal[k])
        pairs = (
            self.pairs[first] / shares.signal[first] - self.pairs[second] / shares.signal[second]
        )
        change = rates[0] - rates[1]
        spread = _product(change, change)
        variance = np.maximum(spread - self.pair_weight * _squared(pairs[None])[0], spread / 3)
        centre = shares.share[first] - shares.share[second]
        half = _quantile(len(self.block_size)) * np.sqrt(variance)
        return centre, centre - half, centre + half

    def _centred(self, values: NDArray) -> NDArray:
        """Sums over blocks (B, K), less what blocks of their sizes would have of the total, / N."""
        total = values.sum(axis=0) / self.n_stimuli
        return (values - self.block_size[:, None] * total) / self.n_stimuli


def _product(x: NDArray, y: NDArray) -> NDArray:
    """The covariance of two sums over stimuli from their sums over blocks, B in the first axis."""
    return len(x) / (len(x) - 1) * (x * y).sum(axis=0)


def _quantile(n_blocks: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n_blocks - 1))


def _squared(pairs: NDArray) -> NDArray:
    """The sum over pairs of voxels of the squared covariance of their residuals, (K,)."""
    if pairs.shape[1] == 1:
        return np.square(pairs[:, 0, 0])
    apart = ~np.eye(pairs.shape[1], dtype=bool)
    return np.square(pairs[:, apart]).mean(axis=1)


class LeaveOneOut:
    """Least squares on features, each stimulus predicted without itself, or without its group.

    features: (N, D). block: (N,), see `Repeats`. n_components: regress on the first principal
    components of the features instead; of features of equal scale. groups: (N,) of numbers, stimuli
    of a group are left out together.

    Raises InputError, naming `n_components`, where there are fewer than 2 N stimuli per feature.
    """

    def __init__(
        self,
        features: Tensor,
        block: NDArray[np.int64],
        n_components: int | None = None,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        n = len(features)
        self.order = np.argsort(block, kind="stable")
        """(N,): blocks one after the other, the order in which responses are taken."""
        self.block_size = size = np.bincount(block)
        x = features[self.order].double()
        x = x - x.mean(dim=0)
        values, vectors = torch.linalg.eigh(x.T @ x if x.shape[1] <= n else x @ x.T)
        kept = values > values[-1] * _TINY
        if n_components is not None:
            kept &= torch.arange(len(values)) >= len(values) - n_components
        self.n_components = int(kept.sum())
        most = n // MIN_STIMULI_PER_FEATURE
        if self.n_components > most:
            raise InputError(
                "n_components",
                f"{n} stimuli are too few for {self.n_components} features, of which there may be "
                f"{most}: take that many principal components, or fewer",
                value=n_components,
            )
        basis = vectors[:, kept]
        if x.shape[1] <= n:
            basis = x @ (basis / values[kept].sqrt())
        self._basis = basis.float()
        leverage = basis.square().sum(dim=1) + 1 / n  # with the mean
        self._groups = _groups(basis, groups[self.order]) if groups is not None else []
        met = leverage / (1 - leverage).clamp_min(_TINY)
        for members, inverse in self._groups:
            met[members] = inverse.diagonal().double() - 1
            leverage[members] = 0
        self.pair_weight = float(2 * (met.sum() + met.square().sum()) / n**2)
        self._unexplained = float((1 / (1 + met)).mean())
        self._left_out = (1 / (1 - leverage).clamp_min(1e-4)).float()
        self._in_block = torch.from_numpy(np.eye(len(size))[block[self.order]].T).float()  # (B, N)
        signs = torch.randint(0, 2, (_N_PROBES, n), generator=torch.Generator().manual_seed(0))
        self._probes = (2 * signs - 1).float()

    def sums(
        self,
        responses: Tensor,
        repeats: Repeats,
        ceiling: NDArray | None = None,
        sets: "SetSums | None" = None,
        set_of: NDArray[np.int64] | None = None,
    ) -> ShareSums:
        """Of voxels.

        responses: (N, v) float32, in the order `order`; overwritten. repeats: of the stimuli in
        their own order, and of these voxels; or, with ceiling (v,), their weights alone. sets: the
        voxels are added to these, each to that of its number in `set_of` (v,).
        """
        n = len(responses)
        y = responses.sub_(responses.mean(dim=0))
        # Residuals of all stimuli, then of each without itself, but for a factor per stimulus
        residual = torch.addmm(y, self._basis, self._basis.T @ y, alpha=-1)
        for members, inverse in self._groups:
            residual[members] = inverse @ residual[members]
        products = self._left_out @ (y * residual)
        probed = None if sets is None else self._probes * self._left_out @ residual
        squares = y.square_() if not self._groups else y.square()
        lacking = self._of_mean(y, squares)
        of_residual = residual.square_().mul_(self._left_out.square()[:, None])
        total = squares.sum(dim=0).double().numpy()
        of_blocks = (self._in_block @ squares).double().numpy()
        signal = of_blocks
        if (repeats.weight != 1).any():
            weight = torch.from_numpy(repeats.weight[self.order]).float()
            signal = ((self._in_block * weight) @ squares).double().numpy()
        scale = n / (n - 1)
        signal = scale * signal - repeats.noise if ceiling is None else scale * signal * ceiling
        variance = self._unexplained * of_residual.mean(dim=0).double().numpy()
        voxels = ShareSums(
            n_stimuli=n,
            pair_weight=self.pair_weight,
            linear=total - products.double().numpy() + lacking,
            variance=scale * total / n,
            derivative=of_blocks - (self._in_block @ of_residual).double().numpy(),
            signal=signal,
            block_size=self.block_size,
            pairs=variance[:, None, None],
        )
        if sets is not None:
            assert set_of is not None
            assert probed is not None
            sets.add(voxels, set_of, probed, of_residual)
        return voxels

    def sets(self, n_sets: int) -> "SetSums":
        """Sums of sets, still without voxels."""
        return SetSums(self, n_sets)

    def _of_mean(self, y: Tensor, squares: Tensor) -> NDArray[np.float64]:
        """What `linear` (v,) lacks because the mean, too, is without the stimulus."""
        n = len(squares)
        alone = torch.ones(n)
        lacking = np.zeros(squares.shape[1])
        for members, _ in self._groups:
            alone[members] = 0
            lacking += (y[members].sum(dim=0).square() / (n - len(members))).double().numpy()
        return lacking + (alone @ squares).double().numpy() / (n - 1)


class SetSums:
    """Sums over the voxels of sets, to which voxels are added."""

    def __init__(self, left_out: LeaveOneOut, n_sets: int) -> None:
        self._left_out, n = left_out, len(left_out.order)
        n_blocks = len(left_out.block_size)
        self._linear, self._variance = np.zeros(n_sets), np.zeros(n_sets)
        self._derivative, self._signal = np.zeros((2, n_blocks, n_sets))
        self._probed = np.zeros((n_sets, _N_PROBES, _N_PROBES))
        self._own = torch.zeros(n, n_sets)
        """Squared residuals, in which a stimulus meets itself."""

    def add(
        self, voxels: ShareSums, set_of: NDArray[np.int64], probed: Tensor, squares: Tensor
    ) -> None:
        """set_of: (v,). probed: (P, v). squares: (N, v), of the residuals.

        A voxel whose signal is not known is left out.
        """
        has_signal = np.asarray(np.isfinite(voxels.signal).all(axis=0))
        if not has_signal.all():
            kept = torch.from_numpy(has_signal)
            voxels, set_of = voxels.take(has_signal), set_of[has_signal]
            probed, squares = probed[:, kept], squares[:, kept]
        present, local = np.unique(set_of, return_inverse=True)
        members = np.eye(len(present))[local]  # (v, k)
        self._linear[present] += voxels.linear @ members
        self._variance[present] += voxels.variance @ members
        self._derivative[:, present] += voxels.derivative @ members
        self._signal[:, present] += voxels.signal @ members
        self._own[:, present] += squares @ torch.from_numpy(members).float()
        for k, number in enumerate(present):
            of_set = probed[:, torch.from_numpy(local == k)].double()
            self._probed[number] += (of_set @ of_set.T).numpy()

    def finish(self) -> ShareSums:
        """The sums of all sets; only the products of different stimuli count in their pairs."""
        left_out = self._left_out
        probes, n = left_out._probes, len(left_out.order)
        own = torch.einsum("pn,nk,qn->kpq", probes, self._own, probes).double().numpy()
        return ShareSums(
            n_stimuli=n,
            pair_weight=left_out.pair_weight,
            linear=self._linear,
            variance=self._variance,
            derivative=self._derivative,
            signal=self._signal,
            block_size=left_out.block_size,
            pairs=left_out._unexplained * (self._probed - own) / n,
        )


def _groups(basis: Tensor, groups: NDArray[np.int64]) -> list[tuple[Tensor, Tensor]]:
    """The members of each group of several stimuli, and the inverse of 1 - leverages of it."""
    result = []
    for group in np.unique(groups):
        members = torch.from_numpy(np.flatnonzero(groups == group))
        if len(members) > 1:
            own = basis[members]
            leverages = own @ own.T + 1 / len(basis)
            inverse = torch.linalg.inv(torch.eye(len(members), dtype=torch.float64) - leverages)
            result.append((members, inverse.float()))
    return result


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
        values = np.asarray(trials[:, v], dtype=np.float64)
        valid = np.isfinite(values)
        count = valid.sum(axis=2)
        mean = np.where(valid, values, 0).sum(axis=2) / np.maximum(count, 1)
        usable = (count > 0).all(axis=0) & (np.ptp(mean, axis=0) > 0)
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
