"""The means by ROI and the scalars of a run, against plain pandas and the definitions."""

import numpy as np
import pandas as pd
import pytest

from jne.results.contents import roi_table, summarise, voxel_table

AVERAGED = ["r2", "r2_ridge", "r2_kernel", "jne", "jne_calibrated", "mean_deviation"]


def table_of(n=60):
    """Random voxels in three ROIs and none, of which some have no scores or JNE."""
    rng = np.random.default_rng(1)
    names = ("r2", "p", "p_fdr", "r2_ridge", "r2_kernel", "jne", "mean_deviation", "jne_ss_p95",
             "jne_calibrated", "nonlinear_p_fdr")  # fmt: skip
    voxels = pd.DataFrame({name: rng.random(n) for name in names})
    voxels["jne"] += 0.2
    voxels.insert(0, "roi", rng.choice(["V1", "V2", "EBA", ""], n))
    voxels["status"] = np.where(np.arange(n) < 4, "constant", "ok")
    voxels.loc[4:5, "status"] = "missing"
    voxels.loc[:5, [*names]] = np.nan
    voxels.loc[6:9, ["jne", "mean_deviation", "jne_ss_p95"]] = np.nan
    return voxels


def test_means_by_roi_and_the_share_of_nonlinear_voxels():
    voxels = table_of()
    table = roi_table(voxels)
    assert list(table["roi"]) == ["V1", "V2", "EBA", "all"]
    assert list(table) == [
        "roi",
        "n_voxels",
        *AVERAGED,
        "jne_ss_mean",
        "nonlinear",
    ]
    for row in table.to_dict("records"):
        chosen = voxels if row["roi"] == "all" else voxels[voxels["roi"] == row["roi"]]
        assert row["n_voxels"] == len(chosen)
        for name in AVERAGED:
            assert row[name] == pytest.approx(chosen[name].mean()), name
        assert row["jne_ss_mean"] == pytest.approx((chosen["jne"] ** 2).mean())
        assert row["nonlinear"] == (chosen["nonlinear_p_fdr"].dropna() <= 0.1).mean()
    assert 0 < table["nonlinear"].iloc[-1] < 1


def test_the_scalars_of_a_run():
    voxels = table_of()
    voxels.loc[20, "p_fdr"] = 0.3
    summary = summarise(voxels, alpha=0.3)
    r2, jne = (voxels[name].dropna().to_numpy() for name in ("r2", "jne"))
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
    }  # fmt: skip
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
    voxels = table_of().iloc[10:]
    assert summarise(voxels, 0.05)["voxels"] == {
        "all": 50, "scored": 50, "measured": 50, "constant": 0, "missing": 0,
    }  # fmt: skip


def test_of_many_regions_those_of_the_paper_are_metrics():
    voxels = table_of()
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
