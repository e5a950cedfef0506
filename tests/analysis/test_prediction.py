"""Scores against scikit-learn, SciPy, statsmodels and a plain loop over resamples."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import pearsonr, ttest_1samp
from sklearn.metrics import r2_score as sklearn_r2
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import fdrcorrection, multipletests

from jne.analysis.prediction import (
    bootstrap_p,
    bootstrap_r2,
    fdr,
    holm,
    pearson_r,
    r2_p,
    r2_score,
    t_test_p,
)


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


def test_resamples_without_an_outlier_that_is_most_of_the_variance_have_an_r2(predicted):
    y, yhat = predicted
    y[5] += 500
    draws = np.random.default_rng(7).integers(60, size=(25, 60))
    assert 3 < sum(5 not in rows for rows in draws) < 22
    loop = [sklearn_r2(y[rows], yhat[rows], multioutput="raw_values") for rows in draws]
    np.testing.assert_allclose(bootstrap_r2(y, yhat, 25, seed=7), loop, rtol=1e-6)


def test_there_are_200_resamples_as_in_the_paper():
    """So no p is below 1 / 201 (docs/metrics.md)."""
    y = np.random.default_rng(0).standard_normal((60, 2))
    assert bootstrap_r2(y, 0.9 * y).shape == (200, 2)
    np.testing.assert_allclose(r2_p(y, 0.9 * y, "plus_one"), 1 / 201)


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


def test_holm_is_statsmodels_over_the_tested_groups():
    p = np.array([0.01, np.nan, 0.2, 0.01, np.nan, 0.4, 0.9])
    adjusted, tested = holm(p), np.isfinite(p)
    np.testing.assert_array_equal(adjusted[tested], multipletests(p[tested], method="holm")[1])
    assert np.isnan(adjusted[~tested]).all()
    assert np.isnan(holm(np.full(3, np.nan))).all()
    assert holm(np.empty(0)).shape == (0,)


def test_pearson_r_is_scipys(predicted):
    y, yhat = (array.copy() for array in predicted)
    yhat[:, 0] = 1.0
    r = pearson_r(y, yhat)
    expected = [pearsonr(*pair).statistic for pair in zip(y.T[1:], yhat.T[1:], strict=True)]
    np.testing.assert_allclose(r[1:], expected, rtol=1e-12)
    assert np.isnan(r[0]), "a constant prediction correlates with nothing"


@pytest.mark.parametrize("unit", [1e-5, 1e5])
def test_the_unit_of_the_responses_does_not_matter(predicted, unit):
    y, yhat = predicted
    expected = [pearsonr(*pair).statistic for pair in zip(y.T, yhat.T, strict=True)]
    np.testing.assert_allclose(pearson_r(y * unit, yhat * unit), expected, rtol=1e-9)
    r2 = sklearn_r2(y, yhat, multioutput="raw_values")
    np.testing.assert_allclose(r2_score(y * unit, yhat * unit), r2, rtol=1e-9)
    resampled = bootstrap_r2(y * unit, yhat * unit, 20, seed=3)
    np.testing.assert_allclose(resampled, bootstrap_r2(y, yhat, 20, seed=3), rtol=1e-9)
    reduction = (y - y.mean(axis=0)) ** 2 - (y - yhat) ** 2
    p = ttest_1samp(reduction, 0, alternative="greater").pvalue
    np.testing.assert_allclose(t_test_p(y * unit, yhat * unit), p, rtol=1e-9)


def test_t_test_is_scipys_on_the_reduction_of_the_squared_error(predicted):
    y, yhat = predicted
    reduction = (y - y.mean(axis=0)) ** 2 - (y - yhat) ** 2
    expected = ttest_1samp(reduction, 0, alternative="greater").pvalue
    np.testing.assert_allclose(t_test_p(y, yhat), expected, rtol=1e-9)
    np.testing.assert_array_equal(r2_p(y, yhat), t_test_p(y, yhat))


def test_t_test_agrees_with_very_many_resamples():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((1000, 30))
    y = 0.2 * signal + rng.standard_normal((1000, 30))
    p, resampled = t_test_p(y, 0.2 * signal), bootstrap_p(bootstrap_r2(y, 0.2 * signal, 20_000))
    seen = resampled > 1e-3
    assert seen.sum() > 10
    assert np.abs(np.log(p / resampled))[seen].max() < 0.6


@pytest.mark.parametrize("shape", [lambda z: z, lambda z: z * np.abs(z), lambda z: z * z - 1])
def test_t_test_is_calibrated_where_the_expected_r2_is_0(shape):
    """A prediction whose error is as large as its signal; benchmarks/significance.py has more."""
    rng = np.random.default_rng(0)
    n, v, variance = 200, 40_000, 0.1
    signal, error, noise = rng.standard_normal((3, n, v), dtype=np.float32)
    noise = shape(noise)
    noise *= np.sqrt(1 - variance) / noise.std()
    signal *= np.sqrt(variance)
    p = t_test_p(signal + noise, signal + np.sqrt(variance - 1 / n) * error)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.005)
    assert (p < 1e-3).mean() <= 1e-3
    assert (p < 1e-4).mean() <= 2e-4


def test_t_test_without_spread():
    y = np.array([[-1.0, 1, 2, np.nan], [1, 1, 3, 1], [-1, 1, 4, 2], [1, 1, 7, 3]])
    yhat = np.array([[-1.0, 1, 4, 1], [1, 1, 4, 1], [-1, 1, 4, 1], [1, 1, 4, 1]])
    np.testing.assert_array_equal(t_test_p(y, yhat), [0, np.nan, 1, np.nan])
    np.testing.assert_array_equal(t_test_p(y[:1], yhat[:1]), [np.nan] * 4)


def test_forms_of_p_other_than_the_t_test_are_the_bootstraps(predicted):
    y, yhat = predicted
    for form in ("plus_one", "raw"):
        expected = bootstrap_p(bootstrap_r2(y, yhat, 50, seed=3), form)
        np.testing.assert_array_equal(r2_p(y, yhat, form, 50, seed=3), expected)


def test_p_of_groups_is_statsmodels_clustered():
    """The mean of d, regressed on a constant with errors clustered by group."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), rng.integers(2, 9, 20))
    y = rng.standard_normal((len(groups), 2)) + rng.standard_normal((20, 2))[groups]
    f = 0.3 * y + 0.5 * rng.standard_normal(y.shape)
    p = t_test_p(y, f, groups)
    for v in range(2):
        d = np.square(y[:, v] - y[:, v].mean()) - np.square(y[:, v] - f[:, v])
        settings = {"groups": groups, "use_correction": False}
        fitted = OLS(d, np.ones(len(d))).fit(cov_type="cluster", cov_kwds=settings)
        t = fitted.tvalues[0] * np.sqrt(19 / 20)
        np.testing.assert_allclose(p[v], stats.t.sf(t, 19))
    np.testing.assert_allclose(t_test_p(y, f, np.arange(len(y))), t_test_p(y, f))
    assert (p > t_test_p(y, f)).all()
