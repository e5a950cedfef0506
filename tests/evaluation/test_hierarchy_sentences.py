"""Which pairs of regions are tested, and what is said of the regions and tiers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jne.evaluation.sections import hierarchy

ROIS = ["V1", "V2", "EBA"]


@pytest.mark.parametrize(
    ("most_all", "most", "tested"),
    [(3, 3, {"jne", "mean_deviation"}), (2, 3, {"jne"}), (2, 2, set())],
)
def test_of_many_regions_the_pairs_are_tested_for_jne_alone_or_not_and_tiers_always(
    monkeypatch, most_all, most, tested
):
    monkeypatch.setattr(hierarchy, "_MAX_PAIRED_ALL", most_all)
    monkeypatch.setattr(hierarchy, "_MAX_PAIRED", most)
    monkeypatch.setattr(
        hierarchy.hierarchy, "pairwise",
        lambda values, groups, order, alpha: pd.DataFrame({"greater": order}),
    )  # fmt: skip
    voxels = pd.DataFrame({"roi": np.repeat(ROIS, 5), "tier": np.repeat(["PVC", "IVC", "HVC"], 5)})
    voxels["jne"] = voxels["mean_deviation"] = 1.0
    data = SimpleNamespace(
        analysed=voxels, rois=ROIS, measures=["jne", "mean_deviation"],
        config=SimpleNamespace(stats=SimpleNamespace(alpha=0.05)),
    )  # fmt: skip
    table = hierarchy._pairwise(data)
    counts = table.groupby(["level", "measure"]).size()
    assert set(counts) == {3}
    expected = {("roi", name) for name in tested} | {("tier", name) for name in data.measures}
    assert set(counts.index) == expected


def test_the_regions_with_the_highest_and_the_lowest_median_are_named():
    table = pd.DataFrame({
        "level": ["roi"] * 4 + ["tier"] * 2 + ["roi"],
        "measure": ["jne"] * 6 + ["mean_deviation"],
        "group": ["V1", "V2", "EBA", "RSC", "PVC", "HVC", "V1"],
        "n_voxels": [9, 8, 7, 0, 9, 8, 9],
        "mean": [3.0, 1.0, 2.0, np.nan, 9.0, -9.0, 9.0],
        "median": [1.234, 0.5, 2.5, np.nan, 9.0, -9.0, 9.0],
    })  # fmt: skip
    found = hierarchy._extremes({"hierarchy": table})
    assert found == "; the median is highest in EBA (2.50) and lowest in V2 (0.50)"
    assert hierarchy._extremes({"hierarchy": table.iloc[[0, 3, 4, 5, 6]]}) == ""


def test_the_significant_steps_from_tier_to_tier_are_named():
    steps = [("IVC", "PVC", True), ("HVC", "IVC", False), ("PVC", "IVC", False),
             ("HVC", "PVC", True), ("IVC", "HVC", True)]  # fmt: skip
    table = pd.DataFrame(steps, columns=["greater", "lesser", "significant"])
    table = table.assign(level="tier", measure="jne")
    found = hierarchy._significant_steps(table)
    assert found == "; significant steps: PVC < IVC, PVC < HVC"
    assert hierarchy._significant_steps(table.iloc[3:]) == "; significant steps: PVC < HVC"
    for change in ({"measure": "mean_deviation"}, {"level": "roi"}, {"significant": False}):
        assert hierarchy._significant_steps(table.assign(**change)) == ""
