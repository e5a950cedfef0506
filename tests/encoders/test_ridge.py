"""Ridge regression against himalaya called directly, scikit-learn, and brute force."""

import numpy as np
import pytest
import torch
from himalaya.backend import get_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge

from jne.encoders.ridge import PENALTIES, RidgeRegression, _ErrorCurve
from jne.encoders.ridge import RidgeCV as OurRidgeCV

D, V = 20, 30


def test_penalties_are_half_powers_of_ten():
    np.testing.assert_allclose(PENALTIES, np.logspace(-3, 5, 17))


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
    return [
        (np.flatnonzero(folds != k), np.flatnonzero(folds == k))
        for k in np.unique(folds[folds >= 0])
    ]


def fitted(x, y, folds):
    return OurRidgeCV(torch.tensor(x), splits_of(folds)).fit(torch.tensor(y))


def tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


def relative(x):
    """The grid, in the units of X'X."""
    return np.array(PENALTIES) * np.square(x).sum() / len(x)


def errors(x, y, folds, penalty):
    """Mean squared error (V,) of what a fold leaves out, by scikit-learn. penalty: (V,)."""
    left_out = np.empty_like(y)
    for k in np.unique(folds[folds >= 0]):
        model = Ridge(alpha=penalty, fit_intercept=False).fit(x[folds != k], y[folds != k])
        left_out[folds == k] = model.predict(x[folds == k]).reshape(-1, y.shape[1])
    return np.square(y - left_out)[folds >= 0].mean(axis=0)


@pytest.mark.parametrize("n", [200, 40, 20])  # than 20 features: more in a fold; outside it; none
def test_ridge_is_himalayas(n):
    """At every penalty of the grid; from there to the minimum by brute force."""
    x, y = cohort(n)
    folds = np.random.default_rng(1).permutation(np.arange(n) % 5)
    ridge = OurRidgeCV(torch.tensor(x), splits_of(folds))
    curve = []
    for penalty in relative(x):
        model = RidgeCV(alphas=[penalty], cv=splits_of(folds)).fit(x, y)
        curve.append(-model.cv_scores_)
        projected = [fold.project(torch.tensor(y)) for fold in ridge.folds()]
        of_folds = _ErrorCurve(ridge.folds(), torch.tensor(y), projected)
        ours = of_folds.loss(torch.full((V,), penalty, dtype=torch.float64))
        np.testing.assert_allclose(ours, curve[-1], rtol=1e-8)
    best = RidgeCV(alphas=relative(x), cv=splits_of(folds)).fit(x, y)
    np.testing.assert_allclose(np.min(curve, axis=0), -best.cv_scores_, rtol=1e-8)

    fit = ridge.fit(torch.tensor(y))
    penalty = fit.penalty.astype(np.float64)
    np.testing.assert_allclose(fit.loss, errors(x, y, folds, penalty), rtol=1e-5)
    # With 16 rows outside a fold, one voxel has a second minimum, between two decades
    near = np.abs(np.log10(penalty / best.best_alphas_)) < 0.33
    assert near.sum() >= (V if n > D else V - 1)
    assert (fit.loss[near] <= -best.cv_scores_[near] * (1 + 1e-3)).all()
    at_end = np.isclose(penalty[:, None], relative(x)[[0, -1]])
    np.testing.assert_array_equal(fit.end, at_end[:, 1] * 1.0 - at_end[:, 0])
    model = Ridge(alpha=penalty, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(fit.weights.T, model.coef_, atol=1e-6)
    assert get_backend().name == "numpy"  # as before


@pytest.mark.parametrize("n", [200, 40])
def test_the_penalty_is_where_the_error_is_smallest(n):
    x, y = cohort(n)
    folds = np.arange(n) % 5
    fit = fitted(x, y, folds)
    for v in np.flatnonzero(fit.end == 0)[:8]:
        lowest = minimize_scalar(
            lambda exponent, v=v: errors(x, y[:, [v]], folds, 10**exponent)[0],
            bounds=np.log10(fit.penalty[v]) + np.array([-0.5, 0.5]),
            method="bounded",
        )
        assert np.log10(fit.penalty[v]) == pytest.approx(lowest.x, abs=0.07)
        assert fit.loss[v] == pytest.approx(lowest.fun, rel=2e-4)


def test_penalties_do_not_jump():
    """From responses with hardly any noise to those with hardly any signal, in small steps."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, D))
    signal, noise = x @ rng.standard_normal(D), 5 * rng.standard_normal(300)
    ratio = np.linspace(0.4, 0.95, 500)
    fit = fitted(x, np.outer(signal, 1 - ratio) + np.outer(noise, ratio), np.arange(300) % 5)
    exponents = np.log10(fit.penalty)
    assert (fit.end == 0).all()
    assert np.ptp(exponents) > 2
    assert np.abs(np.diff(exponents)).max() < 0.06
    assert len(np.unique(fit.penalty)) == 500


def test_the_grid_has_the_scale_of_the_features():
    x, y = cohort(100)
    folds = np.arange(100) % 5
    fit, larger = fitted(x, y, folds), fitted(1000 * x, y, folds)
    np.testing.assert_allclose(larger.penalty, 1e6 * fit.penalty, rtol=1e-4)
    np.testing.assert_allclose(1000 * larger.weights, fit.weights, rtol=1e-4)
    np.testing.assert_array_equal(larger.end, fit.end)


def test_the_best_penalty_is_about_the_noise_to_signal_ratio_whatever_d_is():
    """Weak signals in many features, which were at the largest penalty of an absolute grid."""
    rng = np.random.default_rng(3)
    for n_features in (50, 1000):
        x = rng.standard_normal((600, n_features)).astype(np.float32)
        signal = x @ rng.standard_normal((n_features, 200), dtype=np.float32) / n_features**0.5
        y = signal + 2 * rng.standard_normal((600, 200), dtype=np.float32)
        fit = fitted(x, y, np.arange(600) % 5)
        typical = np.median(fit.penalty) * len(x) / np.square(x).sum()
        assert 4 / 2 < typical < 4 * 2
        assert (fit.end == 0).mean() > 0.9


def test_voxels_at_an_end_of_the_grid():
    """Without noise least squares is best; a fit that is wrong in every fold is best left out."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((100, D))
    folds = np.arange(100) % 5
    weights = rng.standard_normal(D)
    wrong = (x @ weights) * np.where(folds == 0, -4, 1)  # opposite to what the others say
    y = np.stack([x @ weights, wrong, np.zeros(100)], axis=1)
    fit = fitted(x, y, np.where(folds == 0, 0, -1))
    np.testing.assert_array_equal(fit.end[:2], [-1, 1])
    np.testing.assert_allclose(fit.penalty[:2], relative(x)[[0, -1]], rtol=1e-5)
    assert not fit.weights[:, 2].any()  # no response, no weights, and no NaN
    assert np.isfinite(fit.penalty).all()


def test_float32_is_himalayas_to_a_hundred_thousandth():
    x, y = (array.astype(np.float32) for array in cohort(500))
    folds = np.arange(500) % 5
    fit = fitted(x, y, folds)
    for v, penalty in enumerate(fit.penalty):
        model = RidgeCV(alphas=[penalty], cv=splits_of(folds)).fit(x, y[:, [v]])
        np.testing.assert_allclose(fit.weights[:, [v]], model.coef_, atol=1e-5)
    exact = fitted(x.astype(np.float64), y.astype(np.float64), folds)
    np.testing.assert_allclose(fit.penalty, exact.penalty, rtol=1e-3)


def test_rows_that_only_train():
    """One fold validates; by brute force with scikit-learn."""
    x, y = cohort(120)
    folds = np.where(np.arange(120) < 90, -1, 0)
    fit = fitted(x, y, folds)
    curve = np.array([errors(x, y, folds, penalty) for penalty in relative(x)])
    nearest = relative(x)[np.argmin(curve, axis=0)]
    assert (np.abs(np.log10(fit.penalty / nearest)) < 0.33).all()
    penalty = fit.penalty.astype(np.float64)
    np.testing.assert_allclose(fit.loss, errors(x, y, folds, penalty), rtol=1e-5)
    assert (fit.loss <= np.min(curve, axis=0) * (1 + 1e-3)).all()
    model = Ridge(alpha=penalty, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(fit.weights.T, model.coef_, atol=1e-5)


def test_kernel_ridge_is_himalayas():
    x, y = cohort(60)
    y[:, 0] = np.random.default_rng(5).permutation(y[:, 0])
    kernel = (1 + x @ x.T) ** 2
    folds = np.arange(60) % 5
    fit = OurRidgeCV(torch.tensor(kernel), splits_of(folds), kernel=True).fit(torch.tensor(y))
    penalties = np.array(PENALTIES) * np.trace(kernel) / 60
    model = KernelRidgeCV(alphas=penalties, kernel="precomputed", cv=splits_of(folds))
    model.fit(kernel, y)
    near = np.abs(np.log10(fit.penalty / model.best_alphas_)) < 0.34
    at_ends = np.isin(model.best_alphas_, [penalties[0], penalties[-1]])
    assert (near | at_ends).all()
    assert near.mean() > 0.8
    for v, alpha in enumerate(np.float64(fit.penalty)):
        dual = np.linalg.solve(kernel + alpha * np.eye(60), y[:, v])
        np.testing.assert_allclose(fit.weights[:, v], dual, atol=1e-9)
