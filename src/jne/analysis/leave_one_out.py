"""Least squares in which each stimulus is predicted without itself: what V_linear is made of.

N stimuli, D features, v voxels of a block, B blocks of stimuli, P probes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jne.analysis.repeats import RepeatNoise
from jne.analysis.share_sums import ShareSums
from jne.errors import InputError

MIN_STIMULI_PER_FEATURE = 2
_TINY = 1e-10  # eigenvalues of the features, of the largest: below, they depend on each other
_N_PROBES = 64
DECISIVE = 0.9


class LeaveOneOut:
    """Least squares on features, each stimulus predicted without itself, or without its group.

    features: (N, D). block: (N,), see `RepeatNoise`. n_components: regress on the first principal
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
        self.n_decisive = int((leverage > DECISIVE).sum())
        """Stimuli that hardly any other one has a say in the fit to, as where one alone drives a
        feature: intervals, which are of many small contributions, are then too narrow."""
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
        repeats: RepeatNoise,
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
