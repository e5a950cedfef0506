"""Intervals and split halves of JNE against loops over resamples."""

import numpy as np
import pytest

from jne.analysis import reliability
from jne.analysis.nonlinearity import jne

DEVIATION = np.random.default_rng(1).gamma(2.0, size=(40, 7)) * np.arange(1, 8)


def test_interval_is_the_loop_over_resamples():
    low, high = reliability.jne_interval(DEVIATION, 300, seed=5)
    draws = np.random.default_rng(5).integers(40, size=(300, 40))
    resampled = np.array([jne(DEVIATION[draw]) for draw in draws])
    np.testing.assert_allclose(low, np.quantile(resampled, 0.025, axis=0), rtol=1e-9)
    np.testing.assert_allclose(high, np.quantile(resampled, 0.975, axis=0), rtol=1e-9)


def test_interval_covers_the_truth():
    rng = np.random.default_rng(2)
    deviation = rng.normal(size=(400, 2000))  # of true standard deviation 1
    low, high = reliability.jne_interval(deviation, 200, seed=0)
    assert np.mean((low <= 1) & (high >= 1)) == pytest.approx(0.95, abs=0.03)


def test_missing_voxels_stay_missing():
    deviation = DEVIATION.copy()
    deviation[:, 2] = np.nan
    low, high = reliability.jne_interval(deviation, 20, seed=0)
    assert list(np.isnan(low)) == list(np.isnan(high)) == [k == 2 for k in range(7)]


def test_halves_share_no_stimulus():
    marked = np.zeros((11, 3))
    marked[:, 0] = np.arange(11)
    first, second = reliability.split_halves(marked, 0, n_splits=1)
    order = np.random.default_rng(0).permutation(11)
    assert first[0] == pytest.approx(np.std(order[:5]))
    assert second[0] == pytest.approx(np.std(order[5:]))


def split_half_r(deviation):
    return reliability.correlation(*reliability.split_halves(deviation, 0))


def test_split_half_of_noise_and_of_signal():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(60, 500))
    assert abs(split_half_r(noise)) < 0.15
    spread = np.linspace(1, 5, 500)
    # A standard deviation from n normal values has variance sigma^2 / (2 (n - 1)).
    expected = spread.var() / (spread.var() + np.square(spread).mean() / (2 * 29))
    assert split_half_r(noise * spread) == pytest.approx(expected, abs=0.02)


def test_across_seeds():
    first = np.array([1.0, 2.0, 3.0, 4.0])
    r, spread = reliability.across_seeds([first, first + 1, -first])
    assert r == pytest.approx((1 - 1 - 1) / 3)
    np.testing.assert_allclose(spread, np.std([first, first + 1, -first], axis=0, ddof=1))


def test_correlation_leaves_missing_voxels_out():
    x = np.array([1.0, 2.0, np.nan, 4.0, 3.0])
    y = np.array([2.0, 1.0, 5.0, 3.0, np.nan])
    assert reliability.correlation(x, y) == pytest.approx(np.corrcoef([1, 2, 4], [2, 1, 3])[0, 1])
    assert np.isnan(reliability.correlation(x, np.ones(5)))


def test_the_halves_are_those_of_the_median_split():
    deviation = np.random.default_rng(2).gamma(2.0, size=(31, 40)) * np.linspace(0.2, 3, 40)
    among = np.arange(40) % 3 > 0
    splits = [reliability.split_halves(deviation, 5 + k, n_splits=1) for k in range(7)]
    r = [np.corrcoef(first[among], second[among])[0, 1] for first, second in splits]
    expected = splits[int(np.flatnonzero(r == np.median(r))[0])]
    halves = reliability.split_halves(deviation, 5, n_splits=7, among=among)
    np.testing.assert_array_equal(halves, expected)
    constant = reliability.split_halves(np.ones((31, 40)), 5)
    np.testing.assert_array_equal(constant, np.zeros((2, 40)))


def test_the_correlation_of_each_split_is_that_of_two_spreads():
    """Over voxels whose deviations are far from 0, beside their spread."""
    rng = np.random.default_rng(5)
    deviation = 20 + rng.gamma(1.0, size=(15, 40)) * rng.random(40)
    among = np.arange(40) % 4 > 0
    expected = []
    for seed in range(2, 7):
        order = np.random.default_rng(seed).permutation(15)
        first, second = deviation[order[:7]].std(axis=0), deviation[order[7:]].std(axis=0)
        expected.append(np.corrcoef(first[among], second[among])[0, 1])
    found = reliability._split_half_r(deviation, range(2, 7), among)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
