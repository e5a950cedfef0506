"""A difference of JNE is a finding only where its region and a voxel are nonlinear."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from finished_run import CONSTANT, N_VOXELS, evaluate_config, write_run
from region_evidence import region_evidence, with_evidence
from scipy import stats

from jne.evaluation.claims import _is_above, why_unclaimed
from jne.evaluation.report import build_page, collect_findings, sentences
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.hierarchy import Hierarchy
from jne.evaluation.sections.selectivity import Selectivity
from jne.evaluation.sections.summary import Summary
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import SubjectData, voxel_tables
from jne.results import Results
from jne.results.evidence import EVIDENCE

V1 = np.arange(N_VOXELS) < 5


@pytest.fixture
def config(tmp_path):
    return evaluate_config(tmp_path, "variants=[l1]", "inference.q=0.25")


def subject_of(run: Results, config) -> SubjectData:
    (data,) = voxel_tables(by_subject([run]), config)
    return data


def findings(section, *subjects: SubjectData) -> list[str]:
    results = evaluate_sections([section], subjects)
    return sentences(collect_findings(subjects, results))


@pytest.mark.runs
def test_an_encoder_below_ridge_says_nothing_about_the_brain(tmp_path, config):
    data = subject_of(write_run(tmp_path / "run", ridge=0.02), config)
    r2 = data.voxels["r2_nonlinear"].mean()
    expected = (
        f"JNE describes the training here, not the brain: the encoder does not predict "
        f"significantly better than ridge regression (mean R² {r2:.3f} and {r2 + 0.02:.3f})."
    )
    assert findings(Hierarchy(), data) == [f"subj01: {expected}"]
    results = evaluate_sections(SECTIONS, [data])
    page = build_page([data], results, {}, collect_findings([data], results), tmp_path)
    first_screen = page[page.index("<header>") : page.index("</header>")]
    assert expected in first_screen
    for claim in ("rises from tier to tier", "the median is highest in", "JNE-SS is significantly"):
        assert claim not in page


def test_an_encoder_above_ridge_does(tmp_path, config):
    data = subject_of(write_run(tmp_path / "run"), config)
    (sentence,) = findings(Hierarchy(), data)
    assert "from tier to tier" in sentence
    assert "not the brain" not in sentence


@pytest.mark.runs
def test_without_ridge_the_linear_run_is_what_the_encoder_must_beat(tmp_path, config):
    run, linear = write_run(tmp_path / "run"), write_run(tmp_path / "linear", placement="none")
    del run.voxels["r2_ridge"]
    data = subject_of(run, config)
    assert why_unclaimed(data, data.voxels).startswith("nothing says how well a linear model")
    (data,) = voxel_tables(by_subject([run, linear]), config)
    assert why_unclaimed(data, data.voxels) == ""  # the linear encoder has random weights
    worse = data.voxels.assign(r2_linear=1.0)
    assert "better than the linear encoder (mean R² 0." in why_unclaimed(data, worse)


@pytest.mark.runs
def test_where_no_voxel_is_nonlinear_no_difference_is_claimed(tmp_path, config):
    run, _ = with_evidence(write_run(tmp_path / "run"), {"V1": 0.6, "V2": 0.6, "EBA": 1.2}, seed=1)
    data = subject_of(run, config)
    assert "from tier to tier" in findings(Hierarchy(), data)[0]
    no_voxel = data.voxels.assign(nonlinear_p=data.voxels["nonlinear_p"].clip(lower=0.5))
    assert findings(Hierarchy(), replace(data, voxels=no_voxel)) == [
        "subj01: JNE describes the training here, not the brain: none of 14 voxels is nonlinear at "
        "a false discovery rate of 25 %."
    ]


@pytest.mark.runs
def test_unseen_responses_say_which_voxels_are_nonlinear(tmp_path, config):
    sizes = {"V1": 0.0, "V2": 0.6, "EBA": 1.2}
    run, _ = with_evidence(write_run(tmp_path / "run"), sizes, seed=1)
    data = subject_of(run, config)
    q = stats.false_discovery_control(data.voxels["nonlinear_p"].drop(index=CONSTANT))
    nonlinear = data.voxels["nonlinear"]
    np.testing.assert_array_equal(nonlinear.drop(index=CONSTANT), q <= 0.25)
    assert pd.isna(nonlinear[CONSTANT])
    assert why_unclaimed(data, data.voxels) == ""
    of_v2 = data.voxels[data.voxels["roi"] == "V2"]
    of_v2 = of_v2.assign(nonlinear_p=[0.1, 0.3, 0.5, 0.7, 0.9])
    assert why_unclaimed(data, of_v2) == (
        "none of 5 voxels is nonlinear at a false discovery rate of 25 %"
    ), "among these five, 0.1 is no discovery"
    of_v2["nonlinear_p"] = [0.01, 0.3, 0.5, 0.7, 0.9]
    assert why_unclaimed(data, of_v2) == ""


@pytest.mark.runs
def test_the_regions_must_be_nonlinear_over_stimuli(tmp_path, config):
    """R² above ridge, or below it, makes no difference to a run that has evidence."""
    sizes = {"V1": 0.0, "V2": 0.6, "EBA": 1.2}
    run, _ = with_evidence(write_run(tmp_path / "run", ridge=0.02), sizes, seed=1)
    data = subject_of(run, config)
    assert (data.voxels["r2_nonlinear"] < data.voxels["r2_ridge"]).any()
    p = run.region_evidence.table()["nonlinear_p"]
    assert p["V1"] > 0.05 > p["V2"]
    of_v1 = data.voxels[V1].assign(nonlinear_p=0.001)
    assert why_unclaimed(data, of_v1) == (
        "the nonlinear part of the prediction does not clearly exist in unseen responses "
        f"(p = {p['V1']:.3f})"
    ), "whatever its voxels"
    for roi in ("V2", "EBA"):
        assert why_unclaimed(data, data.voxels[data.voxels["roi"] == roi]) == ""
    both = data.voxels["roi"].isin(["V1", "V2"])
    together = run.region_evidence.table({"both": ["V1", "V2"]})["nonlinear_p"].iloc[0]
    assert (why_unclaimed(data, data.voxels[both]) == "") == (together < 0.05)
    without = data.voxels.assign(roi=data.voxels["roi"].where(data.voxels["roi"] != "V2"))
    assert why_unclaimed(data, without[without["roi"] != "V1"]) == "", "a voxel without a ROI"


@pytest.mark.runs
def test_of_a_linear_encoder_nothing_is_claimed(tmp_path, config):
    run, arrays = with_evidence(write_run(tmp_path / "run"), {"V1": 0, "V2": 0, "EBA": 0})
    linear = arrays._replace(nonlinear=0 * arrays.nonlinear)
    roi = run.voxels["roi"].drop(index=CONSTANT).to_numpy()
    region_evidence(linear, roi).regions.save(tmp_path / "run" / EVIDENCE)
    data = subject_of(Results(run.path), config)
    assert why_unclaimed(data, data.voxels) == "the predictions of the encoder are linear"


@pytest.mark.runs
def test_jne_ss_of_a_region_that_is_not_nonlinear_is_not_claimed(tmp_path, config):
    sizes = {"V1": 0.0, "V2": 0.6, "EBA": 1.2}
    run, _ = with_evidence(write_run(tmp_path / "run"), sizes, seed=1)
    data, p = subject_of(run, config), run.region_evidence.table()["nonlinear_p"]["V1"]
    preferences = pd.DataFrame(
        {"roi": ["V1", "EBA"], "cluster": ["animals", "scenes"], "ratio": [3.0, 2.0]}
    ).assign(preferred=True)
    assert Selectivity().findings(data, {"preferences": preferences}) == [
        "JNE-SS is significantly higher for some stimuli: EBA (scenes).",
        "Of the stimuli of V1 nothing is claimed, where JNE describes the training, not the brain "
        "(V1: the nonlinear part of the prediction does not clearly exist in unseen responses "
        f"(p = {p:.3f})).",
    ]


@pytest.mark.runs
def test_over_subjects_each_of_them_must_allow_it(tmp_path, config):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", subject="subj02", ridge=0.02),
        write_run(tmp_path / "c", subject="subj03", ridge=0.02),
    ]
    subjects = voxel_tables(by_subject(runs), config)
    results = evaluate_sections([Summary(), Hierarchy()], subjects)
    across = [lines for (_, name), lines in collect_findings(subjects, results).items() if not name]
    expected = (
        "Nothing is claimed over subjects: in subj02 and 1 more of 3 subjects, JNE describes the "
        "training, not the brain (the encoder does not predict significantly better than ridge "
    )
    said = [line for lines in across for line in lines]
    assert len(said) == 1, "once, not once per section"
    assert said[0].startswith(expected)


def test_the_rule_is_the_one_sided_paired_t_test():
    rng = np.random.default_rng(0)
    for shift in (-0.2, 0.2, 0.35, 0.5, 1.0):
        difference = pd.Series(rng.standard_normal(20) + shift)
        p = stats.ttest_1samp(difference, 0, alternative="greater").pvalue
        assert _is_above(difference, 0.05) == (p < 0.05)
    assert _is_above(pd.Series([0.1, 0.1, 0.1]), 0.05)
    assert not _is_above(pd.Series([0.0, 0.0, 0.0]), 0.05)


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_rule_changes_where_p_is_alpha(n, alpha):
    values = np.random.default_rng(n).standard_normal(n)
    values = (values - values.mean()) / values.std(ddof=1)
    for factor in (0.999, 1.001):
        difference = pd.Series(values + factor * stats.t.isf(alpha, n - 1) / np.sqrt(n))
        p = stats.ttest_1samp(difference, 0, alternative="greater").pvalue
        assert p == pytest.approx(alpha, rel=0.02)
        assert _is_above(difference, alpha) == (p < alpha) == (factor > 1)


@pytest.mark.runs
def test_voxels_that_are_significant_for_the_encoder_do_not_favour_it():
    """Two encoders that are equally good, and noise: one in twenty may be called better."""
    rng = np.random.default_rng(0)
    data = SimpleNamespace(config=SimpleNamespace(stats=SimpleNamespace(alpha=0.05)), evidence=None)
    claimed, among_significant = 0, 0
    for _ in range(400):
        r2 = 0.03 + 0.03 * rng.standard_normal((200, 1)) + 0.02 * rng.standard_normal((200, 2))
        voxels = pd.DataFrame(r2, columns=["r2_nonlinear", "r2_ridge"])
        voxels["analysed"] = voxels["r2_nonlinear"] > 0.05
        claimed += not why_unclaimed(data, voxels)
        found = voxels[voxels["analysed"]]
        among_significant += _is_above(found["r2_nonlinear"] - found["r2_ridge"], 0.05)
    assert 0.02 < claimed / 400 < 0.09
    assert among_significant / 400 > 0.9
