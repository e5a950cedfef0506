"""What the synthetic cohort promises."""

import numpy as np
import pytest
from data_sources import synthetic

from jne.data.synthetic import CATEGORIES
from jne.roi import ROIS


def test_alpha_is_the_share_that_no_linear_fit_reaches(tmp_path):
    """Without noise, 1 - R2 of a linear regression on many stimuli is the planted alpha."""
    data = synthetic(tmp_path, n_train=6000, noise_ceiling=0.949, n_repeats=2, voxels_per_roi=6)
    x = np.column_stack([np.ones(len(data.features)), data.features]).astype(np.float64)
    y = np.asarray(data.responses[:], dtype=np.float64)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    degrees = len(y) - x.shape[1]
    unexplained = (residual**2).sum(axis=0) / degrees / y.var(axis=0)
    ceiling = data.voxels["noise_ceiling"].to_numpy()
    alpha = (unexplained - (1 - ceiling)) / ceiling
    np.testing.assert_allclose(alpha, data.voxels["alpha"], atol=0.06)
    assert np.corrcoef(alpha, data.voxels["alpha"])[0, 1] > 0.99


def test_noise_ceiling_lies_around_the_planted_one(tmp_path):
    ceiling = synthetic(tmp_path, voxels_per_roi=30).voxels["noise_ceiling"]
    assert ceiling.mean() == pytest.approx(0.7, abs=0.02)
    assert ceiling.between(0.6, 0.8).all()


def test_subjects_share_the_test_stimuli_and_differ_elsewhere(tmp_path):
    first, second = synthetic(tmp_path), synthetic(tmp_path, "subj02")
    test = first.rows("test")
    np.testing.assert_array_equal(first.features[test], second.features[test])
    assert not np.allclose(first.features[:20], second.features[:20])
    assert not np.allclose(first.responses[test], second.responses[test])
    assert first.stimuli["stimulus"][test].tolist() == second.stimuli["stimulus"][test].tolist()


def test_the_cohort_has_the_papers_shape(tmp_path):
    data = synthetic(tmp_path)
    assert data.features.shape == (1560, 80)
    assert list(dict.fromkeys(data.voxels["roi"])) == list(ROIS)
    assert set(data.stimuli["category"]) == set(CATEGORIES)
    means = data.voxels.groupby("roi", sort=False)["alpha"].mean()
    assert means["V1"] == 0
    about = np.repeat(np.linspace(0, 0.72, 10), 4)  # docs/data.md; voxels lie within .04 of it
    assert 0.03 < (data.voxels["alpha"] - about).abs().max() <= 0.04
    spectrum = np.linalg.svd(data.features - data.features.mean(axis=0), compute_uv=False)
    assert spectrum[0] > 3 * spectrum[-1]
