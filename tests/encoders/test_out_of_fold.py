"""Ridge regression at given penalties, against scikit-learn voxel by voxel."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from jne.encoders.ridge import RidgeCV


@pytest.mark.parametrize("n_features", [5, 60])  # fewer and more than stimuli
def test_ridge_at_given_penalties(n_features):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, n_features)), rng.standard_normal((40, 3))
    penalty = np.array([0.5, 10, 1000.0])
    folds = rng.integers(4, size=40)
    splits = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(4)]
    features, responses = torch.from_numpy(x), torch.from_numpy(y)
    regression = RidgeCV(features, splits)
    weights = regression.weights(responses, torch.from_numpy(penalty))
    left_out = regression.predict_left_out(responses, torch.from_numpy(penalty))
    for v, alpha in enumerate(penalty):
        ridge = Ridge(alpha=alpha, fit_intercept=False)
        np.testing.assert_allclose(weights[:, v], ridge.fit(x, y[:, v]).coef_, rtol=1e-6)
        for fold in range(4):
            rows = folds == fold
            expected = ridge.fit(x[~rows], y[~rows, v]).predict(x[rows])
            np.testing.assert_allclose(left_out[rows, v], expected, rtol=1e-6, atol=1e-9)
    first = RidgeCV(features, splits[:1]).predict_left_out(responses, torch.from_numpy(penalty))
    first = first.numpy()
    np.testing.assert_allclose(first[folds == 0], left_out[folds == 0], rtol=1e-9)
    assert np.isnan(first[folds != 0]).all()
