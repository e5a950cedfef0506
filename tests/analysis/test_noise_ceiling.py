"""Noise ceilings of signals of known reliability."""

import numpy as np

from jne.analysis.noise_ceiling import noise_ceiling, noise_ceiling_snr
from jne.analysis.prediction import r2_score
from jne.data.averaging.sums import TrialSums


def test_noise_ceiling_is_the_reliability_of_the_average():
    """A signal of variance 1 under noise of variance 2: ncsnr^2 = 1/2, ceiling 0.6 of 3 repeats."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((20000, 30, 1))
    repeats = signal + np.sqrt(2) * rng.standard_normal((20000, 30, 3))
    ncsnr = noise_ceiling_snr(repeats)
    np.testing.assert_allclose(np.square(ncsnr).mean(), 0.5, rtol=0.02)
    ceiling = noise_ceiling(ncsnr, 1 / 3)
    np.testing.assert_allclose(ceiling.mean(), 0.6, rtol=0.01)
    # The ceiling is the R2 of the true signal against the average of the repeats.
    np.testing.assert_allclose(
        r2_score(repeats.mean(axis=2), signal[:, :, 0]).mean(), 0.6, rtol=0.01
    )


def test_noise_ceiling_with_missing_repeats():
    rng = np.random.default_rng(1)
    repeats = rng.standard_normal((3000, 6, 1)) + rng.standard_normal((3000, 6, 8))
    repeats[rng.random(repeats.shape) < 0.4] = np.nan
    np.testing.assert_allclose(noise_ceiling_snr(repeats).mean(), 1, rtol=0.03)


def test_sums_over_trials_give_the_same_as_the_trials():
    rng = np.random.default_rng(2)
    repeats = rng.standard_normal((40, 6, 1)) + rng.standard_normal((40, 6, 3))
    repeats[rng.random(repeats.shape) < 0.2] = np.nan
    repeats[:, :, 0] = rng.standard_normal((40, 6))  # each stimulus was shown at least once
    count, mean = np.isfinite(repeats).sum(axis=2), np.nanmean(repeats, axis=2)
    squares = np.nansum(np.square(repeats), axis=(0, 2))
    np.testing.assert_allclose(
        TrialSums.of_means(count, mean, squares).ncsnr(), noise_ceiling_snr(repeats), rtol=1e-10
    )


def test_noise_ceiling_of_the_extremes():
    np.testing.assert_array_equal(noise_ceiling(np.array([0.0, np.inf]), 1 / 3), [0, 1])
    never_repeated = np.full((5, 1, 2), np.nan)
    never_repeated[:, :, 0] = np.arange(5)[:, None]
    assert np.isnan(noise_ceiling_snr(never_repeated)).all()
