"""The section on the nonlinear share, on runs that were never trained."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from finished_run import CONSTANT, write_run
from matplotlib import rc_context
from region_shares import N_BLOCKS, with_shares
from scipy import stats
from two_subjects import close, tables_of

from jne.analysis.random_effects import random_effects_mean
from jne.evaluation.report import collect_findings, sentences
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.share import Share
from jne.plots.style import STYLE

RISING = {"EBA": 0.6, "V1": 0.0, "V2": 0.3}  # in the order of the sums, which is not the report's
GROUPS = {
    ("brain", "all"): ["EBA", "V1", "V2"],
    ("roi", "V1"): ["V1"],
    ("roi", "V2"): ["V2"],
    ("roi", "EBA"): ["EBA"],
    ("tier", "PVC"): ["V1"],
    ("tier", "IVC"): ["V2"],
    ("tier", "HVC"): ["EBA"],
}
FACTOR = N_BLOCKS / (N_BLOCKS - 1)
T = stats.t.ppf(0.975, N_BLOCKS - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("share")


@pytest.fixture(scope="module")
def subjects(folder):
    return tables_of(
        folder,
        with_shares(write_run(folder / "a"), RISING),
        with_shares(
            write_run(folder / "b", subject="subj02", shift=0.3),
            {"EBA": 0.4, "V1": 0.1, "V2": 0.1},
            seed=1,
            source="noise ceiling",
        ),
    )


@pytest.fixture(scope="module")
def result(subjects):
    (result,) = evaluate_sections([Share()], subjects)
    return result


def moments(sums, members):
    """Variances of the linear fit and of the signal, and the errors of both, by stimuli."""
    n, chosen = sums.n_stimuli, [list(RISING).index(roi) for roi in members]
    linear, signal = sums.linear[chosen].sum() / n, sums.signal[:, chosen].sum() / n
    centred = [
        (values[:, chosen].sum(axis=1) - sums.block_size * values[:, chosen].sum() / n) / n
        for values in (sums.derivative, sums.signal)
    ]
    return linear, signal, *centred, sums.pairs[chosen].sum(axis=0)


def too_much(sums, pairs):
    apart = pairs[~np.eye(len(pairs), dtype=bool)]
    return sums.pair_weight * (apart**2).mean()


def test_shares_of_regions_are_ratios_of_their_sums(subjects, result):
    table = result.tables["share"].set_index(["subject", "level", "group"])
    for data in subjects:
        sums = data.subject.nonlinear.region_shares.sums
        assert list(table.loc[data.name].index) == list(GROUPS)
        for key, rois in GROUPS.items():
            linear, signal, of_linear, of_signal, pairs = moments(sums, rois)
            spread = FACTOR * of_linear @ of_linear
            error = np.array(
                [[max(spread - too_much(sums, pairs), spread / 3), FACTOR * of_linear @ of_signal],
                 [FACTOR * of_linear @ of_signal, FACTOR * of_signal @ of_signal]]
            )  # fmt: skip
            row = table.loc[(data.name, *key)]
            # Fieller: at the ends, linear - ratio * signal is T standard errors from 0.
            for end in ("nonlinear_share_low", "nonlinear_share_high"):
                weights = np.array([1, row[end] - 1])
                distance = weights @ [linear, signal]
                assert abs(distance) == pytest.approx(T * np.sqrt(weights @ error @ weights))
            assert row["nonlinear_share_low"] < row["nonlinear_share"] < row["nonlinear_share_high"]
            bias = (linear * error[1, 1] / signal - error[0, 1]) / signal**2
            assert row["nonlinear_share"] == pytest.approx(1 - linear / signal + bias, abs=1e-4)
            voxels = data.voxels[data.voxels["roi"].isin(rois)].drop(
                index=CONSTANT, errors="ignore"
            )
            expected = {
                "n_voxels": len(voxels),
                "jne": voxels.loc[voxels["analysed"], "jne"].mean(),
                "signal_share": signal / (5 * len(rois)),
                "linear_share": linear / (5 * len(rois)),
            }
            close(row, expected, expected)


def test_steps_from_tier_to_tier(subjects, result):
    table = result.tables["share_steps"].set_index(["subject", "lower", "upper"])
    share = result.tables["share"].set_index(["subject", "group"])["nonlinear_share"]
    for data in subjects:
        sums = data.subject.nonlinear.region_shares.sums
        for (low, lower), (high, upper) in pairwise([("V1", "PVC"), ("V2", "IVC"), ("EBA", "HVC")]):
            rates, residuals = [], []
            for roi in (high, low):
                linear, signal, of_linear, of_signal, pairs = moments(sums, [roi])
                rates.append((linear / signal * of_signal - of_linear) / signal)
                residuals.append(pairs / signal)
            spread = FACTOR * np.square(rates[0] - rates[1]).sum()
            kept = max(spread - too_much(sums, residuals[0] - residuals[1]), spread / 3)
            row, half = table.loc[data.name, lower, upper], T * np.sqrt(kept)
            difference = share[data.name, upper] - share[data.name, lower]
            expected = {"difference": difference, "difference_low": difference - half,
                        "difference_high": difference + half}  # fmt: skip
            close(row, expected, expected)
        assert len(table.loc[data.name]) == 2


def test_the_slope_over_the_tiers_is_half_of_the_last_less_the_first(subjects, result):
    table = result.tables["share_trend"].set_index("subject")
    share = result.tables["share"].set_index(["subject", "group"])["nonlinear_share"]
    for data in subjects:
        sums = data.subject.nonlinear.region_shares.sums
        rates, residuals = [], []
        for roi in ("EBA", "V1"):
            linear, signal, of_linear, of_signal, pairs = moments(sums, [roi])
            rates.append((linear / signal * of_signal - of_linear) / signal / 2)
            residuals.append(pairs / signal / 2)
        spread = FACTOR * np.square(rates[0] - rates[1]).sum()
        kept = max(spread - too_much(sums, residuals[0] - residuals[1]), spread / 3)
        slope = (share[data.name, "HVC"] - share[data.name, "PVC"]) / 2
        half, p = T * np.sqrt(kept), 2 * stats.t.sf(slope / np.sqrt(kept), N_BLOCKS - 1)
        expected = {"slope": slope, "slope_low": slope - half, "slope_high": slope + half, "p": p}
        close(table.loc[data.name], expected, expected, rel=1e-5)
        assert table.loc[data.name, "tiers"] == "PVC to HVC"
    width = table["slope_high"] - table["slope_low"]
    each = [values[["subj01", "subj02"]].to_numpy() for values in (table["slope"], width)]
    mean = random_effects_mean(each[0], each[1] / (2 * stats.norm.ppf(0.975)))
    found = table.loc["all"]
    assert tuple(found[["slope", "slope_low", "slope_high"]]) == pytest.approx(mean)
    assert (found["n_subjects"], found["n_clear"]) == (2, 2)


def test_without_one_of_the_tiers_there_is_no_slope(subjects):
    data = replace(subjects[0], rois=["V1", "EBA"])
    tables = Share().tables(data)
    assert len(tables["share_trend"]) == 0
    assert "Slope of the share over the tiers" not in Share().page_tables(data, tables)
    _, rise = Share().findings(data, tables)
    assert "rises from PVC to HVC by" in rise
    assert "slope" not in rise
    (result,) = evaluate_sections([Share()], [data, subjects[1]])
    assert list(result.tables["share_trend"]["subject"]) == ["subj02", "all"]


def test_the_share_and_jne_over_analysed_voxels(subjects, result):
    table = result.tables["share_jne"].set_index(["subject", "first", "second", "given"])["r"]
    for data in subjects:
        voxels = data.voxels.drop(index=CONSTANT).query("analysed")
        rank = voxels[["nonlinear_share", "jne", "noise_ceiling"]].rank()
        r = np.corrcoef(rank.T)
        found = table.loc[data.name]
        assert found["nonlinear_share", "jne", ""] == pytest.approx(r[0, 1])
        assert found["nonlinear_share", "noise_ceiling", ""] == pytest.approx(r[0, 2])
        assert found["jne", "noise_ceiling", ""] == pytest.approx(r[1, 2])
        partial = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
        assert found["nonlinear_share", "jne", "noise_ceiling"] == pytest.approx(partial)
        assert (result.by_subject[data.name]["share_jne"]["n_voxels"] == len(voxels)).all()


def test_rows_over_subjects_are_random_effects_means(result):
    for table, keys, name in (
        ("share", ["level", "group"], "nonlinear_share"),
        ("share_steps", ["lower", "upper"], "difference"),
    ):
        rows = result.tables[table]
        across = rows[rows["subject"] == "all"].set_index(keys)
        each = rows[rows["subject"] != "all"].set_index(keys)
        for key in across.index:
            both, row = each.loc[[key]], across.loc[key]
            width = both[f"{name}_high"] - both[f"{name}_low"]
            errors = width.to_numpy() / (2 * stats.norm.ppf(0.975))
            mean, low, high = random_effects_mean(both[name].to_numpy(), errors)
            assert row["n_subjects"] == 2
            expected = {name: mean, f"{name}_low": low, f"{name}_high": high}
            close(row, expected, expected)
            if table == "share":
                assert row["n_voxels"] == each.loc[[key], "n_voxels"].sum()


def percent(row):
    low, high = row["nonlinear_share_low"], row["nonlinear_share_high"]
    return f"{100 * row['nonlinear_share']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def test_what_the_reader_is_told(subjects, result):
    findings = collect_findings(subjects, [result])
    first, rise = findings[result.section, "subj01"]
    row = result.by_subject["subj01"]["share"].set_index("group").loc
    assert first == (
        f"Of the signal of all voxels, {percent(row['all'])} is nonlinear in the features, without "
        f"an encoder: from {percent(row['V1']).replace('-0 ', '0 ')} in V1 to "
        f"{percent(row['EBA'])} in EBA."
    )
    assert rise.startswith("The nonlinear share rises from PVC to IVC by ")
    assert rise.count("rises") == 1
    assert " points [" in rise
    assert "IVC to HVC by 3" in rise
    trend = result.by_subject["subj01"]["share_trend"].iloc[0]
    low, high = (f"{100 * trend[name]:.0f}" for name in ("slope_low", "slope_high"))
    assert rise.endswith(f"]; its slope is 30 percentage points per tier [{low}, {high}] "
                         "(p < 0.001).")  # fmt: skip
    _, unclear = findings[result.section, "subj02"]
    assert "rises from IVC to HVC" in unclear
    assert "does not clearly change from PVC to IVC (" in unclear
    (across,) = findings[result.section, None]
    assert "is nonlinear in the features (mean of 2 subjects), without an encoder" in across
    assert across.endswith("it rises clearly from PVC to IVC in 1 of 2, from IVC to HVC in 2 of 2.")
    assert sentences(findings)[0] == across
    scalars = result.section.scalars(result.tables)
    assert scalars["nonlinear_share/subj01"] == row["all"]["nonlinear_share"]
    assert list(scalars) == [f"nonlinear_share/{name}" for name in ("subj01", "subj02", "all")]
    _, ceiling, several = result.section.caveats(subjects, result.tables)
    assert ceiling.startswith("The data of subj02 have no repeats")
    assert "population" in several


def test_the_page_says_which_p_are_over_voxels(subjects, result):
    tables = Share().page_tables(subjects[0], result.by_subject["subj01"])
    assert "p over voxels" in tables["The share, JNE and the noise ceiling"]
    assert "p" not in tables["The share, JNE and the noise ceiling"]
    assert "p" in tables["Slope of the share over the tiers"], "over stimuli"


def correlations(share_jne, of_share, of_jne):
    rows = [("jne", "", 0.5), ("jne", "noise_ceiling", share_jne)]
    table = pd.DataFrame(rows, columns=["second", "given", "r"]).assign(first="nonlinear_share")
    ceiling = pd.DataFrame({"first": ["nonlinear_share", "jne"], "r": [of_share, of_jne]})
    ceiling = ceiling.assign(second="noise_ceiling", given="")
    return pd.concat([table, ceiling], ignore_index=True).assign(n_voxels=100)


@pytest.mark.parametrize(
    ("r", "of_jne", "story", "why"),
    [
        (0.9, 0.8, "tell the same story (Spearman's r 0.90 over 100 analysed voxels, the", False),
        (0.5, 0.8, "tell partly the same story", True),
        (0.1, 0.8, "tell different stories", True),
        (0.1, 0.0, "tell different stories", False),
    ],
)
def test_why_jne_may_tell_another_story(subjects, r, of_jne, story, why):
    text = Share().text(subjects[0], {"share_jne": correlations(r, 0.05, of_jne)})
    assert story in text
    assert ("JNE follows the noise ceiling (r 0.80) more than the share does (0.05)" in text) == why


def test_without_a_noise_ceiling_it_is_not_held_constant(subjects):
    table = correlations(0.9, 0.05, 0.8).iloc[:1]
    text = Share().text(subjects[0], {"share_jne": table})
    assert "partly the same story (Spearman's r 0.50 over 100 analysed voxels)." in text
    assert "ceiling" not in text.partition("tell partly")[2]


def test_without_a_correlation_there_is_no_story(subjects):
    text = Share().text(subjects[0], {"share_jne": correlations(np.nan, 0.05, 0.8)})
    assert "story" not in text
    assert "nan" not in text


def test_the_figure_shows_every_region_tier_and_all_voxels(subjects, result):
    with rc_context(STYLE):
        tables = result.by_subject["subj01"]
        (figure,) = result.section.figures(subjects[0], tables).values()
    left, right = figure.axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["V1", "V2", "EBA", "PVC", "IVC", "HVC", "all voxels"]
    share = tables["share"].set_index("group")
    rois, tiers, whole = (np.asarray(marks.get_offsets()) for marks in left.collections[1::2])
    np.testing.assert_allclose(rois[:, 0], share.loc[labels[:3], "nonlinear_share"])
    np.testing.assert_allclose(tiers[:, 0], share.loc[labels[3:6], "nonlinear_share"])
    np.testing.assert_allclose(whole[:, 0], share.loc[["all"], "nonlinear_share"])
    against = np.asarray(right.collections[1].get_offsets())
    np.testing.assert_allclose(against, share.loc[labels[:3], ["jne", "nonlinear_share"]])
    assert {text.get_text() for text in right.texts} == {"V1", "V2", "EBA"}


def test_a_run_without_the_columns_has_no_section(folder):
    plain = tables_of(folder, write_run(folder / "plain"))
    (result,) = evaluate_sections([Share()], plain)
    section, tables = result.section, result.by_subject["subj01"]
    assert result.tables == tables == section.figures(plain[0], tables) == {}
    assert section.findings(plain[0], tables) == section.caveats(plain, {}) == []
    assert section.page_tables(plain[0], tables) == section.scalars({}) == {}


def test_a_subject_beside_one_without_the_columns(folder, subjects):
    plain = tables_of(folder, write_run(folder / "other", subject="subj03", shift=0.6))
    both = [subjects[0], *plain]
    (result,) = evaluate_sections([Share()], both)
    findings = collect_findings(both, [result])
    assert len(findings[result.section, "subj01"]) == 2
    assert findings[result.section, "subj03"] == findings[result.section, None] == []


def test_without_signal_one_sentence_says_so(subjects, result):
    table = result.by_subject["subj01"]["share"].assign(nonlinear_share=np.nan)
    tables = result.by_subject["subj01"] | {"share": table}
    (sentence,) = Share().findings(subjects[0], tables)
    assert sentence.startswith("How much of the signal is nonlinear is not known")
    assert Share().figures(subjects[0], tables) == {}


def test_it_stands_second_on_the_page():
    assert isinstance(SECTIONS[1], Share)
