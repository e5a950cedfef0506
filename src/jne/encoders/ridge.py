"""Ridge regression with a penalty for each voxel, chosen by cross-validation.

As himalaya does (Dupre la Tour et al. 2022, https://doi.org/10.1016/j.neuroimage.2022.119728), but
the penalties are continuous. N stimuli, D features, V voxels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from jne.utils.blocks import voxel_blocks

# The grid, times trace(X'X) / N: the variance of all features together. In these units the best
# penalty of weights that are alike is the noise-to-signal ratio of the responses, whatever D is.
PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(-3, 5.5, 0.5))
Splits = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Which rows train and which validate, as of scikit-learn's splitters."""
_FACTORS = (10**0.5, 10**0.25)  # half decades, then quarters
_VOXELS_AT_ONCE = 2**10


class RidgeRegression(nn.Linear):
    """`encoder=ridge`: a readout of the features themselves, y = W x + b. Its JNE is exactly 0.

    With `readout=ridge`, the default, it is not trained but solved for.

    Parameters
    ----------
    n_features, n_voxels : int
        D and V.
    bias : bool
        Whether there is a b.
    """

    def __init__(self, n_features: int, n_voxels: int, *, bias: bool = True) -> None:
        super().__init__(n_features, n_voxels, bias=bias)


@dataclass(frozen=True)
class RidgeFit:
    """What `RidgeCV.fit` finds."""

    weights: Tensor
    """(D, V), fitted to all rows."""
    penalty: NDArray[np.float32]
    """(V,), in the units of X'X."""
    end: NDArray[np.float32]
    """(V,), -1 where it is the smallest of the grid, 1 where it is the largest, else 0."""
    loss: NDArray[np.float32]
    """(V,), the mean squared error of the rows that a fold left out, at that penalty."""


class RidgeCV:
    """Ridge regression with a penalty for each voxel v: min |Y - X B|^2 + penalty_v |B_v|^2.

    There is no intercept: the caller centres features and responses, if need be. The features are
    decomposed once, for all blocks of voxels.
    """

    def __init__(self, features: Tensor, splits: Splits, *, kernel: bool = False) -> None:
        """features: X, (N, D). splits: of the rows, which train and which validate. kernel: whether
        X is Z Z' of other features Z, (N, N), for which weights are then the dual ones, (N, V)."""
        size = features.diagonal() if kernel else features.square()
        self.unit = float(size.sum()) / len(features)  # trace(X'X) / N, or of Z
        self._features, self._kernel = features, kernel
        self._folds = [_Fold(features, *split, kernel) for split in splits]

    @cached_property
    def _solver(self) -> "RidgeSolver":
        return RidgeSolver(self._features, self._kernel)

    def fit(self, responses: Tensor) -> RidgeFit:
        """The weights of responses Y, (N, V), of the features' dtype.

        The penalty of a voxel is where its squared error over all rows that validate, each
        predicted from those that train in its split, is smallest: among the decades of the grid,
        then the halves and quarters of a decade beside the best so far, then on the parabola
        through the best and its neighbours. It does not jump where two of them are equally good.
        The weights are then fitted to all rows.
        """
        (fitted,) = fit_together([self], [responses])
        return fitted

    def choose(self, responses: Tensor) -> "Choice":
        """As `fit`, without the weights."""
        (chosen,) = choose_together([self], [responses])
        return chosen

    def weights(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """Weights (D, V), fitted to all rows, at penalties (V,)."""
        return self._solver.weights(responses, penalty.to(responses))

    def noise(self, at: Tensor) -> Callable[[Tensor], Tensor]:
        """As `RidgeSolver.noise`, of weights that are fitted to all rows."""
        return self._solver.noise(at)

    def predict_left_out(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """What the rows that train in a split predict of those it leaves out, at penalties (V,).

        (N, V), NaN in rows that no split leaves out.
        """
        predictions = torch.full_like(responses, torch.nan)
        for fold in self._folds:
            predicted = fold.predict(fold.project(responses), penalty.to(responses))
            predictions[fold.left_out] = fold.restore(predicted)
        return predictions

    def folds(self, used: NDArray[np.bool_] | None = None) -> "list[_Fold]":
        """Of each split, the rows that validate; of these, those that are used, (N,)."""
        return self._folds if used is None else [fold.only(used) for fold in self._folds]

    def predictor(self, at: Tensor) -> Callable[[Tensor, Tensor], list[Tensor]]:
        """A function of responses Y (N, V) and penalties (V,): predictions of rows (n, D).

        (n, V) each, of ridge regression and of least squares, or close to it: at the smallest
        penalty of the grid.
        """
        scores, least = at @ self._solver.directions, self.unit * PENALTIES[0]

        def predict(responses: Tensor, penalty: Tensor) -> list[Tensor]:
            projected = self._solver.project(responses)
            penalties = penalty.to(responses), responses.new_full((1,), least)
            return [scores @ self._solver.shrink(projected, each) for each in penalties]

        return predict


Used = Sequence[Sequence[NDArray[np.bool_]]]


def fit_together(
    ridges: Sequence[RidgeCV], responses: Sequence[Tensor], used: Used | None = None
) -> list[RidgeFit]:
    """As `RidgeCV.fit`, but what a penalty makes smallest is the squared error of all regressions.

    They are compared at the same ratio of penalty to trace(X'X) / N. Each returns the loss of its
    own rows. responses: Y of each, (N, V). used: used[k][j], (N,), are the rows of j that may
    choose the penalties of k; by default all.
    """
    chosen = choose_together(ridges, responses, used)
    return [
        RidgeFit(
            ridge.weights(values, of_ridge.penalty), *(x.float().cpu().numpy() for x in of_ridge)
        )
        for ridge, values, of_ridge in zip(ridges, responses, chosen, strict=True)
    ]


class Choice(NamedTuple):
    """Of V voxels, float64 (V,) each, as of RidgeFit."""

    penalty: Tensor
    end: Tensor
    loss: Tensor


def choose_together(
    ridges: Sequence[RidgeCV], responses: Sequence[Tensor], used: Used | None = None
) -> list[Choice]:
    """As `fit_together`, without the weights."""
    masks: Sequence[Sequence[NDArray[np.bool_] | None]]
    masks = used or [[None] * len(ridges)] * len(ridges)
    folds = [[ridge.folds(m) for ridge, m in zip(ridges, row, strict=True)] for row in masks]
    units = torch.tensor([ridge.unit for ridge in ridges], dtype=torch.float64)
    chosen: list[list[tuple[Tensor, ...]]] = [[] for _ in ridges]
    for voxels in voxel_blocks(responses[0].shape[1], _VOXELS_AT_ONCE):
        block = [values[:, voxels] for values in responses]
        projected = [
            [fold.project(values) for fold in ridge.folds()]
            for ridge, values in zip(ridges, block, strict=True)
        ]
        for k, of_fold in enumerate(folds):
            curves = [_ErrorCurve(*each) for each in zip(of_fold, block, projected, strict=True)]
            scaled = list(zip(curves, (units / units[k]).tolist(), strict=True))
            decades = units[k] * torch.tensor(PENALTIES[::2], dtype=torch.float64)
            penalty, end = _lowest(scaled, decades.to(block[k].device))
            chosen[k].append((penalty, end, curves[k].loss(penalty)))
    return [Choice(*map(torch.cat, zip(*of_ridge, strict=True))) for of_ridge in chosen]


def _lowest(
    curves: Sequence[tuple["_ErrorCurve", float]], decades: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the sum of curves is lowest, and at which end of the grid that is, float64 (v,) each.

    curves: and what to multiply a penalty by in each. decades: of the grid, float64.
    """

    def change(penalty: Tensor) -> Tensor:
        return torch.stack([curve.change(penalty * scale) for curve, scale in curves]).sum(dim=0)

    errors = torch.stack([change(penalty) for penalty in decades[:, None]])
    best = errors.argmin(dim=0)
    penalty = decades[best]
    errors = pad(errors, (0, 0, 1, 1), value=torch.inf)  # beyond the ends
    left, lowest, right = errors.gather(0, torch.stack([best, best + 1, best + 2]))
    for factor in _FACTORS:
        before, after = change(penalty / factor), change(penalty * factor)
        before[left.isinf()] = after[right.isinf()] = torch.inf
        near = torch.stack([left, before, lowest, after, right])
        move = near[1:4].argmin(dim=0)
        left, lowest, right = near.gather(0, torch.stack([move, move + 1, move + 2]))
        penalty = penalty * factor ** (move - 1)
    # In steps; 0 for a curve that is flat (0 / 0) or lowest at an end (inf / inf)
    vertex = ((left - right) / (2 * (left - 2 * lowest + right))).nan_to_num()
    return penalty * _FACTORS[-1] ** vertex, right.isinf().double() - left.isinf().double()


class _Fold:
    """The rows that a fold leaves out, as ridge regression on the others predicts them."""

    def __init__(
        self,
        features: Tensor,
        others: NDArray[np.int64],
        left_out: NDArray[np.int64],
        kernel: bool,
        solver: "RidgeSolver | None" = None,
    ) -> None:
        """features, kernel: as of RidgeCV. solver: of the others, where they are decomposed
        already."""
        self._features, self._others, self.left_out = features, others, left_out
        self._kernel = kernel
        columns = others if kernel else slice(None)
        self._solver = solver or RidgeSolver(features[others][:, columns], kernel)
        self.scores, self._q = features[left_out][:, columns] @ self._solver.directions, None
        if len(self.scores) > self.scores.shape[1]:  # fewer rows, with the same products
            self._q, self.scores = torch.linalg.qr(self.scores)

    def only(self, used: NDArray[np.bool_]) -> "_Fold":
        """With some of the rows that are left out: those used, (N,)."""
        left_out = self.left_out[used[self.left_out]]
        return _Fold(self._features, self._others, left_out, self._kernel, self._solver)

    def project(self, responses: Tensor) -> Tensor:
        """From responses (N, v), what predicts those left out (r, v)."""
        return self._solver.project(responses[self._others])

    def reduce(self, left_out: Tensor) -> Tensor:
        """Responses that are left out, (n, v), by rows of `scores`."""
        return left_out if self._q is None else self._q.T @ left_out

    def predict(self, projected: Tensor, penalty: Tensor) -> Tensor:
        """By rows of `scores`; penalty: (v,) or (1,)."""
        return self.scores @ self._solver.shrink(projected, penalty)

    def restore(self, predictions: Tensor) -> Tensor:
        """What `predict` returns, by the rows that are left out."""
        return predictions if self._q is None else self._q @ predictions


class _ErrorCurve:
    """The squared error of all rows that folds leave out, as a function of the penalty."""

    def __init__(
        self, folds: Sequence[_Fold], responses: Tensor, projected: Sequence[Tensor]
    ) -> None:
        """responses: (N, v). projected: `project` of each fold, which others share."""
        left_out = [responses[fold.left_out] for fold in folds]
        twice = [fold.reduce(values) * 2 for fold, values in zip(folds, left_out, strict=True)]
        self._folds = list(zip(folds, twice, projected, strict=True))
        every = torch.cat(left_out)
        self.n_rows, self.total = len(every), every.square().sum(dim=0).double()

    def change(self, penalty: Tensor) -> Tensor:
        """Float64 (v,) at penalties (v,) or (1,), minus the error of predicting 0.

        Of weak signals the error itself would have no digits left.
        """
        change = torch.zeros_like(self.total)
        for fold, twice, projected in self._folds:
            predictions = fold.predict(projected, penalty.to(projected.dtype))
            change += (predictions - twice).mul_(predictions).sum(dim=0)
        return change

    def loss(self, penalty: Tensor) -> Tensor:
        """Float64 (v,), the mean squared error."""
        return (self.total + self.change(penalty)) / self.n_rows


class RidgeSolver:
    """Ridge regression from features (N, D), decomposed once, at a given penalty for each voxel.

    himalaya's own solver makes a (V, D, N) tensor where penalties differ.
    """

    def __init__(self, features: Tensor, kernel: bool = False) -> None:
        """kernel: whether features is Z Z' of others, (N, N), and weights the dual ones."""
        if kernel:
            values, self._u = torch.linalg.eigh(features)
            self._s = values.clamp(min=float(values[-1]) * torch.finfo(values.dtype).eps).sqrt()
            self.directions = self._u / self._s
            return
        wide = len(features) < features.shape[1]  # LAPACK takes several times longer for these
        tall = features.T if wide else features
        left, self._s, right = torch.linalg.svd(tall, full_matrices=False)
        self._u, self.directions = (right.T, left) if wide else (left, right.T)

    def project(self, responses: Tensor) -> Tensor:
        """(r, V), for responses (N, V)."""
        return self._u.T @ responses

    def shrink(self, projected: Tensor, penalty: Tensor) -> Tensor:
        """Weights of the directions (r, V), from what `project` returns and penalties (V,)."""
        s = self._s[:, None]
        shrinkage = s.square() + penalty
        return torch.div(s, shrinkage, out=shrinkage) * projected

    def noise(self, at: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of penalties (V,): the mean squared prediction of rows (n, D), (V,).

        Where responses are noise of variance 1.
        """
        squares = (at @ self.directions).square().mean(dim=0)

        def at_penalty(penalty: Tensor) -> Tensor:
            return squares @ (self._s[:, None] / (self._s.square()[:, None] + penalty)).square()

        return at_penalty

    def weights(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """(D, V), for responses (N, V) and penalties (V,), both of the features' dtype."""
        return self.directions @ self.shrink(self.project(responses), penalty)
