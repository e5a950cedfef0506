"""Ridge regression with a penalty for each voxel, chosen by cross-validation (himalaya).

Dupre la Tour et al. (2022), https://doi.org/10.1016/j.neuroimage.2022.119728.
N stimuli, D features, V voxels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PENALTIES = tuple(float(10.0**exponent) for exponent in np.arange(0, 7, 0.5))
_TARGETS_AT_ONCE = 2**12
_PENALTIES_AT_ONCE = 2  # bounds himalaya's matrices at 2 N D values


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
    """(V,), of `penalties`."""
    loss: NDArray[np.float32]
    """(V,), the mean squared error of the rows that a fold left out, at that penalty."""


class RidgeCV:
    """Ridge regression with a penalty for each voxel v: min |Y - X B|^2 + penalty_v |B_v|^2.

    There is no intercept: the caller centres features and responses, if need be. The features are
    decomposed once, for all blocks of voxels. himalaya finds the penalties, from fewer rows: those
    of a fold, and those outside it, are rotated to at most D (X = QR, and R, Q'Y in place of X, Y),
    which changes neither weights nor differences of errors. himalaya multiplies with all of them
    for every penalty.
    """

    def __init__(
        self,
        features: Tensor,
        folds: NDArray[np.int64],
        penalties: Sequence[float] = PENALTIES,
    ) -> None:
        """features: X, (N, D). folds: (N,), the fold that validates each row; -1 for rows that only
        train. penalties: to choose from.
        """
        self.folds, self.penalties = folds, penalties
        self._rotations: list[tuple[NDArray[np.int64], Tensor | None, bool]] = []
        parts, numbers = [], []
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            part, q = features[rows], None
            if len(rows) > part.shape[1]:
                q, part = torch.linalg.qr(part)
            self._rotations.append((rows, q, fold >= 0))
            parts.append(part)
            numbers.append(np.full(len(part), fold))
        few, few_folds = torch.cat(parts), np.concatenate(numbers)
        self._solver = RidgeSolver(few)
        self._outside: list[tuple[NDArray[np.int64], Tensor]] = []
        self._splits = []
        rows_of_splits = [few]
        for fold in np.unique(few_folds[few_folds >= 0]):
            train, validated = np.flatnonzero(few_folds != fold), np.flatnonzero(few_folds == fold)
            if len(train) > few.shape[1]:
                q, part = torch.linalg.qr(few[train])
                self._outside.append((train, q))
                train = np.arange(len(part)) + sum(map(len, rows_of_splits))
                rows_of_splits.append(part)
            self._splits.append((train, validated))
        self._rows_of_splits = torch.cat(rows_of_splits)

    def fit(self, responses: Tensor) -> RidgeFit:
        """The weights of responses Y, (N, V), of the features' dtype.

        The penalty of a voxel has the smallest squared error over the rows of all folds, each
        predicted from the rows outside its fold. The weights are then fitted to all rows.
        """
        from himalaya.ridge import solve_group_ridge_random_search

        y, lost = self._rotated(responses)
        with _torch_backend(y.device):
            deltas, _, scores = solve_group_ridge_random_search(
                [self._rows_of_splits.clone()],  # himalaya scales it in place
                torch.cat([y, *(q.T @ y[train] for train, q in self._outside)]),
                n_iter=y.new_ones(1, 1),
                alphas=y.new_tensor(self.penalties),
                score_func=_negative_squared_error,
                cv=self._splits,
                n_targets_batch=_TARGETS_AT_ONCE,
                n_alphas_batch=_PENALTIES_AT_ONCE,
                progress_bar=False,
                warn=False,
            )
        logarithms = torch.tensor(self.penalties).log()
        nearest = (logarithms[:, None] + deltas.cpu()).abs().argmin(dim=0)  # deltas: -log(penalty)
        penalty = y.new_tensor(self.penalties)[nearest.to(y.device)]
        # himalaya averages over folds what is summed over the rows of each
        error = lost.double().cpu() - scores[0].double() * len(self._splits)
        n_validated = int((self.folds >= 0).sum())
        return RidgeFit(
            self._solver.weights(y, penalty),
            penalty.float().cpu().numpy(),
            (error / n_validated).float().numpy(),
        )

    def _rotated(self, responses: Tensor) -> tuple[Tensor, Tensor]:
        """Responses of fewer rows, and the squared error (V,) that this leaves out.

        What lies outside the span of a fold's features is an error that no weights change.
        """
        parts = []
        lost = responses.new_zeros(responses.shape[1])
        for rows, q, validates in self._rotations:
            part = responses[rows]
            if q is not None:
                total, part = part.square().sum(dim=0), q.T @ part
                if validates:
                    lost += total - part.square().sum(dim=0)
            parts.append(part)
        return torch.cat(parts), lost


def fit_kernel_ridge(
    kernel: Tensor,
    responses: Tensor,
    folds: NDArray[np.int64],
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Tensor, NDArray[np.float32]]:
    """Kernel ridge regression with a penalty per voxel, chosen as in `RidgeCV`.

    kernel: (N, N). responses: (N, V), centred by the caller. folds: (N,), 0 or more. Returns the
    dual weights (N, V), which turn a kernel (n, N) into predictions (n, V), and the penalties (V,).
    """
    from himalaya.kernel_ridge import solve_kernel_ridge_cv_eigenvalues

    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in np.unique(folds)]
    with _torch_backend(kernel.device):
        penalty, dual, _ = solve_kernel_ridge_cv_eigenvalues(
            kernel,
            responses,
            alphas=torch.tensor(penalties, dtype=kernel.dtype, device=kernel.device),
            score_func=_negative_squared_error,
            cv=splits,
            n_targets_batch=_TARGETS_AT_ONCE,
            n_alphas_batch=_PENALTIES_AT_ONCE,
        )
    return dual.to(kernel.device), penalty.cpu().numpy()


class RidgeSolver:
    """Ridge regression from features (N, D), decomposed once, at a given penalty for each voxel.

    himalaya's own solver makes a (V, D, N) tensor where penalties differ.
    """

    def __init__(self, features: Tensor) -> None:
        self._q = None
        if len(features) > features.shape[1]:
            self._q, features = torch.linalg.qr(features)
        self._u, self._s, self._vt = torch.linalg.svd(features, full_matrices=False)

    def weights(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """(D, V), for responses (N, V) and penalties (V,), both of the features' dtype."""
        if self._q is not None:
            responses = self._q.T @ responses
        s = self._s[:, None]
        return self._vt.T @ (s / (s.square() + penalty) * (self._u.T @ responses))


class OutOfFoldRidge:
    """Predicts each row from the rows outside its fold, at a given penalty for each voxel.

    The features of each fold are decomposed once, for all blocks of voxels.
    """

    def __init__(self, features: Tensor, folds: NDArray[np.int64]) -> None:
        """features: (N, D), centred by the caller. folds: (N,), 0 or more."""
        self._features = features
        self._folds = []
        for fold in np.unique(folds):
            left_out, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            self._folds.append((left_out, others, RidgeSolver(features[others])))

    def predict(self, responses: Tensor, penalty: Tensor) -> Tensor:
        """(N, V), for responses (N, V), centred by the caller, and penalties (V,)."""
        predictions = torch.empty_like(responses)
        for left_out, others, solver in self._folds:
            weights = solver.weights(responses[others], penalty)
            predictions[left_out] = self._features[left_out] @ weights
        return predictions


def _negative_squared_error(responses: Tensor, predictions: Tensor) -> Tensor:
    """(V,) or (n_penalties, V): himalaya takes the penalty where this is largest."""
    return -(responses - predictions).square().sum(dim=-2)


@contextmanager
def _torch_backend(device: torch.device) -> Iterator[None]:
    """himalaya's backend is global: leave it as it was."""
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    set_backend("torch_cuda" if device.type == "cuda" else "torch")
    try:
        yield
    finally:
        set_backend(before)
