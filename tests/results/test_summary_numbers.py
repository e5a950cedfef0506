"""The means by ROI and the scalars of a run, against plain pandas and the definitions."""

import numpy as np
import pandas as pd
import pytest

from jne.results.contents import roi_table, summarise, twin_q, voxel_table

AVERAGED = [
    "r2", "r2_ridge", "r2_kernel", "jne", "jne_calibrated", "jne_twin", "w", "mean_deviation",
]  # fmt: skip


def table_of(n_draws, n=60):
    """Random voxels in three ROIs and none, of which some have no scores, JNE or twin."""
    rng = np.random.default_rng(n_draws)
    names = ("r2", "p", "p_fdr", "r2_ridge", "r2_kernel", "jne", "mean_deviation", "jne_ss_p95",
             "jne_calibrated", "nonlinear_p_fdr")  # fmt: skip
    voxels = pd.DataFrame({name: rng.random(n) for name in (*names, "r2_twin")})
    voxels["jne"] += 0.2
    voxels.insert(0, "roi", rng.choice(["V1", "V2", "EBA", ""], n))
    voxels["status"] = np.where(np.arange(n) < 4, "constant", "ok")
    voxels.loc[4:5, "status"] = "missing"
    twins = rng.random((n_draws, n)) * rng.choice([0.1, 0.5, 1], n)
    voxels["jne_twin"] = twins.mean(axis=0)
    if n_draws > 1:
        voxels[[f"jne_twin_{k + 1}" for k in range(n_draws)]] = twins.T
    voxels["w"] = voxels["jne"] - voxels["jne_twin"]
    voxels.loc[:5, [*names, "r2_twin", "jne_twin", "w"]] = np.nan
    voxels.loc[6:9, ["jne", "jne_twin", "w", "mean_deviation", "jne_ss_p95"]] = np.nan
    return voxels


def brute_q(voxels, n_draws):
    """The smallest rate at which each voxel is found, by the formula of Barber & Candes."""
    names = [f"jne_twin_{k + 1}" for k in range(n_draws)] if n_draws > 1 else ["jne_twin"]
    twins, jne = voxels[names].to_numpy(), voxels["jne"].to_numpy()
    w = np.full(len(voxels), np.nan)
    for v in range(len(voxels)):
        values = sorted([jne[v], *twins[v]])
        sign = np.sign(jne[v] - max(twins[v]))
        w[v] = (values[-1] - np.median(values[:-1])) * sign
    w[np.isnan(jne)] = np.nan
    q = np.where(np.isnan(w), np.nan, 1.0)
    for t in np.abs(w[np.isfinite(w) & (w != 0)]):
        ratio = (1 + (w <= -t).sum()) / (n_draws * max((w >= t).sum(), 1))
        q[w >= t] = np.minimum(q[w >= t], ratio)
    return q


@pytest.mark.parametrize("n_draws", [1, 3])
def test_means_by_roi_and_the_share_of_nonlinear_voxels(n_draws):
    voxels = table_of(n_draws)
    np.testing.assert_allclose(twin_q(voxels), brute_q(voxels, n_draws))
    table = roi_table(voxels)
    assert list(table["roi"]) == ["V1", "V2", "EBA", "all"]
    assert list(table) == [
        "roi",
        "n_voxels",
        *AVERAGED,
        "jne_ss_mean",
        "nonlinear",
        "nonlinear_by_twins",
    ]
    for row in table.to_dict("records"):
        chosen = voxels if row["roi"] == "all" else voxels[voxels["roi"] == row["roi"]]
        assert row["n_voxels"] == len(chosen)
        for name in AVERAGED:
            assert row[name] == pytest.approx(chosen[name].mean()), name
        assert row["jne_ss_mean"] == pytest.approx((chosen["jne"] ** 2).mean())
        q = brute_q(chosen, n_draws)
        assert row["nonlinear_by_twins"] == (q <= 0.1).sum() / np.isfinite(q).sum()
        assert row["nonlinear"] == (chosen["nonlinear_p_fdr"].dropna() <= 0.1).mean()
    assert 0 < table["nonlinear"].iloc[-1] < 1
    assert 0 < table["nonlinear_by_twins"].iloc[-1] < 1


@pytest.mark.parametrize("n_draws", [1, 3])
def test_the_scalars_of_a_run(n_draws):
    voxels = table_of(n_draws)
    voxels.loc[20, "p_fdr"] = 0.3
    summary = summarise(voxels, alpha=0.3)
    r2, jne, w = (voxels[name].dropna().to_numpy() for name in ("r2", "jne", "w"))
    expected = {
        "r2/mean": r2.mean(), "r2/median": np.median(r2), "r2/max": r2.max(),
        "r2/significant_share": (voxels["p_fdr"].dropna() < 0.3).mean(),
        "r2/above_ridge": np.nanmean(voxels["r2"] - voxels["r2_ridge"]),
        "r2_ridge/mean": np.nanmean(voxels["r2_ridge"]),
        "r2_kernel/mean": np.nanmean(voxels["r2_kernel"]),
        "jne/mean": jne.mean(), "jne/median": np.median(jne),
        "jne_ss/mean": (jne**2).mean(), "jne_ss/p95": np.nanmean(voxels["jne_ss_p95"]),
        "mean_deviation/mean": np.nanmean(voxels["mean_deviation"]),
        "jne_calibrated/mean": np.nanmean(voxels["jne_calibrated"]),
        "nonlinear/all": (voxels["nonlinear_p_fdr"].dropna() <= 0.1).mean(),
        "w/mean": w.mean(), "w/median": np.median(w), "w/positive_share": (w > 0).mean(),
    }  # fmt: skip
    q = brute_q(voxels, n_draws)
    for percent in (5, 10, 20):
        expected[f"w/nonlinear_at_q{percent:02}"] = (q <= percent / 100).sum()
    for roi, rows in voxels[voxels["roi"] != ""].groupby("roi"):
        expected |= {f"{name}/{roi}": rows[name].mean() for name in AVERAGED}
        expected[f"jne_ss/{roi}"] = (rows["jne"] ** 2).mean()
        expected[f"nonlinear/{roi}"] = (rows["nonlinear_p_fdr"].dropna() <= 0.1).mean()
    assert summary["metrics"].keys() == expected.keys()
    for name, value in expected.items():
        assert summary["metrics"][name] == pytest.approx(value), name
    assert summary["voxels"] == {
        "all": 60, "scored": 54, "measured": 50, "constant": 4, "missing": 2,
    }  # fmt: skip


def test_a_run_that_left_no_voxel_out_counts_none():
    voxels = table_of(1).iloc[10:]
    assert summarise(voxels, 0.05)["voxels"] == {
        "all": 50, "scored": 50, "measured": 50, "constant": 0, "missing": 0,
    }  # fmt: skip


def test_of_many_regions_those_of_the_paper_are_metrics():
    voxels = table_of(1)
    for n, expected in ((12, 12), (13, 0)):
        voxels["roi"] = [f"area{k % n:02}" for k in range(len(voxels))]
        metrics = summarise(voxels, 0.05)["metrics"]
        assert sum(name.startswith("jne/area") for name in metrics) == expected
    voxels.loc[:20, "roi"] = "V1"
    assert "jne/V1" in summarise(voxels, 0.05)["metrics"]


def test_scores_are_those_of_the_voxels_that_were_trained_on():
    given = pd.DataFrame({"voxel": range(4), "roi": ""})
    status = np.array(["ok", "constant", "ok", "ok"])
    kept, jne = np.array([0, 2, 3]), np.array([9.0, np.nan, 7, 6])
    table = voxel_table(given, status, kept, {"r2": np.array([1.0, 2, 3])}, {"jne": jne})
    assert list(table) == ["voxel", "roi", "status", "r2", "jne"]
    np.testing.assert_array_equal(table["r2"], [1, np.nan, 2, 3])
    np.testing.assert_array_equal(table["jne"], jne)
    np.testing.assert_array_equal(table["status"], status)
