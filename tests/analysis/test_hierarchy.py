"""Tests between regions against brute force and outside libraries."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from jne.analysis import hierarchy

RNG = np.random.default_rng(7)
GROUPS = np.repeat(["a", "b", "c", "d"], [12, 9, 15, 2])
VALUES = RNG.gamma(2.0, size=len(GROUPS)) + np.repeat([0.0, 0.5, 2.0, 9.0], [12, 9, 15, 2])


def test_superiority_counts_pairs_of_voxels():
    table = hierarchy.pairwise(VALUES, GROUPS, ["a", "b", "c", "d"], 0.05)
    assert set(table["greater"]) == {"a", "b", "c"}, "d has two voxels: reported, not tested"
    assert len(table) == 6
    for row in table.itertuples():
        x, y = VALUES[GROUPS == row.greater], VALUES[GROUPS == row.lesser]
        wins = sum((a > b) + 0.5 * (a == b) for a in x for b in y)
        assert row.superiority == pytest.approx(wins / (len(x) * len(y)))


def test_holm_is_step_down():
    table = hierarchy.pairwise(VALUES, GROUPS, ["a", "b", "c"], 0.05)
    order = np.argsort(table["p"].to_numpy())
    adjusted, running = np.empty(len(order)), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * table["p"].iloc[index]))
        adjusted[index] = running
    np.testing.assert_allclose(table["p_holm"], adjusted)
    assert list(table["significant"]) == list(adjusted < 0.05)


def test_mann_whitney_p_is_the_permutation_p():
    x, y = np.array([1.2, 3.4, 2.2]), np.array([0.3, 1.0, 2.0, 0.1])
    table = hierarchy.pairwise(
        np.concatenate([x, y]), np.repeat(["x", "y"], [3, 4]), ["x", "y"], 0.05
    )
    exact = stats.permutation_test(
        (x, y),
        lambda a, b: stats.rankdata(np.concatenate([a, b]))[: len(a)].sum(),
        alternative="greater",
        n_resamples=np.inf,
        vectorized=False,
    )
    found = table[(table["greater"] == "x") & (table["lesser"] == "y")].iloc[0]
    assert found.p == pytest.approx(exact.pvalue)


def test_trend_is_kendalls_tau_b_by_counting():
    tiers = np.repeat(["low", "mid", "high"], [6, 8, 5])
    values = RNG.normal(size=19) + np.repeat([0.0, 1.0, 1.5], [6, 8, 5])
    tau, p = hierarchy.trend(values, tiers, ["low", "mid", "high"])
    rank = np.repeat([0, 1, 2], [6, 8, 5])
    concordance, untied_rank, untied_value = 0, 0, 0
    for i in range(19):
        for j in range(i):
            concordance += np.sign(rank[i] - rank[j]) * np.sign(values[i] - values[j])
            untied_rank += rank[i] != rank[j]
            untied_value += values[i] != values[j]
    assert tau == pytest.approx(concordance / np.sqrt(untied_rank * untied_value))
    assert 0 < p < 0.05
    assert hierarchy.trend(-values, tiers, ["low", "mid", "high"])[1] > 0.95


def test_trend_needs_two_tiers():
    assert np.isnan(hierarchy.trend(VALUES, GROUPS, ["a"])).all()
    assert np.isnan(hierarchy.trend(VALUES, GROUPS, ["a", "d"])).all()


def test_combined_trend_is_stouffers():
    p = np.array([0.01, 0.2, 0.03])
    tau, combined = hierarchy.combined_trend(np.array([0.5, 0.1, 0.3]), p)
    z = stats.norm.isf(p).sum() / np.sqrt(3)
    assert tau == pytest.approx(0.3)
    assert combined == pytest.approx(stats.norm.sf(z))
    assert np.isfinite(hierarchy.combined_trend(np.array([0.9, 0.9]), np.array([0.0, 1e-300]))[1])


def test_paired_difference_is_wilcoxons():
    first, second = RNG.normal(size=25), RNG.normal(0.3, 1, size=25)
    difference, p = hierarchy.paired_difference(first, second)
    assert difference == pytest.approx(np.mean(second) - np.mean(first))
    ranks = stats.rankdata(np.abs(second - first))
    positive = ranks[second > first].sum()
    # All assignments of signs are equally likely: simulate the null distribution of the rank sum.
    signs = np.random.default_rng(0).integers(0, 2, size=(200_000, 25)) @ ranks
    centre = ranks.sum() / 2
    expected = np.mean(np.abs(signs - centre) >= abs(positive - centre))
    assert p == pytest.approx(expected, abs=0.005)
    assert hierarchy.paired_difference(first, first) == (0.0, 1.0)
    assert np.isnan(hierarchy.paired_difference(first[:2], second[:2])[1])


def test_interval_of_a_mean_is_nearly_the_normal_one():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    (table,) = hierarchy.summary(values[None], np.full(400, "a"), ["a"], 2000, 0)
    (row,) = table.itertuples()
    low, high = sm.stats.DescrStatsW(values).zconfint_mean()
    assert row.mean == pytest.approx(values.mean())
    assert row.median == pytest.approx(np.median(values))
    assert row.mean_low == pytest.approx(low, abs=0.03)
    assert row.mean_high == pytest.approx(high, abs=0.03)


@pytest.mark.parametrize("n", [8, 9])
def test_intervals_are_those_of_scipys_bootstrap(n, monkeypatch):
    """Of each measure, also where the resamples are drawn in several blocks."""
    monkeypatch.setattr(hierarchy, "_DRAWS_PER_BLOCK", 1000)
    values = np.random.default_rng(3).gamma(2.0, size=(2, n))
    for sample, table in zip(
        values, hierarchy.summary(values, np.full(n, "a"), ["a"], 20_000, 0), strict=True
    ):
        (row,) = table.itertuples()
        for name, statistic in (("mean", np.mean), ("median", np.median)):
            found = stats.bootstrap(
                (sample,), statistic, n_resamples=20_000, method="percentile", rng=1
            ).confidence_interval
            ends = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            np.testing.assert_allclose(ends, found, atol=0.03 * sample.std())


def test_small_groups_are_reported_without_an_interval():
    (table,) = hierarchy.summary(VALUES[None], GROUPS, ["d", "absent"], 100, 0)
    table = table.set_index("group")
    assert table.loc["d", "n_voxels"] == 2
    assert table.loc["d", "mean"] == pytest.approx(VALUES[GROUPS == "d"].mean())
    assert np.isnan(table.loc["d", "mean_low"])
    assert table.loc["absent", "n_voxels"] == 0
