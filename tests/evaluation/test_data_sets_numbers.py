"""The numbers across data sets, against plain loops, pandas and SciPy."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from region_evidence import region_evidence, simulated
from scipy import stats

from jne.analysis.random_effects import random_effects_mean
from jne.evaluation.sections.base import concat_subjects
from jne.evaluation.sections.data_sets import DataSets, _by_own_tier, _by_tier

AREAS = ["V1", "V2", "V3", "V4", "FFC", "PIT", "MT", "V8", "LO1",
         "LO2", "LO3", "VVC", "IPS1", "V3A"]  # fmt: skip
TIER = {"V1": "PVC", "V2": "IVC", "V3": "IVC", "V4": "IVC", "FFC": "HVC", "MT": "HVC"}
COLUMN = {"jne": "jne", "r2": "r2_nonlinear"}


def subject(name, data_set, seed, lacking):
    """Five voxels in each area, two in one of them, none in some; on fs_LR but for a few."""
    rng = np.random.default_rng(seed)
    area = np.repeat([area for area in AREAS if area not in lacking], 5)
    area = np.r_[area[:-3], ["", "", ""]]  # two voxels are left of the last area
    n = len(area)
    level = np.array([AREAS.index(name) if name else 0 for name in area])
    voxels = pd.DataFrame({"HCP_MMP1": area, "roi": area, "hemisphere": "left", "mesh": "fsLR"})
    voxels["vertex"] = rng.permutation(80)[:n]
    voxels["tier"] = [TIER.get(name, "") for name in area]
    voxels.loc[:3, "mesh"] = "fsaverage"
    voxels.loc[4:20, "hemisphere"] = "right"
    voxels["jne"] = level + 2 * rng.standard_normal(n)
    voxels["r2_nonlinear"] = -level + 4 * rng.standard_normal(n)
    voxels["analysed"] = voxels.index % 9 != 8
    arrays = simulated(np.full(n, 0.2 + 0.3 * rng.random()), seed, 60)
    return SimpleNamespace(
        name=f"{data_set} {name}", voxels=voxels, analysed=voxels[voxels["analysed"]],
        subject=SimpleNamespace(
            data_set=data_set, nonlinear=SimpleNamespace(region_shares=None)
        ),
        rois=sorted(set(area) - {""}), evidence=region_evidence(arrays, area).regions,
    )  # fmt: skip


@pytest.fixture(scope="module")
def subjects():
    return [
        subject("s1", "a", 1, []), subject("s1", "b", 2, ["V3"]), subject("s2", "a", 3, ["MT"]),
        subject("s2", "b", 4, []), subject("s1", "c", 5, ["V8"]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def areas(subjects):
    return concat_subjects({data.name: DataSets().tables(data)["areas"] for data in subjects})


@pytest.fixture(scope="module")
def tables(subjects, areas):
    return DataSets().tables_across(subjects, {"areas": areas})


@pytest.fixture(scope="module")
def profiles(subjects):
    """By subject and measure: means over the areas with at least three analysed voxels."""
    found = {}
    for data in subjects:
        grouped = data.analysed.groupby("HCP_MMP1")
        means, count = grouped[list(COLUMN.values())].mean(), grouped.size()
        for measure, column in COLUMN.items():
            found[data.name, measure] = means.loc[(count >= 3) & (count.index != ""), column]
    return found


def ranks(values):
    """From 0 to 1."""
    return {area: (values < value).sum() / (len(values) - 1) for area, value in values.items()}


def mean_of(tables):
    """Mean over those that have an area, as a series."""
    return pd.DataFrame(tables).mean()


def vertices(data, column):
    """The values of the analysed voxels on fs_LR, by hemisphere and vertex."""
    rows = data.analysed[["mesh", "hemisphere", "vertex", column]].itertuples(index=False)
    return {(h, v): value for mesh, h, v, value in rows if mesh == "fsLR" and np.isfinite(value)}


def test_agreement_of_each_pair(subjects, profiles, tables):
    by_name = {data.name: data for data in subjects}
    table = tables["agreement"].set_index(["measure", "subject_1", "subject_2"])
    assert len(table) == 2 * 10
    assert list(table.index[:2]) == [("jne", "a s1", "a s2"), ("jne", "a s1", "b s1")]
    for (measure, one, other), row in table.iterrows():
        first, second = by_name[one], by_name[other]
        assert (row["data_set_1"], row["data_set_2"]) == (one[0], other[0])
        x, y = (dict(profiles[data.name, measure]) for data in (first, second))
        common = sorted(x.keys() & y.keys())
        assert row["n_areas"] == len(common)
        rho = stats.spearmanr([x[a] for a in common], [y[a] for a in common]).statistic
        assert row["rho"] == pytest.approx(rho)
        x, y = (vertices(data, COLUMN[measure]) for data in (first, second))
        common = sorted(x.keys() & y.keys())
        assert row["n_vertices"] == len(common) > 5
        rho = stats.spearmanr([x[a] for a in common], [y[a] for a in common]).statistic
        assert row["rho_vertices"] == pytest.approx(rho)


def test_each_data_set_left_out(subjects, profiles, tables):
    table = tables["left_out"].set_index(["measure", "left_out"])
    assert len(table) == 3 * len(COLUMN)
    mean_ranks = {
        (measure, name): mean_of(
            [ranks(profiles[d.name, measure]) for d in subjects if d.subject.data_set == name]
        )
        for measure in COLUMN
        for name in "abc"
    }
    taus = {}
    for data in subjects:
        for measure, column in COLUMN.items():
            tier = data.analysed["HCP_MMP1"].map(TIER).map({"PVC": 0, "IVC": 1, "HVC": 2})
            both = pd.DataFrame({"tier": tier, "value": data.analysed[column]}).dropna()
            taus[data.name, measure] = stats.kendalltau(both["tier"], both["value"]).statistic
    for (measure, name), row in table.iterrows():
        pair = {}
        for of in (measure, "r2"):
            rest = mean_of([mean_ranks[of, other] for other in "abc" if other != name])
            pair[of] = pd.DataFrame({"own": mean_ranks[of, name], "others": rest}).dropna()
        own, others = pair[measure]["own"], pair[measure]["others"]
        assert row["n_areas"] == len(own)
        assert row["n_subjects"] == {"a": 2, "b": 2, "c": 1}[name]
        assert row["rho"] == pytest.approx(stats.spearmanr(own, others).statistic)
        if measure == "r2":
            assert np.isnan(row["rho_given_r2"])
        else:  # a partial correlation is one of the inverse of the correlation matrix
            four = pd.concat([pair[measure], pair["r2"]], axis=1).rank()
            inverse = np.linalg.inv(np.corrcoef(four.T))
            partial = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
            assert row["rho_given_r2"] == pytest.approx(partial)
        for column, inside in (("tau", True), ("tau_others", False)):
            each = [
                taus[d.name, measure] for d in subjects if (d.subject.data_set == name) == inside
            ]
            assert row[column] == pytest.approx(np.mean(each))


def test_tiers_relative_to_their_mean(subjects, areas):
    names = [data.name for data in subjects]
    found = _by_tier(areas, names)
    assert list(found.columns) == ["PVC", "IVC", "HVC"]
    for data in subjects:
        means = data.analysed.groupby(data.analysed["HCP_MMP1"].map(TIER))["jne"].mean()
        for tier, mean in means.items():
            assert found.loc[data.name, tier] == pytest.approx(mean / means.mean())
    few = areas[(areas["tier"] != "PVC") | (areas["subject"] != names[0])].copy()
    assert np.isnan(_by_tier(few, names).loc[names[0], "PVC"])
    few = pd.concat([few, areas[(areas["subject"] == names[0]) & (areas["area"] == "V1")].assign(
        n_voxels=2)])  # fmt: skip
    assert np.isnan(_by_tier(few, names).loc[names[0], "PVC"]), "too few voxels"


def test_what_is_said_of_the_averages(subjects, tables, monkeypatch):
    monkeypatch.setattr("jne.evaluation.sections.data_sets.unclaimed_across", lambda *_: [])
    pairs = tables["agreement"].query("measure == 'jne'")
    same = pairs["subject_1"].str[0] == pairs["subject_2"].str[0]
    out = tables["left_out"].query("measure == 'jne'")
    assert DataSets().findings_across(subjects, tables) == [
        f"Between subjects of different data sets, JNE by area of HCP_MMP1 correlates at "
        f"{pairs['rho'][~same].mean():.2f} on average (within a data set "
        f"{pairs['rho'][same].mean():.2f}) (Spearman).",
        f"Left out one by one, data sets correlate with the others at {min(out['rho']):.2f} to "
        f"{max(out['rho']):.2f}, above 0 in {sum(out['rho'] > 0)} of 3; it rises from tier to tier "
        f"in {sum(out['tau'] > 0)} of 3.",
    ]
    assert DataSets().scalars(tables) == {
        f"left_out_rho/{name}": rho for name, rho in zip("abc", out["rho"], strict=True)
    }


def test_regions_by_data_set(subjects, tables):
    """A mean over voxels, then over subjects, of what at least two data sets have."""
    table = tables["regions_by_data_set"].set_index(["level", "group", "data_set"])
    assert ("roi", "", "a") not in table.index
    expected = {}
    for level in ("tier", "roi"):
        for data in subjects:
            for group in set(data.analysed[level]) - {""}:
                some = data.analysed[data.analysed[level] == group]
                if len(some) >= 3:
                    key = level, group, data.subject.data_set
                    expected.setdefault(key, []).append([some[c].mean() for c in COLUMN.values()])
    several = {key for key in expected if sum(k[:2] == key[:2] for k in expected) > 1}
    assert set(table.index) == several
    for key in several:
        assert table.loc[key, "n_subjects"] == len(expected[key])
        values = np.array(expected[key])
        np.testing.assert_allclose(table.loc[key, list(COLUMN)], values.mean(axis=0))
        half = np.full(len(COLUMN), np.nan)
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values, axis=0)
        for end, sign in (("_low", -1), ("_high", 1)):
            actual = table.loc[key, [name + end for name in COLUMN]].astype(float)
            np.testing.assert_allclose(actual, values.mean(axis=0) + sign * half, rtol=1e-4)
    groups = list(tables["regions_by_data_set"]["group"].drop_duplicates())
    assert groups[:7] == ["PVC", "IVC", "HVC", "V1", "V2", "V3", "V4"]


def test_the_shares_of_regions_are_random_effects_means(subjects, tables):
    table = tables["regions_by_data_set"].set_index(["level", "group", "data_set"])
    for level, group, rois in (("tier", "IVC", ["V2", "V3", "V4"]), ("roi", "V1", ["V1"])):
        each = pd.concat([data.evidence.table({group: rois}) for data in subjects])
        of_a = each.iloc[[data.subject.data_set == "a" for data in subjects]]
        low, high = of_a["validated_share_low"], of_a["validated_share_high"]
        errors = (high - low).to_numpy() / (2 * stats.norm.ppf(0.975))
        expected = random_effects_mean(of_a["validated_share"].to_numpy(), errors)
        columns = ["validated_share", "validated_share_low", "validated_share_high"]
        np.testing.assert_allclose(table.loc[(level, group, "a"), columns].astype(float), expected)
        assert np.isnan(table.loc[(level, group, "c"), "validated_share_low"])  # a single subject
    assert "nonlinear_share" not in table  # no subject has it


def test_data_sets_without_areas_have_regions_and_a_figure_of_tiers(subjects):
    without = [
        SimpleNamespace(
            name=data.name, subject=data.subject,
            voxels=data.voxels.drop(columns="HCP_MMP1"),
            analysed=data.analysed.drop(columns="HCP_MMP1"),
            evidence=None, rois=data.rois,
        )
        for data in subjects
    ]  # fmt: skip
    tables = DataSets().tables_across(without, {})
    assert list(tables) == ["regions_by_data_set"]
    assert list(DataSets().figures_across(without, tables)) == ["tiers"]
    by_tier = _by_own_tier(without)
    jne = without[0].analysed.groupby("tier")["jne"].mean()[["PVC", "IVC", "HVC"]]
    np.testing.assert_allclose(by_tier.iloc[0], jne / jne.mean())
    assert "functional regions of each person" in DataSets().caveats(without, tables)[0]
    alone = without[:1]
    assert DataSets().tables_across(alone, {}) == {}
    assert DataSets().figures_across(alone, {}) == {}
