"""Scores against scikit-learn, SciPy, statsmodels and a plain loop over resamples."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import r2_score as sklearn_r2
from statsmodels.stats.multitest import fdrcorrection

from jne.analysis.prediction import bootstrap_p, bootstrap_r2, fdr, pearson_r, r2_score


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((60, 9))
    return y, y * np.linspace(0, 1, 9) + 0.3 * rng.standard_normal((60, 9)) + 0.1


def test_r2_is_scikit_learns(predicted):
    y, yhat = predicted
    np.testing.assert_allclose(
        r2_score(y, yhat), sklearn_r2(y, yhat, multioutput="raw_values"), rtol=1e-12
    )


def test_constant_and_missing_responses_have_no_score(predicted):
    y, yhat = (array.copy() for array in predicted)
    y[:, 0] = 0.1
    y[3, 1] = np.nan
    r2 = r2_score(y, yhat)
    assert np.isnan(r2[:2]).all()
    assert np.isfinite(r2[2:]).all()
    p = bootstrap_p(bootstrap_r2(y, yhat, 20))
    assert np.isnan(p[:2]).all()
    assert np.isfinite(p[2:]).all()


def test_bootstrap_is_the_loop_over_resamples(predicted):
    y, yhat = predicted
    draws = np.random.default_rng(7).integers(60, size=(25, 60))
    loop = [sklearn_r2(y[rows], yhat[rows], multioutput="raw_values") for rows in draws]
    np.testing.assert_allclose(bootstrap_r2(y, yhat, 25, seed=7), loop, rtol=1e-9)


def test_p_in_both_forms():
    r2 = np.array([[0.1, -0.1, np.nan], [0.2, -0.2, np.nan], [0.3, 0.3, np.nan]])
    np.testing.assert_allclose(bootstrap_p(r2), [1 / 4, 3 / 4, np.nan])
    np.testing.assert_allclose(bootstrap_p(r2, "raw"), [0, 2 / 3, np.nan])


def test_fdr_is_statsmodels_over_the_tested_voxels():
    p = np.array([0.001, np.nan, 0.2, 0.01, np.nan, 0.04])
    tested = np.isfinite(p)
    adjusted = fdr(p)
    np.testing.assert_allclose(adjusted[tested], fdrcorrection(p[tested])[1])
    assert np.isnan(adjusted[~tested]).all()


def test_pearson_r_is_scipys(predicted):
    y, yhat = (array.copy() for array in predicted)
    yhat[:, 0] = 1.0
    r = pearson_r(y, yhat)
    expected = [pearsonr(*pair).statistic for pair in zip(y.T[1:], yhat.T[1:], strict=True)]
    np.testing.assert_allclose(r[1:], expected, rtol=1e-12)
    assert np.isnan(r[0]), "a constant prediction correlates with nothing"
