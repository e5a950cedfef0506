"""Which regions a report is on and shows, and their means over subjects."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jne.evaluation.sections.summary import _over_subjects
from jne.evaluation.voxels import SubjectData, _strongest


def test_of_more_than_a_thousand_regions_those_with_the_highest_median_are_reported():
    names = ["V1", *(f"r{k:04d}" for k in range(1001))]
    values = np.random.default_rng(0).permutation(1001).astype(float)
    jne = np.r_[[-1.0] * 3, np.repeat(values, 3)]  # the paper's regions are reported all the same
    jne[5::3] += 5000.0  # one voxel of three: the mean, but not the median
    voxels = pd.DataFrame({"roi": np.repeat(names, 3), "jne": jne})
    run = SimpleNamespace(path="run", voxels=voxels)
    assert _strongest(run, names[:1000]) == names[:1000]
    lowest = {f"r{k:04d}" for k in np.argsort(values)[:2]}
    assert _strongest(run, names) == [name for name in names if name not in lowest]


def test_of_many_regions_figures_show_those_with_the_highest_median_of_enough_voxels():
    rng = np.random.default_rng(1)
    rois = [f"r{k:02d}" for k in range(30)]
    voxels = pd.DataFrame({"roi": np.repeat(rois, 4), "analysed": True, "jne": rng.random(120)})
    voxels.loc[3::4, "jne"] += 100 * rng.random(30)  # one voxel of four: for means alone
    voxels.loc[[0, 1, 4], "analysed"] = False  # r00 has two voxels left, r01 three
    voxels.loc[[2, 3, 5, 6, 7], "jne"] = 500.0
    medians = {
        roi: np.median(rows["jne"])
        for roi, rows in voxels[voxels["analysed"]].groupby("roi")
        if roi != "r00"
    }
    data = SubjectData(None, None, voxels, rois, None)
    assert data.shown_rois == sorted(medians, key=medians.get, reverse=True)[:24]
    assert data.shown_rois[0] == "r01"
    assert SubjectData(None, None, voxels, rois[:24], None).shown_rois == rois[:24]


def test_means_and_spread_over_subjects():
    rng = np.random.default_rng(2)
    table = pd.DataFrame({
        "subject": np.repeat(["a", "b", "c"], 3), "roi": ["all", "V1", "V2"] * 3,
        "tier": ["", "PVC", "IVC"] * 3, "n_voxels": rng.integers(5, 50, 9),
        "n_analysed": rng.integers(1, 5, 9),
    })  # fmt: skip
    for name in ("jne", "share", "noise_ceiling", "r2_nonlinear"):
        table[name] = rng.random(9)
    found = _over_subjects(table).set_index("roi")
    assert list(found.index) == ["all", "V1", "V2"]
    values = table["jne"].to_numpy().reshape(3, 3)
    for k, roi in enumerate(found.index):
        rows, row = table.iloc[k::3], found.loc[roi]
        for name in ("jne", "share", "noise_ceiling", "r2_nonlinear"):
            assert row[name] == pytest.approx(np.mean(rows[name]))
        assert row["sd"] == pytest.approx(np.std(values[:, k], ddof=1))
        assert (row["n_voxels"], row["n_analysed"]) == (
            sum(rows["n_voxels"]), sum(rows["n_analysed"]))  # fmt: skip
        assert (row["n_subjects"], row["tier"]) == (3, rows["tier"].iloc[0])
        above = sum(values[:, k] > values[:, 0])
        assert np.isnan(row["n_above"]) if roi == "all" else row["n_above"] == above
