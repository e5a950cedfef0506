"""Evidence of any model's nonlinearity: a function of the features that predicts responses."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from jne.analysis.evidence import STIMULI_PER_FEATURE, Evidence, evidence_of
from jne.analysis.evidence_spaces import SpaceEvidence, space_evidence_of
from jne.analysis.evidence_sums import MIN_STIMULI
from jne.analysis.linear_part import LinearPart
from jne.errors import InputError
from jne.utils.bars import progress_bar
from jne.utils.spaces import check_spaces

Predict = Callable[[NDArray], ArrayLike] | nn.Module


def evidence(
    predict: Predict,
    X_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    ridge: Callable[[NDArray], ArrayLike] | ArrayLike,
    y_train: ArrayLike | None = None,
    verbose: int = 1,
) -> Evidence:
    """Does the nonlinear part of a model's predictions exist in unseen responses? Any model's.

    Parameters
    ----------
    predict : callable or torch module
        From features (n, D) to predictions (n, V), such as the `predict` of a fitted estimator. A
        module is computed in evaluation mode, of the dtype of its weights, and left as it was.
    X_train : (N, D) array
        Features of the stimuli that the model was fitted to; better, of others, which need no
        responses. On these the model's linear part is taken; twice as many as features, or more.
    X_test : (n, D) array
        Features of stimuli that nothing was fitted to.
    y_test : (n, V) array
        Their responses.
    ridge : callable, or (n, V) array
        A linear model that was fitted to the same stimuli, from features to predictions; or its
        predictions of `y_test`.
    y_train : (N, V) array, optional
        The responses that both were fitted to. Least squares then stands beside `ridge`, and takes
        up the noise that the model and `ridge` have both fitted; better, if there are any.
    verbose : int
        0 for no progress bar; a terminal shows one, and a notebook with ipywidgets.

    Returns
    -------
    Evidence

    Raises
    ------
    InputError
        A `ValueError`: where shapes do not agree, values are not finite, or stimuli are too few.

    Notes
    -----
    Stimuli are assumed to be independent. See docs/evidence.md.
    """
    inputs = _Inputs(predict, X_train, X_test, y_test, ridge, y_train)
    prediction = inputs.predictions(*inputs.features)
    left, sets = inputs.nonlinear(prediction), np.zeros(inputs.y.shape[1], dtype=np.int64)
    with progress_bar("evidence", verbose) as bar:
        arrays = inputs.y, prediction[1], left, inputs.linear, sets, 1
        return evidence_of(*arrays, progress=bar)[0]


def space_evidence(
    predict: Predict,
    X_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    ridge: Callable[[NDArray], ArrayLike] | ArrayLike,
    y_train: ArrayLike | None = None,
    spaces: Mapping[str, slice],
) -> SpaceEvidence:
    """In which feature space is a model nonlinear, as unseen responses have it? Any model's.

    Parameters
    ----------
    predict, X_train, X_test, y_test, ridge, y_train
        As of `jne.evidence`.
    spaces : dict of slices
        Feature spaces by name: which columns of X, one space after the other, all of them. To see
        what is nonlinear in one alone, the others are held at their means over `X_train`.

    Returns
    -------
    SpaceEvidence

    Raises
    ------
    InputError
        A `ValueError`: as `jne.evidence`, and where spaces do not cover the features in order.

    Notes
    -----
    See docs/evidence.md.
    """
    inputs = _Inputs(predict, X_train, X_test, y_test, ridge, y_train)
    train, test = inputs.features
    columns_of = check_spaces(spaces, train.shape[1])
    if len(columns_of) < 2:
        raise InputError("spaces", "there must be two or more")
    prediction = inputs.predictions(train, test)
    left, parts = inputs.nonlinear(prediction), []
    for columns in columns_of.values():
        alone = [np.tile(train.mean(axis=0), (len(X), 1)) for X in (train, test)]
        for held, X in zip(alone, (train, test), strict=True):
            held[:, columns] = X[:, columns]
        parts.append(inputs.nonlinear(inputs.predictions(*alone)))
    parts.append(left - sum(parts))
    arrays = inputs.y, prediction[1], parts, inputs.linear
    return space_evidence_of(*arrays, columns_of, inputs.y.shape[1])


class _Inputs:
    """The checked arguments. `features`, of training and test stimuli; `y` (n, V), standardised as
    predictions are; `linear`, predictions of ridge and least squares.
    """

    def __init__(
        self,
        predict: Predict,
        X_train: ArrayLike,
        X_test: ArrayLike,
        y_test: ArrayLike,
        ridge: Callable[[NDArray], ArrayLike] | ArrayLike,
        y_train: ArrayLike | None,
    ) -> None:
        train, test = (_finite(X, name) for X, name in ((X_train, "X_train"), (X_test, "X_test")))
        y = _finite(y_test, "y_test")
        if train.shape[1] != test.shape[1]:
            raise InputError("X_test", f"must be (n, {train.shape[1]}), found {test.shape}")
        if len(y) != len(test):
            raise InputError("y_test", f"must be ({len(test)}, V), found {y.shape}")
        if len(test) < MIN_STIMULI:
            raise InputError("X_test", f"{len(test)} stimuli are too few to regress on")
        if len(train) < STIMULI_PER_FEATURE * train.shape[1]:
            raise InputError(
                "X_train",
                f"{len(train)} stimuli are too few for {train.shape[1]} features: give "
                f"{STIMULI_PER_FEATURE * train.shape[1]}, of which no responses are needed, or the "
                f"model's predictions of principal components",
            )
        self._call = _caller(predict) if isinstance(predict, nn.Module) else predict
        self.features = train, test
        # What is summed is summed in float32
        self._centre = y.mean(axis=0)
        self._scale = np.where(np.ptp(y, axis=0) > 0, y.std(axis=0), 1)
        self.y = self._standardised(y)
        self._part = LinearPart(torch.from_numpy(train), torch.from_numpy(test))
        of_ridge = self._checked("ridge", ridge(test) if callable(ridge) else ridge, len(test))
        self.linear = [self._standardised(of_ridge)]
        if y_train is not None:
            seen = _finite(y_train, "y_train")
            shape = len(train), y.shape[1]
            if seen.shape != shape:
                raise InputError("y_train", f"must be {shape}, found {seen.shape}")
            nothing = np.zeros((len(test), y.shape[1]))
            self.linear.append(-self.nonlinear((self._standardised(seen), nothing)))

    def predictions(self, train: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
        """Of features (N, D) and (n, D), standardised as responses are."""
        values = (self._checked("predict", self._call(X), len(X)) for X in (train, test))
        first, second = map(self._standardised, values)
        return first, second

    def nonlinear(self, values: tuple[NDArray, NDArray]) -> NDArray[np.float64]:
        """(n, V): what no linear function of the features explains of values (N, V) and (n, V)."""
        return self._part.remove(*map(torch.from_numpy, values)).numpy()

    def _standardised(self, values: NDArray) -> NDArray[np.float64]:
        return np.asarray((values - self._centre) / self._scale)

    def _checked(self, name: str, values: ArrayLike, n: int) -> NDArray[np.float64]:
        array, n_voxels = _finite(values, name), len(self._centre)
        if array.shape != (n, n_voxels):
            raise InputError(name, f"must give ({n}, {n_voxels}), found {array.shape}")
        return array


def _caller(module: nn.Module) -> Callable[[NDArray], NDArray]:
    weight = next(module.parameters(), torch.empty(0))

    def call(X: NDArray) -> NDArray:
        training = module.training
        with torch.no_grad():
            result = module.eval()(torch.from_numpy(X).to(weight))
        module.train(training)
        return np.asarray(result.cpu(), dtype=np.float64)

    return call


def _finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """(n, K); of one voxel, its axis may be missing."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not len(array):
        raise InputError(name, f"must have two axes, found {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(name, "has NaN or infinite values")
    return array
