"""Contrasts of shares: their weights and intervals, and how often a trend is seen without one."""

import numpy as np
import pytest
import torch
from scipy import stats

from jne.analysis import leave_one_out
from jne.analysis.contrast import contrast, difference, slope
from jne.analysis.evidence import evidence_of
from jne.analysis.evidence_sums import EvidenceSums
from jne.analysis.repeats import repeats_of
from jne.analysis.share_sums import ShareSums

SETS = np.repeat([0, 1, 2], 8)
V = len(SETS)
TREND = slope(np.arange(3))


def test_interval_and_p_are_those_of_students_t():
    value, low, high, p = contrast(0.3, 0.1, 7)
    half = 0.1 * stats.t.ppf(0.975, 7)
    assert (value, low, high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert p == pytest.approx(2 * stats.t.sf(3, 7))
    assert contrast(-0.3, 0.1).p == pytest.approx(2 * stats.norm.sf(3))


def test_weights_of_a_difference_and_of_a_slope():
    np.testing.assert_array_equal(difference(1, 0, 3), [-1, 1, 0])
    x, y = np.random.default_rng(0).standard_normal((2, 5))
    assert slope(x) @ y == pytest.approx(stats.linregress(x, y).slope)
    np.testing.assert_allclose(slope(np.arange(2)), difference(1, 0, 2))


def evidence_sums(rng, share: np.ndarray, n: int = 200) -> EvidenceSums:
    """Of three sets with these validated shares, whose voxels have noise in common."""
    linear, g, *fits = rng.standard_normal((4, n, V)).astype(np.float32)
    g += 0.5 * rng.standard_normal((n, 1), dtype=np.float32)
    noise = rng.standard_normal((n, 1)) + rng.standard_normal((n, V))
    size = np.sqrt(share / (1 - share) / 1.25)[SETS]
    y = (linear + size * g + noise).astype(np.float32)
    return evidence_of(y, linear + g, g, fits, SETS, 3)[1].combined(np.eye(3, 4))


def share_sums(rng, share: np.ndarray, n: int = 160) -> ShareSums:
    """Of three sets with these nonlinear shares of the signal, noise as above, two repeats."""
    x = rng.standard_normal((n, 10))
    weights = rng.standard_normal((10, V))
    linear = x @ (weights / np.linalg.norm(weights, axis=0))
    nonlinear = (np.square(x[:, rng.integers(10, size=V)]) - 1) / np.sqrt(2)
    signal = np.sqrt(1 - share)[SETS] * linear + np.sqrt(share)[SETS] * nonlinear
    noise = rng.standard_normal((n, 1, 2)) + rng.standard_normal((n, V, 2))
    trials = signal[:, :, None] + noise
    repeats = repeats_of(trials)
    left_out = leave_one_out.LeaveOneOut(torch.from_numpy(x), repeats.block)
    sets = left_out.sets(3)
    mean = torch.from_numpy(trials.mean(axis=2)[left_out.order]).float()
    left_out.sums(mean, repeats, None, sets, SETS)
    return sets.finish()


@pytest.mark.parametrize("make", [evidence_sums, share_sums])
def test_a_difference_is_that_of_two_sets_alone(make):
    """The third has no weight; a sum of contrasts is the contrast of the sum."""
    sums = make(np.random.default_rng(1), np.array([0.1, 0.3, 0.6]))
    step = sums.contrast(difference(1, 0, 3))
    alone = sums.combined(np.eye(3)[:2]).contrast(np.array([-1, 1]))
    assert step == pytest.approx(alone)
    up = sums.contrast(difference(2, 1, 3))
    assert step.value + up.value == pytest.approx(2 * sums.contrast(TREND).value)
    assert sums.contrast(-TREND)[:3] == pytest.approx([-sums.contrast(TREND)[k] for k in (0, 2, 1)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "share", "rate"),
    [
        (evidence_sums, [0.3, 0.3, 0.3], (0.02, 0.08)),
        (evidence_sums, [0.0, 0.0, 0.0], (0.0, 0.06)),  # pairs count twice: too few
        (evidence_sums, [0.1, 0.3, 0.5], (0.9, 1.0)),
        (share_sums, [0.3, 0.3, 0.3], (0.02, 0.08)),
        (share_sums, [0.0, 0.0, 0.0], (0.02, 0.08)),
        (share_sums, [0.1, 0.3, 0.5], (0.9, 1.0)),
    ],
)
def test_a_trend_is_seen_where_there_is_one(make, share, rate):
    """And its slope, as planted; its interval holds that."""
    rng, share = np.random.default_rng(2), np.array(share)
    value, low, high, p = np.array([make(rng, share).contrast(TREND) for _ in range(400)]).T
    truth = TREND @ share
    assert rate[0] <= (p < 0.05).mean() <= rate[1]
    assert value.mean() == pytest.approx(truth, abs=0.015)
    assert ((low <= truth) & (truth <= high)).mean() > 0.92
