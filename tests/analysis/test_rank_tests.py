"""All Mann-Whitney tests at once against those of scipy, one by one."""

import numpy as np
import pytest
from scipy import stats

from jne.analysis.rank_tests import mann_whitney

RNG = np.random.default_rng(11)


def compare(samples):
    samples = [np.sort(sample) for sample in samples]
    u, p = mann_whitney(samples)
    for i, first in enumerate(samples):
        for j, second in enumerate(samples):
            if i != j:
                found = stats.mannwhitneyu(first, second, alternative="greater")
                assert u[i, j] == found.statistic
                np.testing.assert_allclose(p[i, j], found.pvalue, rtol=1e-9, atol=1e-300)
    assert np.isnan(np.diagonal(p)).all()


def test_small_and_large_groups():
    sizes = [3, 3, 4, 8, 8, 9, 20, 61]
    compare([RNG.gamma(2.0, size=n) + 0.3 * k for k, n in enumerate(sizes)])


def test_ties_within_and_between_groups():
    compare([RNG.integers(0, 6, size=n).astype(float) for n in (3, 8, 9, 30, 41)])


def test_a_tie_in_other_groups_leaves_the_exact_p():
    compare([np.array([1.0, 2.5, 4.0]), np.array([0.5, 3.0, 5.5]), np.array([1.0, 1.0, 7.0])])


def test_equal_values_everywhere():
    compare([np.zeros(4), np.zeros(5), np.zeros(12)])


def test_a_group_so_large_that_the_counts_do_not_fit_into_integers():
    small, large = RNG.normal(size=8) + 0.5, RNG.normal(size=1200)
    _, p = mann_whitney([np.sort(small), np.sort(large)])
    expected = stats.mannwhitneyu(small, large, alternative="greater", method="exact").pvalue
    assert p[0, 1] == pytest.approx(expected, rel=1e-6)


def test_no_groups():
    u, p = mann_whitney([])
    assert u.shape == p.shape == (0, 0)
