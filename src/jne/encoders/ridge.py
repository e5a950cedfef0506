"""Ridge regression with a penalty for each voxel, chosen by cross-validation.

As himalaya does (Dupre la Tour et al. 2022, https://doi.org/10.1016/j.neuroimage.2022.119728), but
the penalties are continuous. N stimuli, D features, V voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
        X is X'X of other features, (N, N), for which weights are then the dual ones, (N, V)."""
        size = features.diagonal() if kernel else features.square()
        self._unit = float(size.sum()) / len(features)
        self._features, self._kernel = features, kernel
        self._folds = [
            _Fold(
                features[left_out][:, others] if kernel else features[left_out],
                RidgeSolver(features[others][:, others] if kernel else features[others], kernel),
                others,
                left_out,
            )
            for others, left_out in splits
        ]

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
        penalty, end, loss = self.choose(responses)
        weights = self.weights(responses, torch.from_numpy(penalty))
        return RidgeFit(weights, penalty, end, loss)

    def choose(
        self, responses: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Penalty, end of the grid and loss of each voxel, as `fit`."""
        chosen = [
            self._choose(_ErrorCurve(self._folds, responses[:, voxels]))
            for voxels in voxel_blocks(responses.shape[1], _VOXELS_AT_ONCE)
        ]
        penalty, end, loss = (
            torch.cat(values).float().cpu().numpy() for values in zip(*chosen, strict=True)
        )
        return penalty, end, loss

    def weights(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """Weights (D, V), fitted to all rows, at penalties (V,)."""
        return self._solver.weights(responses, penalty.to(responses))

    def left_out(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """What the rows that train in a split predict of those it leaves out, at penalties (V,).

        (N, V), NaN in rows that no split leaves out.
        """
        predictions = torch.full_like(responses, torch.nan)
        for fold in self._folds:
            _, projected = fold.split(responses)
            predicted = fold.predict(projected, penalty.to(responses))
            predictions[fold.left_out] = fold.rows(predicted)
        return predictions

    def noise(self, at: Tensor, penalty: Tensor) -> Tensor:
        """As `RidgeSolver.noise`, of weights that are fitted to all rows."""
        return self._solver.noise(at, penalty)

    def least(self, responses: Tensor) -> Tensor:
        """Weights (D, V) at the smallest penalty of the grid: least squares, or close to it."""
        penalty = responses.new_full((responses.shape[1],), self._unit * PENALTIES[0])
        return self._solver.weights(responses, penalty)

    def _choose(self, curve: "_ErrorCurve") -> tuple[Tensor, Tensor, Tensor]:
        """Penalty, end of the grid and loss, float64 (v,) each."""
        decades = self._unit * curve.total.new_tensor(PENALTIES[::2])
        errors = torch.stack([curve.change(penalty) for penalty in decades[:, None]])
        best = errors.argmin(dim=0)
        penalty = decades[best]
        errors = pad(errors, (0, 0, 1, 1), value=torch.inf)  # beyond the ends
        left, lowest, right = errors.gather(0, torch.stack([best, best + 1, best + 2]))
        for factor in _FACTORS:
            before, after = curve.change(penalty / factor), curve.change(penalty * factor)
            before[left.isinf()] = after[right.isinf()] = torch.inf
            near = torch.stack([left, before, lowest, after, right])
            move = near[1:4].argmin(dim=0)
            left, lowest, right = near.gather(0, torch.stack([move, move + 1, move + 2]))
            penalty = penalty * factor ** (move - 1)
        # In steps; 0 for a curve that is flat (0 / 0) or lowest at an end (inf / inf)
        vertex = ((left - right) / (2 * (left - 2 * lowest + right))).nan_to_num()
        penalty = penalty * _FACTORS[-1] ** vertex
        return penalty, right.isinf().double() - left.isinf().double(), curve.loss(penalty)


class _Fold:
    """The rows that a fold leaves out, as ridge regression on the others predicts them."""

    def __init__(
        self, features: Tensor, solver: "RidgeSolver", others: NDArray[np.int64], left_out: NDArray
    ) -> None:
        """features: of the rows that are left out, (n, D). solver: of the others."""
        self.left_out, self._others, self._solver = left_out, others, solver
        self.scores, self._q = features @ solver.directions, None
        if len(self.scores) > self.scores.shape[1]:  # fewer rows, with the same products
            self._q, self.scores = torch.linalg.qr(self.scores)

    def split(self, responses: Tensor) -> tuple[Tensor, Tensor]:
        """From responses (N, v): those left out, by rows of `scores`; what predicts them (r, v)."""
        left_out = responses[self.left_out]
        projected = self._solver.project(responses[self._others])
        return left_out if self._q is None else self._q.T @ left_out, projected

    def predict(self, projected: Tensor, penalty: Tensor) -> Tensor:
        """By rows of `scores`; penalty: (v,) or (1,)."""
        return self.scores @ self._solver.shrink(projected, penalty)

    def rows(self, predictions: Tensor) -> Tensor:
        """What `predict` returns, by the rows that are left out."""
        return predictions if self._q is None else self._q @ predictions


class _ErrorCurve:
    """The squared error of all rows that folds leave out, as a function of the penalty."""

    def __init__(self, folds: list[_Fold], responses: Tensor) -> None:
        """responses: (N, v)."""
        self._folds = [(fold, *fold.split(responses)) for fold in folds]
        left_out = responses[np.concatenate([fold.left_out for fold in folds])]
        self.n_rows, self.total = len(left_out), left_out.square().sum(dim=0).double()

    def change(self, penalty: Tensor) -> Tensor:
        """Float64 (v,) at penalties (v,) or (1,), minus the error of predicting 0.

        Of weak signals the error itself would have no digits left.
        """
        change = torch.zeros_like(self.total)
        for fold, left_out, projected in self._folds:
            predictions = fold.predict(projected, penalty.to(projected.dtype))
            change += (predictions - 2 * left_out).mul_(predictions).sum(dim=0)
        return change

    def loss(self, penalty: Tensor) -> Tensor:
        """Float64 (v,), the mean squared error."""
        return (self.total + self.change(penalty)) / self.n_rows


class RidgeSolver:
    """Ridge regression from features (N, D), decomposed once, at a given penalty for each voxel.

    himalaya's own solver makes a (V, D, N) tensor where penalties differ.
    """

    def __init__(self, features: Tensor, kernel: bool = False) -> None:
        """kernel: whether features is X'X of others, (N, N), and weights the dual ones."""
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
        return s / (s.square() + penalty) * projected

    def noise(self, at: Tensor, penalty: Tensor) -> Tensor:
        """Mean squared prediction of rows (n, D) where responses are noise of variance 1, (V,)."""
        squares = (at @ self.directions).square().mean(dim=0)
        shrunk = self._s[:, None] / (self._s.square()[:, None] + penalty)
        return squares @ shrunk.square()

    def weights(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """(D, V), for responses (N, V) and penalties (V,), both of the features' dtype."""
        return self.directions @ self.shrink(self.project(responses), penalty)
