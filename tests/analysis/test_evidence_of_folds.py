"""Evidence of stimuli that share noise, and of encoders that were fitted to each other's stimuli.

Against brute force, and pure noise.
"""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from jne.analysis.evidence import evidence_of
from jne.analysis.linear_part import LinearPart

SETS = np.zeros(4, dtype=np.int64)


def random_arrays(n=90):
    rng = np.random.default_rng(0)
    y, f, g, ridge, least = rng.standard_normal((5, n, 4)).astype(np.float32)
    return y + g, f + g, g, [ridge, least]


def test_errors_of_groups_by_brute_force():
    y, f, g, linear = random_arrays()
    groups = np.random.default_rng(1).integers(12, size=90)
    voxels, sums = evidence_of(y, f, g, linear, SETS, 1, groups=groups)
    assert sums.product.shape == (12, 2)
    of_sets = np.zeros(12)
    for v in range(4):
        small = sm.add_constant(np.column_stack([linear[0][:, v], linear[1][:, v], (f - g)[:, v]]))
        inside = sm.OLS(g[:, v].astype(float), small).fit().resid
        whole = sm.OLS(y[:, v].astype(float), np.column_stack([small, g[:, v]])).fit()
        pull = inside * whole.resid / (1 - whole.get_influence().hat_matrix_diag)
        of_groups = np.bincount(groups, pull, 12)
        error = np.sqrt(np.square(of_groups).sum()) / np.square(inside).sum()
        np.testing.assert_allclose(voxels.slope_error[v], error, rtol=1e-3)
        of_sets += of_groups / y[:, v].std()
    np.testing.assert_allclose(np.abs(sums.spread[:, 0]), np.abs(of_sets), rtol=1e-3, atol=1e-3)


def test_groups_of_one_change_nothing():
    arrays = random_arrays()
    alone, sums = evidence_of(*arrays, SETS, 1)
    same, of_groups = evidence_of(*arrays, SETS, 1, groups=np.arange(90))
    for found, expected in zip(same, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    for name, expected in vars(sums).items():
        np.testing.assert_allclose(getattr(of_groups, name), expected, rtol=1e-4, atol=1e-6)


def test_crossed_doubles_variances():
    arrays = random_arrays()
    once, sums = evidence_of(*arrays, SETS, 1)
    twice, of_twice = evidence_of(*arrays, SETS, 1, crossed=np.full(4, np.inf))
    np.testing.assert_allclose(twice.slope, once.slope)
    np.testing.assert_allclose(twice.slope_error, np.sqrt(2) * once.slope_error, rtol=1e-6)
    np.testing.assert_allclose(of_twice.z, sums.z / np.sqrt(2), rtol=1e-6)
    assert (twice.r2_nonlinear < once.r2_nonlinear).all()


@pytest.mark.parametrize("n_folds", [2, 5, 20])
def test_folds_of_pure_noise(n_folds):
    """Ridge regression on random hidden units; the noise of two stimuli meets twice."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 6)), rng.standard_normal((200, 3000))
    hidden = np.maximum(x @ rng.standard_normal((6, 40)) + rng.standard_normal(40), 0)
    arrays = [np.empty(y.shape) for _ in range(4)]
    for train, test in KFold(n_folds, shuffle=True, random_state=0).split(x):
        part = LinearPart(torch.tensor(x[train]), torch.tensor(x[test]))
        model = Ridge(alpha=30).fit(hidden[train], y[train])
        f = [torch.tensor(model.predict(hidden[rows])) for rows in (train, test)]
        linear = [Ridge(alpha=a).fit(x[train], y[train]).predict(x[test]) for a in (30, 1e-3)]
        for array, values in zip(arrays, [f[1], part.remove(*f), *linear], strict=True):
            array[test] = values
    f, g, *linear = arrays
    sets = np.zeros(3000, dtype=np.int64)
    plain, _ = evidence_of(y, f, g, linear, sets, 1)
    crossed, sums = evidence_of(y, f, g, linear, sets, 1, crossed=np.full(3000, np.inf))
    assert 1.4 < plain.z.var() < 2.2
    assert (plain.p < 0.05).mean() > 0.07
    assert 0.7 < crossed.z.var() < 1.1
    assert 0.02 < (crossed.p < 0.05).mean() < 0.065
    assert -0.002 < crossed.r2_nonlinear.mean() < 0.001
    assert sums.p[0] > 0.01
