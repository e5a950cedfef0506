"""The section on planted twins, on runs that were never trained."""

import numpy as np
import pandas as pd
import pytest
from finished_run import CONSTANT, evaluate_config, write_run
from matplotlib import rc_context
from scipy import stats
from test_nonlinear import write_twins

from jne.evaluation.report import collect_findings
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.planted import Planted
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import _against_planted_twins, voxel_tables
from jne.plots.style import STYLE
from jne.results import Results


def write_planted(path, of):
    """A run with planted twins: W of the linear twins' encoder is 1 in EBA and small elsewhere."""
    run = write_twins(path, of)
    voxels = run.voxels
    rng = np.random.default_rng(2)
    linear = 0.1 * rng.random(15)
    w = np.where(voxels["roi"] == "EBA", 1.0, 0.01 * rng.standard_normal(15))
    share = np.where(voxels["roi"] == "EBA", 0.5, 0.1) + 0.01 * rng.standard_normal(15)
    voxels = voxels.assign(
        linear_power=0.2,
        jne_planted_fit=linear + w,
        jne_planted_0=linear,
        jne_planted_10=linear + np.where(np.arange(15) % 2, 2.0, 0.5),
        jne_planted_60=linear + 3,
        planted_share=share,
        planted_share_low=share - 0.1,
        planted_share_high=share + 0.1,
    )
    columns = voxels.columns[voxels.columns.get_loc("linear_power") :]
    voxels.loc[CONSTANT, columns] = np.nan
    voxels.to_csv(path / "voxels.csv", index=False)
    return Results(path)


@pytest.fixture
def data(tmp_path):
    plain = write_run(tmp_path / "plain")
    config = evaluate_config(tmp_path, "variants=[l1]", "inference.q=0.25")
    return voxel_tables(by_subject([plain, write_planted(tmp_path / "twins", plain)]), config)


def test_the_table_has_the_shares_and_the_power(data):
    (subject,) = data
    table = Planted().tables(subject)["planted"].set_index("group")
    voxels = subject.voxels.drop(index=CONSTANT)
    for roi, rows in voxels.groupby("roi"):
        shares = rows["planted_share"]
        found = table.loc[roi]
        assert found.n_voxels == len(rows)
        assert found.mean_share == pytest.approx(shares.mean())
        low, high = stats.norm.interval(0.95, shares.mean(), stats.sem(shares))
        assert (found.mean_low, found.mean_high) == pytest.approx((low, high), abs=1e-4)
        assert found["found_60"] == 1
    at_threshold = voxels["found_10"].astype(bool)
    assert at_threshold[voxels.index % 2 == 1].all()
    hvc = voxels.loc[voxels["tier"] == "HVC", "planted_share"]
    assert table.loc["HVC", "mean_share"] == pytest.approx(hvc.mean())
    assert table.loc["all", "found_10"] == pytest.approx(at_threshold.mean())


def test_two_voxels_have_an_interval_and_one_has_none(data):
    (subject,) = data
    subject.voxels["analysed"] &= ~subject.voxels.index.isin([0, 1, 5, 6, 7, 8])
    table = Planted().tables(subject)["planted"].set_index("group")
    first, second = subject.voxels.loc[[2, 3], "planted_share"]
    half = 1.96 * abs(first - second) / 2  # the SD of two is their distance / sqrt(2)
    assert table.loc["V1", "mean_high"] == pytest.approx((first + second) / 2 + half)
    assert table.loc["V2", "n_voxels"] == 1
    assert np.isnan(table.loc["V2", "mean_low"])


@pytest.mark.runs
def test_what_the_reader_is_told(data):
    (result,) = evaluate_sections([Planted()], data)
    (sentences,) = result.by_subject.values()
    first, second = result.section.findings(data[0], sentences)
    assert first.startswith("By planted twins, the nonlinear share of the explainable variance is")
    assert "to 0.50 in EBA." in first
    assert "with a nonlinear share of 60 % would have been found with probability 1.00" in second
    assert collect_findings(data, [result])
    assert result.section.scalars(result.tables)["planted_share/subj01"] == pytest.approx(
        data[0].analysed["planted_share"].mean()
    )
    assert list(result.section.page_tables(data[0], sentences)) == ["Nonlinear share by region"]
    with rc_context(STYLE):
        (figure,) = result.section.figures(data[0], sentences).values()
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, sentences["planted"].query("level == 'roi'")["mean_share"])


def test_without_planted_twins_the_section_is_empty(tmp_path):
    plain = write_run(tmp_path / "plain")
    config = evaluate_config(tmp_path, "variants=[l1]")
    subjects = voxel_tables(by_subject([plain, write_twins(tmp_path / "twins", plain)]), config)
    (result,) = evaluate_sections([Planted()], subjects)
    assert result.tables == {}
    assert result.section.caveats(subjects, {}) == []


def test_a_planted_twin_is_found_where_its_w_reaches_the_threshold_of_the_voxels():
    """By the definition of the threshold, over the analysed voxels; nothing is said of others."""
    rng = np.random.default_rng(1)
    linear = rng.random(40)
    voxels = pd.DataFrame(
        {"jne_planted_0": linear, "jne_planted_fit": linear + rng.normal(1, 1, 40)}
    )
    voxels["jne_planted_10"] = linear + rng.random(40)
    voxels["jne_planted_2.5"] = linear + rng.random(40) / 4
    voxels.loc[:3, "jne_planted_0"] = np.nan
    voxels["linear_power"] = voxels["nonlinear_share"] = voxels["nonlinear_share_low"] = 0.5
    voxels["nonlinear_share_high"] = 0.7
    analysed = pd.Series(np.arange(40) % 4 > 0)
    for rate in (0.1, 0.3):
        w = (voxels["jne_planted_fit"] - voxels["jne_planted_0"])[analysed].dropna()
        passing = [
            t for t in sorted(abs(w)) if (1 + (w <= -t).sum()) / max((w >= t).sum(), 1) <= rate
        ]
        found = _against_planted_twins(voxels, analysed, rate)
        assert len(passing) > 1
        for level in ("10", "2.5"):
            added = voxels[f"jne_planted_{level}"] - voxels["jne_planted_0"]
            is_found, said = found[f"found_{level}"], analysed & voxels["jne_planted_0"].notna()
            np.testing.assert_array_equal(is_found.isna(), ~said)
            assert (is_found[said] == (added >= passing[0])[said]).all()
    assert 0 < found["found_10"].sum() < said.sum()
    assert "found_0" not in found
    assert _against_planted_twins(voxels.drop(columns="jne_planted_0"), analysed, 0.1) == {}
