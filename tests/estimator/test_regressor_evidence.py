"""`JNERegressor.evidence`: that of `jne.evidence` on its predictions."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import jne


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    X = 3 + 2 * rng.standard_normal((500, 8))
    Y = np.column_stack([X[:, 0] + np.abs(X[:, 1] - 3), X[:, 2], np.ones(500)])
    Y[:, :2] = 100 + 10 * (Y[:, :2] + rng.standard_normal((500, 2)))
    # Stacked, its linear part may be ridge regression itself, and no regressor beside it
    model = jne.JNERegressor(hidden_width=32, max_epochs=30, weight_decay=0.0, readout="ridge")
    return model.fit(X[:350], Y[:350]), X, Y


def test_evidence_is_that_of_the_predictions(fitted):
    model, X, Y = fitted
    result = model.evidence(X[350:], Y[350:])
    ridge = RidgeCV(np.geomspace(0.1, 1000, 20)).fit(X[:350], Y[:350, :2])
    expected = jne.evidence(
        lambda x: model.predict(x)[:, :2], X[:350], X[350:], Y[350:, :2],
        ridge=ridge.predict, y_train=Y[:350, :2],
    )  # fmt: skip
    # Penalties of the two ridge regressions differ
    np.testing.assert_allclose(result.z[:2], expected.z, atol=0.15)
    for name in ("slope", "slope_error", "r2_nonlinear", "r2_linear"):
        np.testing.assert_allclose(getattr(result, name)[:2], getattr(expected, name), atol=0.03)
    assert result.p[0] < 1e-4 < 0.05 < result.p[1]
    assert np.isnan([values[2] for values in result]).all()


def test_one_voxel_has_numbers(fitted):
    _, X, Y = fitted
    model = jne.JNERegressor(hidden_width=8, max_epochs=3, weight_decay=0.0).fit(
        X[:350], Y[:350, 0]
    )
    assert np.shape(model.evidence(X[350:], Y[350:, 0]).z) == ()


def test_a_linear_encoder_has_no_evidence(fitted):
    _, X, Y = fitted
    model = jne.JNERegressor(placement="none", hidden_width=8, max_epochs=3, weight_decay=0.0)
    result = model.fit(X[:350], Y[:350]).evidence(X[350:], Y[350:])
    assert np.isnan(result.z).all()
    np.testing.assert_array_equal(result.share[:2], 0)


def test_a_pickled_one_tests_the_same(fitted):
    model, X, Y = fitted
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.evidence(X[350:], Y[350:]), model.evidence(X[350:], Y[350:])
    )


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [(slice(350, 354), slice(3), "too few"), (slice(350, 400), slice(2), r"y: must be \(50, 3\)")],
)
def test_what_cannot_be_tested_is_refused(fitted, rows, columns, message):
    model, X, Y = fitted
    with pytest.raises(ValueError, match=message):
        model.evidence(X[rows], Y[rows, columns])
