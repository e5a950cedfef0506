"""The variance of the signal from repeats, against analysis of variance and plain loops."""

import numpy as np
import pytest

from jne.analysis import repeats
from jne.analysis.repeats import RepeatSums, blocks_of, repeats_of


def signal_variance(means, known):
    n = len(means)
    spread = (known.weight[:, None] * np.square(means - means.mean(axis=0))).sum(axis=0)
    return (spread * n / (n - 1) - known.noise.sum(axis=0)) / n


@pytest.fixture
def trials():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((90, 5))
    return signal[:, :, None] + rng.standard_normal((90, 5, 4)) * [1, 2, 0.5, 3]


def test_the_variance_component_of_a_balanced_design(trials):
    """One-way random effects: (mean square between - mean square within) / repeats."""
    r = trials.shape[2]
    between = r * trials.mean(axis=2).var(axis=0, ddof=1)
    within = trials.var(axis=2, ddof=1).mean(axis=0)
    known = repeats_of(trials)
    np.testing.assert_allclose(
        signal_variance(trials.mean(axis=2), known), (between - within) / r, rtol=1e-6
    )
    assert known.weight == pytest.approx(np.ones(90))


def test_missing_repeats_are_weighted_by_their_number(trials):
    trials[:60, :, 3] = np.nan
    trials[10:30, 2, 1:] = np.nan  # in one voxel, one trial of several
    known = repeats_of(trials)
    for v in range(5):
        count = np.isfinite(trials[:, v]).sum(axis=1)
        variance = np.full(90, np.nan)
        several = count > 1
        variance[several] = np.nanvar(trials[several, v], axis=1, ddof=1)
        variance[~several] = variance[several].mean()
        for b in range(known.block.max() + 1):
            total = (variance / count)[(known.block == b) & several].sum()
            pooled = (1 / count)[~several].sum() / several.sum()
            total += pooled * variance[(known.block == b) & several].sum()
            assert known.noise[b, v] == pytest.approx(total, rel=1e-5)


def test_stimuli_without_repeats_have_the_noise_of_the_others(trials):
    """Where every trial has the same variance, the noise is that of the means, by weight."""
    trials[20:, :, 1:] = np.nan
    trials[:20] += 2 - trials[:20] + np.array([-1, 1, -1, 1]) * np.sqrt(3 / 4)  # variance 1
    known = repeats_of(trials)
    count = np.where(np.arange(90) < 20, 4, 1)
    assert known.noise.sum(axis=0) == pytest.approx(np.full(5, (known.weight / count).sum()))
    assert known.weight.mean() == pytest.approx(1)
    assert len(set(known.weight)) == 2


def test_the_weights_have_the_least_variance():
    """Of Gaussian trials of the nominal signal, against simulation on a grid of weights."""
    rng = np.random.default_rng(1)
    n, n_repeated, r, n_voxels = 400, 100, 3, 8000
    count = np.where(np.arange(n) < n_repeated, r, 1)
    signal = np.sqrt(repeats._NOMINAL_SIGNAL) * rng.standard_normal((n, n_voxels))
    noise = np.sqrt(1 - repeats._NOMINAL_SIGNAL) * rng.standard_normal((n_repeated, n_voxels, r))
    single = signal[n_repeated:] + noise.std() * rng.standard_normal((n - n_repeated, n_voxels))
    trials = signal[:n_repeated, :, None] + noise
    within = trials.var(axis=2, ddof=1).mean(axis=0)
    of_repeated = np.square(trials.mean(axis=2)).mean(axis=0) - within / r
    of_single = np.square(single).mean(axis=0) - within
    spread = [np.var(w * of_repeated + (1 - w) * of_single) for w in np.linspace(0, 1, 101)]
    chosen = repeats._weights(count)[0] * n_repeated / n
    assert chosen == pytest.approx(np.argmin(spread) / 100, abs=0.06)


def test_stimuli_may_come_one_by_one(trials):
    trials[::7, 1, 0] = np.nan
    count = np.full(90, 4)
    sums = RepeatSums.zero(count, 5)
    for i in range(90):
        valid = np.isfinite(trials[i])
        within = np.nansum(np.square(trials[i] - np.nanmean(trials[i], axis=1)[:, None]), axis=1)
        sums.add(np.array([i]), within[None], valid.sum(axis=1)[None])
    np.testing.assert_allclose(sums.finish().noise, repeats_of(trials).noise, rtol=1e-6)


def test_without_repeats_nothing_is_known(trials):
    trials[:, :, 1:] = np.nan
    assert repeats_of(trials) is None
    assert RepeatSums.zero(np.ones(90, dtype=int), 5).finish() is None


def test_a_voxel_without_repeats_has_no_noise(trials):
    trials[:, 3, 1:] = np.nan
    assert np.isnan(repeats_of(trials).noise).any(axis=0).tolist() == [False] * 3 + [True, False]


@pytest.mark.parametrize(("n", "n_blocks"), [(1000, 64), (100, 25), (3, 1)])
def test_blocks_are_nearly_equal_and_the_same_every_time(n, n_blocks):
    size = np.bincount(blocks_of(n))
    assert len(size) == n_blocks
    assert np.ptp(size) <= 1
    assert (blocks_of(n) == blocks_of(n)).all()
