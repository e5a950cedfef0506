"""JNE and JNE-SS against their definitions and closed forms (Gao et al. 2025, 2.4 and A.10)."""

import numpy as np
import pytest

from jne.analysis.nonlinearity import jne, jne_ss, mean_deviation


def test_definitions_voxel_by_voxel():
    s = np.random.default_rng(0).gamma(2.0, size=(37, 5000)).astype(np.float32)
    mu = s.astype(np.float64).mean(axis=0)
    for v in (0, 4095, 4096, 4999):  # both sides of a block's edge
        squares = [(float(value) - mu[v]) ** 2 for value in s[:, v]]
        assert jne(s)[v] == pytest.approx(np.sqrt(sum(squares) / 37), rel=1e-9)
        np.testing.assert_allclose(jne_ss(s)[:, v], squares, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(mean_deviation(s), mu)


def test_mean_of_jne_ss_is_jne_squared():
    s = np.random.default_rng(1).random((50, 20))
    np.testing.assert_allclose(jne_ss(s).mean(axis=0), jne(s) ** 2)


def test_equal_deviations_have_jne_exactly_zero():
    s = np.full((7, 3), 0.1)  # 7 x 0.1 / 7 is not 0.1 in floating point
    assert (jne(s) == 0).all()
    assert (jne_ss(s) == 0).all()
    assert (mean_deviation(s) > 0).all()


def test_nan_stays_with_its_voxel_and_out_is_filled():
    s = np.random.default_rng(2).random((10, 3))
    s[4, 1] = np.nan
    assert np.isnan(jne(s)).tolist() == [False, True, False]
    out = np.zeros_like(s)
    assert jne_ss(s, out=out) is out
    assert np.isnan(out[:, 1]).all()


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2), dtype=int)])
def test_other_shapes_are_refused(bad):
    with pytest.raises(ValueError, match="n_stimuli, n_voxels"):
        jne(bad)
