"""Scores of a set of stimuli against one resample at a time."""

import numpy as np
import pytest
from scipy import stats

from jne.analysis.prediction import resample_counts
from jne.analysis.stimulus_sets import estimate, r2_gain, rank_correlation, set_scores


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((12, 30))
    predictions = 0.6 * responses + rng.standard_normal((12, 30))
    deviation = np.abs(rng.standard_normal((12, 30))) + 5
    return responses, predictions, deviation


def plain(responses, predictions, deviation):
    r2 = 1 - np.square(responses - predictions).sum() / (12 * responses.var(axis=0)).sum()
    r = np.nanmean([np.corrcoef(*pair)[0, 1] for pair in zip(responses.T, predictions.T)])  # noqa: B905
    return r2, r, deviation.std(axis=0).mean()


def test_values_and_intervals_are_those_of_each_resample(arrays):
    scores = set_scores(*arrays, 200, 3)
    assert [score.value for score in scores] == pytest.approx(plain(*arrays))
    draws = [
        np.repeat(np.arange(12), count) for count in resample_counts(12, 200, 3).astype(int)
    ]  # fmt: skip
    resampled = np.array([plain(*(array[draw] for array in arrays)) for draw in draws])
    for score, values in zip(scores, resampled.T, strict=True):
        assert [score.low, score.high] == pytest.approx(np.quantile(values, [0.025, 0.975]))


def test_voxels_that_are_missing_or_constant_are_left_out_where_they_have_no_number(arrays):
    responses, predictions, deviation = (array.copy() for array in arrays)
    responses[3, :10], deviation[:, 20:], predictions[:, 15] = np.nan, np.nan, 0
    scores = set_scores(responses, predictions, deviation, 50, 0)
    some = [k for k in range(10, 30) if k != 15]
    _, r, _ = plain(responses[:, some], predictions[:, some], deviation)
    error = np.square(responses[:, 10:] - predictions[:, 10:]).sum()
    r2 = 1 - error / (12 * responses[:, 10:].var(axis=0)).sum()
    jne = deviation[:, :20].std(axis=0).mean()
    assert [score.value for score in scores] == pytest.approx([r2, r, jne])
    nothing = set_scores(np.full((12, 2), np.nan), predictions[:, :2], deviation[:, 20:22], 5, 0)
    assert np.isnan([score.value for score in nothing]).all()


def test_blocks_do_not_matter(arrays, monkeypatch):
    whole = set_scores(*arrays, 20, 0)
    monkeypatch.setattr("jne.utils.blocks.voxel_blocks.__defaults__", (7,))
    np.testing.assert_allclose(set_scores(*arrays, 20, 0), whole)


def test_the_gain_is_the_difference_of_both_r2_in_each_resample(arrays):
    responses, predictions, deviation = arrays
    baseline = 0.3 * responses + 0.1 * deviation
    gain = r2_gain(responses, predictions, baseline, 200, 3)
    draws = [np.arange(12)] + [
        np.repeat(np.arange(12), count) for count in resample_counts(12, 200, 3).astype(int)
    ]
    expected = [
        plain(responses[d], predictions[d], deviation[d])[0]
        - plain(responses[d], baseline[d], deviation[d])[0]
        for d in draws
    ]
    np.testing.assert_allclose(gain, expected)
    interval = estimate(gain)
    assert interval.value == pytest.approx(expected[0])
    assert [interval.low, interval.high] == pytest.approx(np.quantile(gain[1:], [0.025, 0.975]))
    assert np.isnan(estimate(r2_gain(*(a[:, :0] for a in arrays), 20, 0))).all()


def test_a_rank_correlation_has_the_interval_of_bonett_and_wright():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(40)
    y = x + rng.standard_normal(40)
    r = stats.spearmanr(x, y).statistic
    error = np.sqrt((1 + r**2 / 2) / 37)
    expected = [r, *np.tanh(np.arctanh(r) + 1.959964 * error * np.array([-1, 1]))]
    assert rank_correlation([(x, y)]) == pytest.approx(expected, rel=1e-6)
    few = (x[:3], y[:3]), (x[:9], np.ones(9))
    assert rank_correlation([(x, y), *few]) == rank_correlation([(x, y)])
    assert np.isnan(rank_correlation(few)).all()
    assert rank_correlation([(x, x)]) == (1, 1, 1)


def test_within_sets_no_difference_between_them_counts():
    rng = np.random.default_rng(2)
    covered, n_sets = 0, (30, 60, 15)
    for _ in range(300):
        pairs = [  # rho of a normal pair of correlation .5 is 6 / pi arcsin(.25)
            (x + 9 * k, x + np.sqrt(3) * rng.standard_normal(n) + 9 * k)
            for k, n in enumerate(n_sets)
            for x in [rng.standard_normal(n)]
        ]
        within = rank_correlation(pairs)
        covered += within.low < 6 / np.pi * np.arcsin(0.25) < within.high
    assert 0.91 < covered / 300 < 0.99
    everything = stats.spearmanr(*map(np.concatenate, zip(*pairs, strict=True))).statistic
    assert everything > 0.8 > within.high
