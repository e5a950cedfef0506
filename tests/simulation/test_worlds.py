"""Worlds of known truth: shares against a least-squares fit, noise against its definition."""

import numpy as np
import pytest

from jne.data.prepared import prepare
from jne.simulation.worlds import WORLDS, Cohort, noise_of

ALPHA = np.repeat([0.0, 0.1, 0.3, 0.6], 4)
SETTINGS = {
    "name": "x", "subject": "s", "world": "functions", "noise": "independent", "seed": 3,
    "alpha": [0.0, 0.5], "noise_ceiling": [0.2, 0.5], "voxels_per_cell": 5, "n_repeats": 3,
    "n_features": 64, "n_train": 800, "n_val": 10, "n_test": 90,
}  # fmt: skip


def residual(features, values):
    design = np.column_stack([np.ones(len(features)), features])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


@pytest.mark.parametrize("world", WORLDS)
def test_the_share_is_what_no_linear_fit_reaches(world):
    rngs = np.random.default_rng(0), np.random.default_rng(1)
    draw = WORLDS[world](12_000, 64, ALPHA, *rngs)
    assert draw.features.shape == (12_000, 64)
    assert draw.latent.shape == (12_000,)
    share = residual(draw.features, draw.signal).var(axis=0) / draw.signal.var(axis=0)
    np.testing.assert_allclose(share, draw.share, atol=0.05)
    # gates: by a sample of 8,192 stimuli, so less exact
    np.testing.assert_allclose(draw.share, ALPHA, atol=0.06 if world == "gates" else 0)
    np.testing.assert_allclose(draw.signal.var(axis=0), 1, atol=0.25)


@pytest.mark.parametrize("world", WORLDS)
def test_another_sample_is_of_the_same_voxels(world):
    """The linear fit of one predicts the other, and stimuli differ."""
    draws = [
        WORLDS[world](4000, 64, ALPHA, np.random.default_rng(k), np.random.default_rng(9))
        for k in (1, 2)
    ]
    assert abs(np.corrcoef(draws[0].features[:, 0], draws[1].features[:, 0])[0, 1]) < 0.1
    x, y = draws[0].features, draws[0].signal
    weights = np.linalg.lstsq(np.column_stack([np.ones(len(x)), x]), y, rcond=None)[0]
    other = np.column_stack([np.ones(4000), draws[1].features]) @ weights
    error = (draws[1].signal - other).var(axis=0)
    assert (error[ALPHA == 0] < 0.01).all()
    np.testing.assert_allclose(error, draws[0].share, atol=0.15)


@pytest.mark.parametrize("kind", ["independent", "shared", "dependent", "heavy", "signal"])
def test_noise_has_unit_variance_and_its_structure(kind):
    rng = np.random.default_rng(0)
    signal, latent = rng.standard_normal((20_000, 6)), rng.standard_normal(20_000)
    noise = noise_of(kind, signal, latent, 2, rng)
    assert noise.shape == (20_000, 6, 2)
    np.testing.assert_allclose(noise.var(axis=0), 1, atol=0.6 if kind == "heavy" else 0.1)
    first, second = noise[..., 0], noise[..., 1]
    assert np.abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.05  # repeats
    between = np.abs(np.corrcoef(first.T)[np.triu_indices(6, 1)])
    assert (between.max() > 0.15) == (kind == "shared")
    size = np.log(np.abs(first[:, 0]))
    assert (np.corrcoef(size, latent)[0, 1] > 0.3) == (kind == "dependent")
    assert (np.corrcoef(size, signal[:, 0])[0, 1] > 0.3) == (kind == "signal")
    kurtosis = (first**4).mean() / (first**2).mean() ** 2
    assert (kurtosis > 3.3) == (kind in ("heavy", "dependent", "signal"))


def test_a_cohort_is_a_data_source_with_repeats(tmp_path):
    prepared = prepare(Cohort(**SETTINGS), tmp_path)
    voxels = prepared.voxels
    assert len(voxels) == 20
    assert prepared.features.shape == (900, 64)
    assert (
        prepared.stimuli["split"].value_counts()[["train", "val", "test"]] == [800, 10, 90]
    ).all()
    # The variance that repeats share, over that of their means: c / (c + (1 - c) / 3)
    repeats, y = prepared.repeats, np.asarray(prepared.responses, dtype=np.float64)
    signal = y.var(axis=0) - repeats.noise.sum(axis=0) / len(y)
    for ceiling, expected in ((0.2, 3 / 7), (0.5, 3 / 4)):
        chosen = voxels["noise_ceiling"] == ceiling
        assert (signal / y.var(axis=0))[chosen].mean() == pytest.approx(expected, abs=0.05)


def test_representations_are_rotations_and_scales_of_the_same_features(tmp_path):
    def features(representation):
        cohort = Cohort(**SETTINGS, representation=representation)
        x = np.asarray(prepare(cohort, tmp_path).features, dtype=np.float64)
        return cohort, x - x.mean(axis=0)

    _, x = features("zscored")
    raw, scaled = features("raw")
    assert raw.scaling == "none"
    ratio = scaled.std(axis=0) / x.std(axis=0)
    assert ratio.max() / ratio.min() > 3
    np.testing.assert_allclose(scaled / ratio, x, atol=1e-3)
    for representation, scaling in (("pca", "global"), ("whitened", "each")):
        cohort, rotated = features(representation)
        assert cohort.scaling == scaling
        np.testing.assert_allclose(rotated @ rotated.T, x @ x.T, atol=0.02)
        assert np.abs(np.corrcoef(rotated[:800].T) - np.eye(64)).max() < 0.02
