"""The first screen: how much nonlinearity there is, and how much of it the encoder has found."""

import re

import numpy as np
import pytest
from finished_run import CONSTANT, evaluate_config, write_run
from matplotlib import rc_context
from region_evidence import with_evidence
from region_shares import with_shares
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from two_subjects import close

from jne.analysis.random_effects import random_effects_mean
from jne.evaluation import html
from jne.evaluation.report import _across, build_page, collect_findings
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.summary import Summary
from jne.evaluation.subjects import by_subject
from jne.evaluation.voxels import voxel_tables
from jne.plots.style import STYLE

SIZES = {"V1": 0.0, "V2": 0.6, "EBA": 1.2}
SHARES = {"EBA": 0.6, "V1": 0.0, "V2": 0.3}
ROIS = ["V1", "V2", "EBA"]


def data_of(folder, *runs):
    return voxel_tables(by_subject(list(runs)), evaluate_config(folder, "variants=[l1]"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def evident(folder):
    run, _ = with_evidence(write_run(folder / "run"), SIZES)
    return data_of(folder, run)[0]


@pytest.fixture(scope="module")
def both(folder):
    run, _ = with_evidence(write_run(folder / "both", subject="subj02", shift=0.3), SIZES, seed=2)
    return data_of(folder, with_shares(run, SHARES))[0]


def table_of(data):
    return Summary().tables(data)["summary"].set_index("roi")


def test_the_table_has_both_shares_and_the_nonlinear_voxels(both):
    table, run = table_of(both), both.subject.nonlinear
    names = {"all": ["all"]} | {roi: [roi] for roi in ROIS}
    evidence = run.region_evidence.table(names)
    shares = run.region_shares.table({"all": ["EBA", "V1", "V2"]} | {r: [r] for r in ROIS})
    voxels = both.voxels.drop(index=CONSTANT)
    for roi in ("all", *ROIS):
        rows = voxels if roi == "all" else voxels[voxels["roi"] == roi]
        n, total = (rows["nonlinear_p_fdr"] <= 0.1).sum(), len(rows)
        low, high = proportion_confint(n, total, method="wilson")
        expected = {"share": n / total, "share_low": low, "share_high": high,
                    "jne_calibrated": rows["jne_calibrated"].median()}  # fmt: skip
        close(table.loc[roi], expected, expected, abs=1e-9)
        for source, name in ((evidence, "validated_share"), (shares, "nonlinear_share")):
            ends = (name, f"{name}_low", f"{name}_high")
            close(table.loc[roi], source.loc[roi], ends)
            assert len(set(table.loc[roi, list(ends)])) == 3


def panels(data, tables=None):
    with rc_context(STYLE):
        tables = tables or Summary().tables(data)
        (figure,) = Summary().figures(data, tables).values()
    return figure, figure.axes


def test_the_shares_are_marked_filled_and_open(both):
    table = table_of(both).loc[ROIS]
    figure, (left, middle, right) = panels(both)
    assert [axes.get_title(loc="left") for axes in (left, middle, right)] == [
        "share nonlinear", "nonlinear voxels", "mean R²",
    ]  # fmt: skip
    _, filled, _, empty = left.collections
    for marks, name in ((filled, "nonlinear_share"), (empty, "validated_share")):
        np.testing.assert_allclose(np.asarray(marks.get_offsets())[:, 0], table[name])
    np.testing.assert_array_equal(empty.get_facecolor()[:, :3], 1)
    assert (filled.get_facecolor()[:, :3] != 1).any(axis=1).all()
    for lines, name in zip(left.collections[::2], ("nonlinear_share", "validated_share"),
                           strict=True):  # fmt: skip
        ends = np.array([segment[:, 0] for segment in lines.get_segments()])
        np.testing.assert_allclose(ends, table[[f"{name}_low", f"{name}_high"]])
    np.testing.assert_allclose(
        np.asarray(middle.collections[1].get_offsets())[:, 0], table["share"]
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "nonlinear share: how much there is", "validated share: how much the encoder has found",
    ]  # fmt: skip


def test_without_repeats_there_is_the_validated_share_alone(evident):
    figure, (left, *_) = panels(evident)
    assert len(left.collections) == 2
    np.testing.assert_allclose(
        np.asarray(left.collections[1].get_offsets())[:, 0],
        table_of(evident).loc[ROIS, "validated_share"],
    )
    assert len(figure.legends[0].get_texts()) == 1


def test_without_either_jne_is_drawn(folder):
    (data,) = data_of(folder, write_run(folder / "plain"))
    figure, axes = panels(data)
    assert [panel.get_title(loc="left") for panel in axes] == ["JNE", "mean R²"]
    assert not figure.legends
    assert "share" not in table_of(data)


def weighted_means(tables, name):
    """The means over subjects of every region, with their errors over stimuli."""
    values, low, high = (np.array([table[name + end] for table in tables]).T
                         for end in ("", "_low", "_high"))  # fmt: skip
    errors = (high - low) / (2 * stats.norm.ppf(0.975))
    return [random_effects_mean(*row)[0] for row in zip(values, errors, strict=True)]


def test_of_several_subjects_each_has_its_marks(evident, both):
    (result,) = evaluate_sections([Summary()], [evident, both])
    with rc_context(STYLE):
        (figure,) = Summary().figures_across([evident, both], result.tables).values()
    left = figure.axes[0]
    tables = [table_of(data).loc[ROIS] for data in (evident, both)]
    of_signal, first, second, mean = left.collections[1:]
    np.testing.assert_allclose(
        np.asarray(of_signal.get_offsets())[:, 0], tables[1]["nonlinear_share"]
    )
    for marks, table in ((first, tables[0]), (second, tables[1])):
        np.testing.assert_allclose(np.asarray(marks.get_offsets())[:, 0], table["validated_share"])
    expected = weighted_means(tables, "validated_share")
    np.testing.assert_allclose(np.asarray(mean.get_offsets())[:, 0], expected)
    across = result.tables["summary"].query("subject == 'all'").set_index("roi").loc[ROIS]
    np.testing.assert_allclose(across["validated_share"], expected)
    np.testing.assert_allclose(across["nonlinear_share"], tables[1]["nonlinear_share"])
    assert (across["validated_share_low"] < expected).all()
    assert across["nonlinear_share_low"].isna().all(), "of one subject"
    (shown,) = _across(result)
    assert all(isinstance(row["n_subjects"], int) for row in shown["rows"]), "2, not 2.000"
    # Regions are compared by the share that all subjects have, not by JNE
    whole = [table_of(data).loc["all", "validated_share"] for data in (evident, both)]
    above = [table["validated_share"] > one for table, one in zip(tables, whole, strict=True)]
    np.testing.assert_array_equal(across["n_above"], above[0].astype(int) + above[1])
    (sentence,) = Summary().findings_across([evident, both], result.tables)
    assert sentence.startswith("In every subject, the validated share of EBA")
    n = (across["n_above"] == 2).sum()
    assert sentence.endswith(f"is above that of the whole brain ({n} of 3 regions).")


@pytest.mark.runs
def test_the_page_says_what_the_measures_are(folder, both, tmp_path):
    results = evaluate_sections(SECTIONS, [both])
    page = build_page([both], results, {}, collect_findings([both], results), tmp_path)
    summary = page[page.index('<section id="summary"') :].partition("</section>")[0]
    for word in ("Nonlinear share:", "Validated share:", "JNE:", "Tiers:", "Gao et al., NeurIPS"):
        assert summary.count(word) == 1
    header = page[page.index("<header>") : page.index("</header>")]
    assert header.index("Of the signal") < header.index("Of what is predicted")


@pytest.mark.runs
def test_the_papers_tests_over_voxels_are_folded(both, tmp_path):
    results = evaluate_sections(SECTIONS, [both])
    picture = tmp_path / "x.png"
    html_png = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + (10).to_bytes(4, "big") * 2
    picture.write_bytes(html_png)
    section = next(r.section for r in results if "hierarchy" in r.tables)
    figures = {(section, both.name): {"jne": picture, "pairwise": picture}}
    page = build_page([both], results, figures, collect_findings([both], results), tmp_path)
    part = page[page.index('<section id="where-jne-is-high"') :].partition("</section>")[0]
    (folded,) = re.findall(r"<details[^>]*><summary>(.*?)</summary>\s*<figure>", part)
    assert folded == "The paper&#39;s tests of pairs of regions, over voxels"
    assert part.count("<figure>") == 2
    assert part.count("<details") == part.count("</details>")
    assert html.figure(picture, "a", "b")["folded"] == ""
    (finding,) = section.findings(both, next(r for r in results if r.section is section).by_subject[
        both.name
    ])  # fmt: skip
    assert "by the paper's tests, over voxels" in finding
