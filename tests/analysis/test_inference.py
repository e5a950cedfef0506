"""The tests of W against their published definitions, taken literally, and against statsmodels."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from jne.analysis.inference import (
    knockoff_q,
    knockoff_threshold,
    knockoff_w,
    partial_rank_correlation,
    share_interval,
    sign_test,
    signed_rank_test,
)


def literal_threshold(w, rate, n_twins=1):
    """Barber & Candes 2015, definition 2 (knockoff+); Gimenez & Zou 2019 for several twins."""
    for t in sorted({abs(v) for v in w if v != 0}):
        negative, positive = sum(v <= -t for v in w), sum(v >= t for v in w)
        if (1 + negative) / n_twins / max(positive, 1) <= rate:
            return t
    return np.inf


@pytest.mark.parametrize("n_twins", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_threshold_and_q_are_the_definition(seed, n_twins):
    rng = np.random.default_rng(seed)
    w = np.round(rng.standard_normal(60) + 1.2 * (rng.random(60) < 0.5), 1)  # with ties and zeros
    q = knockoff_q(w, n_twins)
    for rate in (0.03, 0.05, 0.1, 0.2, 0.35, 0.5, 0.99):
        expected = literal_threshold(w, rate, n_twins)
        assert knockoff_threshold(w, rate, n_twins) == expected
        np.testing.assert_array_equal(q <= rate, w >= expected)
    assert ((q > 0) & (q <= 1)).all()


def test_voxels_without_a_twin_are_left_out():
    w = np.array([3.0, np.nan, 2, -1, 1, 4, np.nan])
    q = knockoff_q(w)
    np.testing.assert_array_equal(np.isnan(q), np.isnan(w))
    np.testing.assert_array_equal(q[np.isfinite(w)], knockoff_q(w[np.isfinite(w)]))
    assert np.isnan(knockoff_q(np.full(3, np.nan))).all()
    assert knockoff_threshold(np.zeros(4), 0.5) == np.inf


def test_few_voxels_cannot_reach_a_small_rate():
    """Of k voxels, all with W > 0, the smallest possible q is 1 / k."""
    assert knockoff_q(np.arange(1.0, 9)).min() == 1 / 8
    assert knockoff_q(np.arange(1.0, 9), n_twins=4).min() == 1 / 32


def test_w_of_one_twin_is_the_difference_and_of_several_the_lead():
    rng = np.random.default_rng(0)
    jne, twins = rng.random(20), rng.random((4, 20))
    np.testing.assert_allclose(knockoff_w(jne, twins[:1]), jne - twins[0])
    for v, found in enumerate(knockoff_w(jne, twins)):
        values = [jne[v], *twins[:, v]]
        largest = int(np.argmax(values))
        lead = values[largest] - np.median(np.delete(values, largest))
        assert found == pytest.approx(lead if largest == 0 else -lead)
    twins[2, 5] = np.nan
    assert np.isnan(knockoff_w(jne, twins)[5])


@pytest.mark.parametrize("n_twins", [1, 3])
def test_the_false_discovery_rate_holds(n_twins):
    """Exchangeable skewed values, a third of the voxels raised."""
    rng = np.random.default_rng(1)
    proportions, powers = [], []
    for _ in range(300):
        values = rng.gamma(1.0, size=(1 + n_twins, 90))
        values[0, :30] += 4
        found = knockoff_q(knockoff_w(values[0], values[1:]), n_twins) <= 0.2
        proportions.append(found[30:].sum() / max(found.sum(), 1))
        powers.append(found[:30].mean())
    assert np.mean(proportions) <= 0.2 + 2 * np.std(proportions) / np.sqrt(300)
    assert np.mean(powers) > 0.5


def test_sign_and_signed_rank_tests():
    w = np.array([0.3, -0.1, 0.5, np.nan, 0.2, 0.0, 0.9])
    assert sign_test(w) == pytest.approx(6 / 32)  # 4 or 5 heads of 5
    ranked = [0.3, -0.1, 0.5, 0.2, 0.9]  # the negative one has rank 1: two of 32 sign patterns
    assert signed_rank_test(np.array(ranked)) == pytest.approx(2 / 32)
    assert np.isnan(sign_test(w[:2]))
    assert np.isnan(signed_rank_test(w[:2]))
    assert sign_test(np.zeros(5)) == signed_rank_test(np.zeros(5)) == 1


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
