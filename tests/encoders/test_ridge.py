"""Ridge regression against himalaya called directly, scikit-learn, and brute force."""

import numpy as np
import pytest
import torch
from himalaya.backend import get_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV
from sklearn.linear_model import Ridge

from jne.encoders.ridge import PENALTIES, RidgeRegression, fit_kernel_ridge
from jne.encoders.ridge import RidgeCV as OurRidgeCV

D, V = 20, 30


def test_penalties_are_half_powers_of_ten():
    np.testing.assert_allclose(PENALTIES, np.logspace(0, 6.5, 14))


@pytest.mark.parametrize("bias", [None, True, False])
def test_the_encoder_is_a_linear_map_with_a_bias(bias):
    encoder = RidgeRegression(5, 3) if bias is None else RidgeRegression(5, 3, bias=bias)
    x = torch.randn(7, 5)
    expected = x @ encoder.weight.T
    if bias is False:
        assert encoder.bias is None
    else:
        assert encoder.bias.abs().min() > 0  # so that it can be seen
        expected = expected + encoder.bias
    torch.testing.assert_close(encoder(x), expected)


def cohort(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, D)) * (1 + np.arange(D)) ** -0.5
    y = x @ rng.standard_normal((D, V)) * rng.random(V) + rng.standard_normal((n, V))
    return x - x.mean(axis=0), y - y.mean(axis=0)


def splits_of(folds):
    return [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in np.unique(folds)]


def fitted(x, y, folds):
    return OurRidgeCV(torch.tensor(x), folds).fit(torch.tensor(y))


def tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


@pytest.mark.parametrize("n", [200, 40, 20])  # than 20 features: more in a fold; outside it; none
def test_ridge_is_himalayas(n):
    x, y = cohort(n)
    folds = np.random.default_rng(1).permutation(np.arange(n) % 5)
    found = fitted(x, y, folds)
    expected = RidgeCV(alphas=np.array(PENALTIES), cv=splits_of(folds)).fit(x, y)
    np.testing.assert_allclose(found.penalty, expected.best_alphas_, rtol=1e-5)
    np.testing.assert_allclose(found.weights, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(found.loss, -expected.cv_scores_, rtol=1e-5)
    assert get_backend().name == "numpy"  # as before


def test_float32_is_himalayas_to_a_hundred_thousandth():
    x, y = (array.astype(np.float32) for array in cohort(500))
    folds = np.arange(500) % 5
    found = fitted(x, y, folds)
    expected = RidgeCV(alphas=np.array(PENALTIES), cv=splits_of(folds)).fit(x, y)
    np.testing.assert_allclose(found.weights, expected.coef_, atol=1e-5)


def test_rows_that_only_train():
    """One fold validates; by brute force with scikit-learn."""
    x, y = cohort(120)
    folds = np.where(np.arange(120) < 90, -1, 0)
    found = fitted(x, y, folds)
    errors = []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty, fit_intercept=False).fit(x[:90], y[:90])
        errors.append(np.square(y[90:] - model.predict(x[90:])).mean(axis=0))
    np.testing.assert_allclose(found.penalty, np.array(PENALTIES)[np.argmin(errors, axis=0)], 1e-5)
    np.testing.assert_allclose(found.loss, np.min(errors, axis=0), rtol=1e-5)
    model = Ridge(alpha=found.penalty.astype(np.float64), fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(found.weights.T, model.coef_, atol=1e-5)


def test_kernel_ridge_is_himalayas():
    x, y = cohort(60)
    kernel = (1 + x @ x.T) ** 2
    folds = np.arange(60) % 5
    dual, penalty = fit_kernel_ridge(*tensors(kernel, y), folds)
    model = KernelRidgeCV(alphas=np.array(PENALTIES), kernel="precomputed", cv=splits_of(folds))
    model.fit(kernel, y)
    np.testing.assert_allclose(dual, model.dual_coef_, atol=1e-8)
    np.testing.assert_allclose(penalty, model.best_alphas_)
