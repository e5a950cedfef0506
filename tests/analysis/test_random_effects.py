"""The mean over subjects, against statsmodels, its defining equations, and a simulation."""

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from jne.analysis.random_effects import random_effects_mean

VALUES = np.array([0.10, 0.32, 0.15, 0.41])
ERRORS = np.array([0.02, 0.09, 0.05, 0.06])


def test_mean_and_interval_are_those_of_statsmodels():
    combined = combine_effects(VALUES, ERRORS**2, method_re="pm", use_t=True)
    expected = combined.mean_effect_re, *combined.conf_int()[3]
    assert random_effects_mean(VALUES, ERRORS) == pytest.approx(expected)


def test_they_solve_the_equations_of_paule_and_mandel_and_of_hartung_and_knapp():
    def weighted(between):
        weight = 1 / (ERRORS**2 + between)
        mean = (weight * VALUES).sum() / weight.sum()
        return mean, (weight * (VALUES - mean) ** 2).sum(), weight.sum()

    between = optimize.brentq(lambda t: weighted(t)[1] - 3, 0, 1, xtol=1e-12)
    mean, spread, total = weighted(between)
    half = stats.t.ppf(0.975, 3) * np.sqrt(spread / 3 / total)
    expected = mean, mean - half, mean + half
    assert random_effects_mean(VALUES, ERRORS) == pytest.approx(expected, abs=1e-6)
    assert mean < VALUES.mean(), "the lowest value has the smallest error"


@pytest.mark.parametrize("error", [0.0, 1e-4, 0.02])
def test_with_equal_errors_it_is_the_t_interval(error):
    half = stats.t.ppf(0.975, 3) * stats.sem(VALUES)
    mean = VALUES.mean()
    found = random_effects_mean(VALUES, np.full(4, error))
    assert found == pytest.approx((mean, mean - half, mean + half), rel=1e-5)


def test_subjects_that_are_alike_by_chance_have_no_narrower_interval_than_their_errors():
    mean, low, high = random_effects_mean(np.array([0.2, 0.2, 0.2]), np.array([0.1, 0.1, 0.05]))
    weight = 1 / np.array([0.01, 0.01, 0.0025])
    half = stats.t.ppf(0.975, 2) / np.sqrt(weight.sum())
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))


def test_linear_encoders_and_single_subjects():
    assert random_effects_mean(np.zeros(3), np.zeros(3)) == pytest.approx((0, 0, 0), abs=1e-5)
    mean, _, _ = random_effects_mean(np.array([0.0, 0.3]), np.array([0.0, 0.1]))
    assert mean == pytest.approx(0.15), "no error is no reason to weigh all"
    assert random_effects_mean(np.array([0.3]), np.array([0.1])) == pytest.approx(
        (0.3, np.nan, np.nan), nan_ok=True
    )
    assert np.isnan(random_effects_mean(np.array([]), np.array([]))).all()


@pytest.mark.parametrize("between", [0.0, 0.05, 0.2])
def test_intervals_hold_the_mean_of_the_population(between):
    """Four subjects, of errors that differ by a factor of five."""
    rng = np.random.default_rng(0)
    errors = np.array([0.02, 0.05, 0.1, 0.05])
    values = 0.2 + rng.standard_normal((400, 4)) * np.sqrt(between**2 + errors**2)
    found = np.array([random_effects_mean(each, errors) for each in values])
    assert ((found[:, 1] < 0.2) & (found[:, 2] > 0.2)).mean() > 0.92
    if not between:
        assert found[:, 0].std() < 0.8 * values.mean(axis=1).std()
