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
    """

    def __init__(self, n_features: int, n_voxels: int, *, bias: bool = True) -> None:
        super().__init__(n_features, n_voxels, bias=bias)


@dataclass(frozen=True)
class RidgeFit:
    """What `fit_ridge` finds."""

    weights: Tensor
    """(D, V), fitted to all rows."""
    penalty: NDArray[np.float32]
    """(V,), of `penalties`."""
    loss: NDArray[np.float32]
    """(V,), the mean squared error of the rows that a fold left out, at that penalty."""


def fit_ridge(
    features: Tensor,
    responses: Tensor,
    folds: NDArray[np.int64],
    penalties: Sequence[float] = PENALTIES,
) -> RidgeFit:
    """Minimise |Y - X B|^2 + penalty_v |B_v|^2 for every voxel v.

    features: X, (N, D). responses: Y, (N, V), of the same dtype. There is no intercept: the caller
        centres both, if need be.
    folds: (N,), the fold that validates each row; -1 for rows that only train. The penalty of a
        voxel has the smallest squared error over the rows of all folds, each predicted from the
        rows outside its fold. The weights are then fitted to all rows.

    himalaya finds the penalties, from fewer rows: those of a fold are rotated to at most D
    (X = QR, and R, Q'Y in place of X, Y), which changes neither weights nor differences of errors.
    """
    from himalaya.ridge import solve_group_ridge_random_search

    x, y, few_folds, lost = _rotated(features, responses, folds)
    splits = [
        (np.flatnonzero(few_folds != fold), np.flatnonzero(few_folds == fold))
        for fold in np.unique(few_folds[few_folds >= 0])
    ]
    with _torch_backend(x.device):
        deltas, _, scores = solve_group_ridge_random_search(
            [x],
            y,
            n_iter=x.new_ones(1, 1),
            alphas=x.new_tensor(penalties),
            score_func=_negative_squared_error,
            cv=splits,
            n_targets_batch=_TARGETS_AT_ONCE,
            n_alphas_batch=_PENALTIES_AT_ONCE,
            progress_bar=False,
            warn=False,
        )
    nearest = (torch.tensor(penalties).log()[:, None] + deltas.cpu()).abs().argmin(dim=0)
    penalty = x.new_tensor(penalties)[nearest.to(x.device)]  # deltas: -log(penalty)
    # himalaya averages over folds what is summed over the rows of each
    error = lost.double().cpu() - scores[0].double() * len(splits)
    n_validated = int((folds >= 0).sum())
    return RidgeFit(
        _solve(x, y, penalty),
        penalty.float().cpu().numpy(),
        (error / n_validated).float().numpy(),
    )


def fit_kernel_ridge(
    kernel: Tensor,
    responses: Tensor,
    folds: NDArray[np.int64],
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Tensor, NDArray[np.float32]]:
    """Kernel ridge regression with a penalty per voxel, chosen as in `fit_ridge`.

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


def _solve(x: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """Weights (D, V) of ridge regression with the penalty (V,) of each voxel."""
    return RidgeSolver(x).weights(y, penalty)


def _rotated(
    x: Tensor, y: Tensor, folds: NDArray[np.int64]
) -> tuple[Tensor, Tensor, NDArray[np.int64], Tensor]:
    """Features, responses and folds of fewer rows, and the squared error (V,) that this leaves out.

    The part of the responses outside the span of a fold's features is an error that no weights
    change.
    """
    features, responses, new_folds = [], [], []
    lost = torch.zeros(y.shape[1], dtype=y.dtype, device=y.device)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        some_x, some_y = x[rows], y[rows]
        if len(rows) > x.shape[1]:
            q, some_x = torch.linalg.qr(some_x)
            total, some_y = some_y.square().sum(dim=0), q.T @ some_y
            if fold >= 0:
                lost += total - some_y.square().sum(dim=0)
        features.append(some_x)
        responses.append(some_y)
        new_folds.append(np.full(len(some_x), fold))
    return torch.cat(features), torch.cat(responses), np.concatenate(new_folds), lost


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
