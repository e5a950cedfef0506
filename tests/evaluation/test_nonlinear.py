"""The section on runs with twins, on runs that were never trained."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from finished_run import CONSTANT, evaluate_config, write_run
from matplotlib import rc_context
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from jne.analysis.hierarchy import trend
from jne.analysis.inference import knockoff_q
from jne.errors import InputError
from jne.evaluation.chosen import chosen_subjects
from jne.evaluation.report import collect_findings, sentences
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.nonlinear import Nonlinear
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.plots.style import STYLE
from jne.results import Results


def write_twins(path, of, **config):
    """A run with twins, made from the plain run `of`: W is positive in EBA, and random elsewhere.

    Twins' outputs are not written; the voxels with R² of a twin therefore have none.
    """
    shutil.copytree(of.path, path)
    rng = np.random.default_rng(1)
    voxels = pd.read_csv(path / "voxels.csv")
    w = np.where(voxels["roi"] == "EBA", 1 + rng.random(15), 0.1 * rng.standard_normal(15))
    voxels["jne_twin"] = voxels["jne"] - w
    voxels["w"] = voxels["jne"] - voxels["jne_twin"]
    voxels["r2_twin"] = np.nan
    voxels.to_csv(path / "voxels.csv", index=False)
    settings = yaml.safe_load((path / "config.yaml").read_text())
    settings |= {"control": {"kind": "twins", "draws": 1, "share": 1.0}} | config
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    return Results(path)


@pytest.fixture
def config(tmp_path):
    return evaluate_config(tmp_path, "variants=[l1]", "inference.q=0.25")


@pytest.fixture
def plain(tmp_path):
    return write_run(tmp_path / "plain")


def test_voxels_and_tables_are_what_w_says(tmp_path, plain, config):
    twins = write_twins(tmp_path / "twins", plain)
    (data,) = voxel_tables(by_subject([twins, plain]), config)
    voxels = data.voxels
    assert data.subject.nonlinear.path == plain.path
    np.testing.assert_allclose(voxels["jne"], plain.voxels["jne"])
    np.testing.assert_allclose(voxels["w"], twins.voxels["w"])
    np.testing.assert_allclose(voxels["q"], knockoff_q(twins.voxels["w"].to_numpy()))
    tested = voxels.drop(index=CONSTANT)
    assert (tested["nonlinear"] == (tested["q"] <= 0.25)).all()
    assert pd.isna(voxels["nonlinear"][CONSTANT])
    assert tested.loc[tested["roi"] == "EBA", "nonlinear"].all()

    tables = Nonlinear().tables(data)
    table = tables["nonlinear"].set_index(["level", "group"])
    ps = []
    for roi, rows in tested.groupby("roi"):
        found = table.loc["roi", roi]
        within = (knockoff_q(rows["w"].to_numpy()) <= 0.25).sum()
        assert (found.n_voxels, found.n_nonlinear) == (len(rows), within)
        interval = proportion_confint(found.n_nonlinear, found.n_voxels, method="wilson")
        assert (found.share_low, found.share_high) == pytest.approx(interval)
        assert found.median_w == rows["w"].median()
        assert found.p == stats.wilcoxon(rows["w"], alternative="greater").pvalue
        ps.append(found.p)
    holm = multipletests(ps, method="holm")[1]
    np.testing.assert_allclose(table.loc["roi"].loc[["EBA", "V1", "V2"], "p_holm"], holm)
    assert table.loc[("brain", "all")].n_voxels == 14
    tau, p = trend(tested["w"].to_numpy(), tested["tier"].to_numpy(), ["PVC", "IVC", "HVC"])
    w = tables["nonlinear_trend"].set_index("measure").loc["w"]
    assert (w.tau, w.p) == (tau, p)
    assert 0 < w.partial_r < 1


@pytest.mark.runs
def test_what_the_reader_is_told(tmp_path, plain, config):
    subjects = voxel_tables(by_subject([plain, write_twins(tmp_path / "twins", plain)]), config)
    (result,) = evaluate_sections([Nonlinear()], subjects)
    n = subjects[0].voxels["nonlinear"].sum()
    (sentence,) = sentences(collect_findings(subjects, [result]))
    assert sentence.startswith(
        f"subj01: {n} of 14 voxels are nonlinear by their twins at a false discovery rate of 25 %; "
        "their share is highest in EBA (100 %)"
    )
    assert result.section.scalars(result.tables) == {"nonlinear_voxels/subj01": n / 14}
    section, tables = result.section, result.by_subject["subj01"]
    assert "given R²" in section.text(subjects[0], tables)
    page_tables = section.page_tables(subjects[0], tables)
    assert [len(table) for table in page_tables.values()] == [7, 2]
    with rc_context(STYLE):
        (figure,) = section.figures(subjects[0], tables).values()
    above, below = figure.axes
    lowest = subjects[0].voxels["w"].min()
    assert above.get_ylim()[0] <= lowest < 0
    heights = [bar.get_height() for bar in below.patches]
    np.testing.assert_allclose(heights, tables["nonlinear"].query("level == 'roi'")["share"])


@pytest.mark.runs
def test_over_subjects_voxels_are_counted_together(tmp_path, plain, config):
    other = write_run(tmp_path / "other", subject="subj02", seed=1)
    twins = [write_twins(tmp_path / f"twins_{run.path.name}", run) for run in (plain, other)]
    subjects = voxel_tables(by_subject([plain, other, *twins]), config)
    (result,) = evaluate_sections([Nonlinear()], subjects)
    table = result.tables["nonlinear"].query("group == 'EBA'").set_index("subject")
    assert table.loc["all", "n_nonlinear"] == 10
    assert table.loc["all", "share"] == 1
    assert result.section.findings_across(subjects, result.tables)[0].startswith("All subjects: ")


def test_without_twins_there_is_one_line(plain, config):
    subjects = voxel_tables(by_subject([plain]), config)
    (result,) = evaluate_sections([Nonlinear()], subjects)
    assert result.tables == {}
    (sentence,) = sentences(collect_findings(subjects, [result]))
    assert "python train.py control=twins" in sentence
    assert result.section.caveats(subjects, {}) == []
    assert "q" not in subjects[0].voxels


@pytest.mark.runs
def test_runs_with_twins_that_do_not_belong(tmp_path, plain):
    twins = write_twins(tmp_path / "twins", plain)
    with pytest.raises(InputError, match="only runs of subj01 with control=twins"):
        by_subject([twins])
    again = write_twins(tmp_path / "again", plain, seed=1)
    with pytest.raises(InputError, match="2 runs with control=twins of subj01; name only one"):
        by_subject([plain, twins, again])
    other = write_twins(tmp_path / "other", plain, readout="trained")
    with pytest.raises(InputError, match="differ in readout"):
        by_subject([plain, other])
    linear = write_twins(tmp_path / "l2", write_run(tmp_path / "l", placement="none"))
    (subject,) = by_subject([plain, twins, linear])
    assert (subject.twins, subject.linear) == (twins, None)


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ({"draws": "many"}, "config.yaml must hold the key control.draws"),
        ({"draws": 10**9}, "config.yaml must hold the key control.draws"),
        ({"draws": 2}, "voxels.csv must hold a column jne_twin_1"),
    ],
)
def test_a_damaged_folder_with_twins_is_one_sentence(tmp_path, plain, control, expected):
    with pytest.raises(InputError, match=expected):
        write_twins(tmp_path / "twins", plain, control={"kind": "twins"} | control)


def test_a_folder_without_the_columns_of_twins_is_one_sentence(plain):
    settings = yaml.safe_load((plain.path / "config.yaml").read_text())
    (plain.path / "config.yaml").write_text(
        yaml.safe_dump(settings | {"control": {"kind": "twins"}})
    )
    with pytest.raises(InputError, match="must hold a column jne_twin"):
        Results(plain.path)


@pytest.mark.runs
def test_the_first_seed_of_twins_that_a_sweep_chose(tmp_path, plain):
    for seed in (0, 1):
        write_twins(tmp_path / f"twins_{seed}", plain, seed=seed)
    pd.DataFrame({"runs": ["plain", "twins_0;twins_1"]}).to_csv(tmp_path / "best.csv")
    (subject,) = chosen_subjects(evaluate_config(tmp_path, f"runs={tmp_path / 'best.csv'}"))
    assert subject.twins.path.name == "twins_0"
