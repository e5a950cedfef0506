"""The nonlinear share against JNE that is a known function of it."""

import numpy as np
import pytest
from scipy.interpolate import interp1d

from jne.analysis.planted_share import N_MATCHED, largest_share, planted_share

SHARES = np.array([0, 0.1, 0.3, 0.6])


def cohort(n=400, noise=0.0, seed=0):
    """Shares, linear power, what was planted, and the function JNE(a, power)."""
    rng = np.random.default_rng(seed)
    power = rng.uniform(0.05, 0.6, n)
    truth = rng.choice([0, 0.1, 0.3, 0.6], n)
    planted = np.minimum(SHARES[:, None], largest_share(power))

    def jne_of(a, power):
        jne = 0.2 + 2 * a * (0.2 + power)
        return jne * (1 + noise * rng.standard_normal(jne.shape))

    truth = np.minimum(truth, largest_share(power))
    return truth, power, planted, jne_of


def test_without_noise_the_share_is_found():
    truth, power, planted, jne_of = cohort(n=4000)
    found, low, high = planted_share(jne_of(truth, power), power, planted, jne_of(planted, power))
    # Twins of like power are not of the same power: 30 of 4,000 span a 130th of its range.
    np.testing.assert_allclose(found, truth, atol=0.015)
    assert ((low <= truth + 0.015) & (truth - 0.015 <= high)).all()
    inside = truth < 0.99 * planted[-1]  # of what was planted
    assert (high - low)[inside].max() < 0.03


def test_it_does_not_depend_on_the_linear_power_and_the_interval_holds_the_truth():
    """JNE alone does depend on it: it is twice as large at the highest power as at the lowest."""
    truth, power, planted, jne_of = cohort(n=4000, noise=0.15)
    found, low, high = planted_share(jne_of(truth, power), power, planted, jne_of(planted, power))
    for a in (0, 0.1, 0.3):
        of_a = truth == a
        weak, strong = of_a & (power < 0.2), of_a & (power > 0.4)
        assert found[weak].mean() == pytest.approx(found[strong].mean(), abs=0.03)
        assert found[of_a].mean() == pytest.approx(a, abs=0.03)
    inside = (low <= truth) & (truth <= high)
    assert 0.85 < inside.mean() < 0.97  # of a 90 % interval


def test_one_voxel_by_hand():
    """Its twins are all there are; piecewise linear curves by scipy."""
    planted = np.array([[0.1, 0.3], [0.3, 0.5], [0.7, 0.5], [1.1, 0.9]])
    shares = np.tile(SHARES[:, None], 2)
    power = np.full(2, 0.2)

    def found(x):
        ends = planted_share(np.array([x, np.nan]), power, shares, planted)
        assert all(np.isnan(end[1]) for end in ends)
        return [end[0] for end in ends]

    # The voxel without a JNE is no twin to learn from: one curve is left
    curve = interp1d(planted[:, 0], SHARES)
    for x in (0.1, 0.2, 0.6, 1.0):
        assert found(x) == pytest.approx([float(curve(x))] * 3)
    assert found(0.0)[0] == pytest.approx(-0.05)  # by the mirror image
    assert found(1.2)[0] == pytest.approx(0.6 + 0.1 * 0.3 / 0.4)
    assert found(9.0) == [0.8, 0.8, 0.8]  # a fifth of all variance is linear
    assert found(0.0)[1:] == [0, 0]


@pytest.mark.parametrize(
    ("planted", "x", "share"),
    [
        ([0.1, 0.1, 0.1, 0.5], 0.2, 0.375),
        ([0.1, 0.1, 0.1, 0.5], 0.4, 0.525),
        ([0.1, 0.5, 0.5, 0.5], 0.2, 0.025),
        ([0.1, 0.5, 0.5, 0.5], 0.4, 0.075),
        ([0.1, 0.1, 0.5, 0.5], 0.3, 0.2),
    ],
)
def test_a_curve_is_read_where_it_rises(planted, x, share):
    """JNE that only large shares change, or that they change no more."""
    (found,), (low,), (high,) = planted_share(
        np.array([x]), np.array([0.2]), SHARES[:, None], np.array(planted)[:, None]
    )
    assert (found, low, high) == pytest.approx((share, share, share))


def test_where_planting_changes_nothing_nothing_is_said():
    n = N_MATCHED
    flat = np.zeros((4, n))
    found, low, high = planted_share(
        np.zeros(n), np.full(n, 0.2), np.tile(SHARES[:, None], n), flat
    )
    assert np.isnan(found).all()
    assert not low.any()
    assert (high == 0.8).all()
    none = np.full(n, np.nan)
    assert np.isnan(planted_share(none, none, np.tile(SHARES[:, None], n), flat)).all()


def test_a_share_takes_no_more_than_the_noise():
    power = np.array([0.05, 0.3, 0.9])
    share = largest_share(power)
    nonlinear_power = power * share / (1 - share)
    np.testing.assert_allclose(nonlinear_power, 0.95 * (1 - power))
