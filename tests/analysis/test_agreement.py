"""Agreement of profiles, against SciPy and plain loops."""

import numpy as np
import pytest
from scipy import stats

from jne.analysis import agreement


@pytest.fixture
def profiles():
    """Seven subjects of three data sets, 20 regions; some are missing."""
    rng = np.random.default_rng(0)
    values = np.linspace(0, 3, 20) + 0.3 * rng.standard_normal((7, 20))
    values *= rng.uniform(0.1, 10, (7, 1))  # scales do not count
    values[0, :3] = np.nan
    values[4, 10:] = np.nan
    return values


GROUPS = ["a", "a", "b", "b", "b", "b", "c"]


def test_the_rank_correlation_is_scipys_over_the_common_regions(profiles):
    both = np.isfinite(profiles[0]) & np.isfinite(profiles[4])
    assert both.sum() == 7
    expected = stats.spearmanr(profiles[0][both], profiles[4][both]).statistic
    assert agreement.rank_correlation(profiles[0], profiles[4]) == pytest.approx(expected)
    assert agreement.rank_correlation(profiles[0], np.exp(profiles[0])) == pytest.approx(1)


def test_too_few_or_constant_regions_have_no_correlation(profiles):
    few = np.where(np.arange(20) < 4, profiles[1], np.nan)
    assert np.isnan(agreement.rank_correlation(few, profiles[2]))
    assert np.isnan(agreement.rank_correlation(np.ones(20), profiles[2]))


def test_mean_ranks_are_those_of_a_plain_loop(profiles):
    found = agreement.mean_rank(profiles)
    for region in range(20):
        ranks = []
        for values in profiles:
            own = values[np.isfinite(values)]
            if np.isfinite(values[region]):
                ranks.append((own < values[region]).sum() / (len(own) - 1))
        assert found[region] == pytest.approx(np.mean(ranks))
    assert np.isnan(agreement.mean_rank(np.full((2, 3), np.nan))).all()


def test_one_data_set_is_left_out_at_a_time_and_each_counts_once(profiles):
    found = agreement.leave_one_out(profiles, GROUPS)
    assert list(found) == ["a", "b", "c"]
    for group, (own, others) in found.items():
        inside = [k for k, of in enumerate(GROUPS) if of == group]
        np.testing.assert_allclose(own, agreement.mean_rank(profiles[inside]))
        parts = [
            agreement.mean_rank(profiles[[k for k, of in enumerate(GROUPS) if of == other]])
            for other in "abc"
            if other != group
        ]
        np.testing.assert_allclose(others, np.nanmean(parts, axis=0))
    changed = profiles.copy()
    changed[:2] = np.random.default_rng(1).standard_normal((2, 20))
    again = agreement.leave_one_out(changed, GROUPS)
    np.testing.assert_array_equal(again["a"][1], found["a"][1])  # its own subjects are left out
