"""Intervals of shares and partial correlations, against statsmodels and linear algebra."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from jne.analysis.inference import partial_rank_correlation, share_interval


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (214, 400)])
def test_share_has_wilsons_interval(count, n):
    share, low, high = share_interval(count, n)
    assert share == count / n
    assert (low, high) == pytest.approx(proportion_confint(count, n, method="wilson"), abs=1e-12)


def test_share_of_no_voxel():
    assert np.isnan(share_interval(0, 0)).all()


def test_partial_rank_correlation_is_that_of_the_inverse_correlation_matrix():
    rng = np.random.default_rng(2)
    common = rng.standard_normal((50, 2))
    x = common @ [1, 0.5] + rng.standard_normal(50)
    y = common @ [1, -0.3] + 0.4 * x + rng.standard_normal(50)
    inverse = np.linalg.inv(stats.spearmanr(np.column_stack([x, y, common])).statistic)
    r, p = partial_rank_correlation(x, y, list(common.T))
    assert r == pytest.approx(-inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1]))
    t = r * np.sqrt(46 / (1 - r**2))
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 46))
    plain = stats.spearmanr(x, y)
    assert partial_rank_correlation(x, y, []) == pytest.approx((plain.statistic, plain.pvalue))


def test_a_perfect_partial_rank_correlation_has_p_0():
    """Or next to it: whether r is 1 to the last bit depends on rounding."""
    for n in range(9, 30):
        x = np.arange(float(n))
        for given in ([], [np.cos(x)], [np.cos(x), np.sin(3 * x)]):
            for sign in (1, -1):
                r, p = partial_rank_correlation(x, sign * x, given)
                assert r == pytest.approx(sign)
                assert abs(r) <= 1
                assert 0 <= p < 1e-25


def test_partial_rank_correlation_without_anything_left():
    x, y = np.arange(10.0), np.random.default_rng(0).random(10)
    assert np.isnan(partial_rank_correlation(x, y, [x])).all()
    assert np.isnan(partial_rank_correlation(x[:3], y[:3], [y[:3], x[:3]])).all()
    with_gap = np.where(x == 4, np.nan, x)
    assert partial_rank_correlation(with_gap, y, []) == partial_rank_correlation(
        np.delete(x, 4), np.delete(y, 4), []
    )
