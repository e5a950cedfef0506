"""What planted data promise: known shares, unit variances, and noise of the named structures."""

import numpy as np
import pytest
from helpers import small_cells
from scipy import stats

from jne.data.planted import CATEGORIES, N_GATES, FeatureSpace, Gates
from jne.data.prepared import prepare


def cells(**settings):
    given = {"subject": "subj01", "seed": 3, "alpha": [0.0, 0.5], "noise_ceiling": [0.2, 0.8],
             "voxels_per_cell": 12, "shared_noise": 0.4, "n_features": 72, "n_train": 1000,
             "n_val": 10, "n_test": 90, "leaks": "allow"}  # fmt: skip
    return small_cells(**given | settings)


def left_of(y, design):
    """What the best linear fit on the columns of the design leaves."""
    return y - design @ np.linalg.solve(design.T @ design, design.T @ y)


def test_latents_have_unit_variance_and_features_a_power_law():
    rng = np.random.default_rng(0)
    space = FeatureSpace(72, rng)
    category, latent = space.draw(16_000, rng)
    assert (np.bincount(category) == 2000).all()
    assert (np.diff(category[:800]) != 0).mean() == pytest.approx(7 / 8, abs=0.05)  # in no order
    np.testing.assert_allclose(latent.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(latent.var(axis=0), 1, atol=0.06)
    has = np.eye(len(CATEGORIES), dtype=bool)[category]
    inside, outside = latent[:, :8][has], latent[:, :8][~has]
    assert inside.std() == pytest.approx(0.45, rel=0.02)
    assert outside.std() == pytest.approx(0.45, rel=0.02)
    assert inside.mean() - outside.mean() == pytest.approx(2.7, rel=0.01)
    skewness = stats.skew(latent)  # 8 categories and 6 attributes are bimodal, no other latent
    assert skewness[:14].min() > 1
    assert abs(skewness[14:]).max() < 0.1
    attributes = latent[:, 8:14] > 1  # one in eight, whatever the category
    np.testing.assert_allclose(attributes.mean(axis=0), 1 / 8, atol=0.01)
    features = space.features(latent)
    scale = [1.0] * 48 + [(1 + k / 8) ** -0.75 for k in range(24)]
    np.testing.assert_allclose(features @ space.rotation, latent * scale, atol=1e-9)
    np.testing.assert_allclose(space.rotation.T @ space.rotation, np.eye(72), atol=1e-9)


def test_explainable_responses_are_a_linear_part_and_a_gate_in_the_planted_shares():
    rng = np.random.default_rng(1)
    space = FeatureSpace(72, rng)
    gates = Gates(space, rng)
    _, latent = space.draw(5000, rng)
    alpha, gate = np.repeat([0.0, 0.3, 0.7, 1.0], 6), np.arange(24) % N_GATES
    y = gates.responses(latent, alpha, gate, rng)
    np.testing.assert_allclose(y.var(axis=0), 1, atol=0.1)
    design = np.column_stack([np.ones(len(latent)), latent])
    residual = left_of(y, design)
    np.testing.assert_allclose(residual.var(axis=0) / y.var(axis=0), alpha, atol=0.04)
    opened = left_of(np.maximum(latent[:, :N_GATES] - 0.6, 0), design)
    for v in range(6, 24):  # what is left is the voxel's gate, and nothing else
        own = opened[:, gate[v]]
        np.testing.assert_allclose(residual[:, v], own * (own @ residual[:, v] / (own @ own)),
                                   atol=1e-8)  # fmt: skip


def test_a_cell_has_its_noise_ceiling(tmp_path):
    data = prepare(cells(), tmp_path)
    voxels = data.voxels
    assert [tuple(row) for row in voxels[["alpha", "noise_ceiling"]].to_numpy()[::12]] == [
        (0.0, 0.2), (0.0, 0.8), (0.5, 0.2), (0.5, 0.8)
    ]  # fmt: skip
    assert voxels["roi"][0] == "alpha 0 ceiling 0.2"
    assert voxels["roi"][47] == "alpha 0.5 ceiling 0.8"
    np.testing.assert_allclose(voxels["ncsnr"] ** 2 / (voxels["ncsnr"] ** 2 + 1),
                               voxels["noise_ceiling"])  # fmt: skip
    assert list(data.stimuli["split"].value_counts()[["train", "val", "test"]]) == [1000, 10, 90]
    x = np.column_stack([np.ones(len(data.features)), data.features]).astype(np.float64)
    y = np.asarray(data.responses, dtype=np.float64)
    residual = left_of(y, x)
    linear = 1 - (residual**2).sum(axis=0) / (len(y) - x.shape[1]) / y.var(axis=0)
    found = linear.reshape(4, 12).mean(axis=1)
    np.testing.assert_allclose(found, [0.2, 0.8, 0.1, 0.4], atol=0.025)
    explained = y.var(axis=0) * voxels["noise_ceiling"]  # the explainable part has variance 1
    np.testing.assert_allclose(explained.to_numpy().reshape(4, 12).mean(axis=1), 1, atol=0.06)


@pytest.mark.parametrize("noise", ["independent", "correlated", "dependent", "heavy"])
def test_noise_has_unit_variance_and_the_named_structure(noise):
    rng = np.random.default_rng(2)
    latent = FeatureSpace(72, rng).draw(3000, rng)[1]
    drawn = cells(noise=noise)._unit_noise(latent, 40, rng)
    assert drawn.shape == (3000, 40)
    standard = stats.t(3, scale=1 / np.sqrt(3)) if noise == "heavy" else stats.norm()
    if noise == "dependent":
        spread = np.exp(0.6 * latent[:, N_GATES])
        drawn = drawn / (spread / np.sqrt(np.mean(spread**2)))[:, None]
    values = drawn if noise != "correlated" else drawn[:, :1]
    assert stats.kstest(values.ravel()[:30_000], standard.cdf).pvalue > 1e-3
    if noise != "heavy":  # whose fourth moment is infinite
        np.testing.assert_allclose(drawn.var(axis=0), 1, atol=0.1)
    r = np.corrcoef(drawn, rowvar=False)[np.triu_indices(40, k=1)]
    # Cosines of random directions in 10 dimensions have mean 0 and variance 1 / 10
    expected = 0.4**2 / 10 if noise == "correlated" else 0
    assert np.mean(r**2) - 1 / 3000 == pytest.approx(expected, abs=0.003)
    assert abs(r).max() < 0.4
    if noise == "correlated":
        eigenvalues = np.linalg.eigvalsh(np.corrcoef(drawn, rowvar=False))
        # 30 directions hold the voxels' own noise alone
        assert eigenvalues[:30].mean() == pytest.approx(0.6, abs=0.03)
        assert eigenvalues[30] > 0.75


def test_repeats_are_averaged_and_kept(tmp_path):
    once, thrice = (prepare(cells(n_repeats=r), tmp_path) for r in (1, 3))
    assert once.repeats is None
    assert "n_repeats" not in once.provenance["settings"]  # folders of earlier versions are found
    ceiling = once.voxels["noise_ceiling"]
    np.testing.assert_allclose(
        thrice.voxels["noise_ceiling"], ceiling / (ceiling + (1 - ceiling) / 3)
    )
    noise = thrice.repeats.noise.sum(axis=0) / 1100  # the variance of the noise in the means
    np.testing.assert_allclose(noise, (1 / ceiling - 1) / 3, rtol=0.1)
