"""The section on the evidence of unseen responses, on runs that were never trained."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from finished_run import CONSTANT, N_STIMULI, write_run
from matplotlib import rc_context
from region_evidence import Simulated, region_evidence, with_evidence
from region_shares import with_shares
from scipy import stats
from statsmodels.stats.multitest import multipletests
from two_subjects import close, tables_of

from jne.analysis.random_effects import random_effects_mean
from jne.evaluation.report import build_page, collect_findings, sentences
from jne.evaluation.sections import SECTIONS, evaluate_sections
from jne.evaluation.sections.evidence import Evidence
from jne.evaluation.sections.share import Share
from jne.plots.style import STYLE

GROUPS = {
    ("brain", "all"): ["V1", "V2", "EBA"],
    ("roi", "V1"): ["V1"],
    ("roi", "V2"): ["V2"],
    ("roi", "EBA"): ["EBA"],
    ("tier", "PVC"): ["V1"],
    ("tier", "IVC"): ["V2"],
    ("tier", "HVC"): ["EBA"],
}
TIERS = [("V1", "PVC"), ("V2", "IVC"), ("EBA", "HVC")]
RATE = 0.1
Z = stats.norm.ppf(0.975)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="module")
def simulated(folder):
    """By subject: its run and the arrays that its evidence is of."""
    first, arrays = with_evidence(write_run(folder / "a"), {"V1": 0.0, "V2": 0.6, "EBA": 1.2})
    other = write_run(folder / "b", subject="subj02", shift=0.3)
    second, others = with_evidence(other, {"V1": 0.4, "V2": 0.4, "EBA": 1.5}, seed=3)
    return {"subj01": (first, arrays), "subj02": (second, others)}


@pytest.fixture(scope="module")
def subjects(folder, simulated):
    return tables_of(folder, *(run for run, _ in simulated.values()))


@pytest.fixture(scope="module")
def result(subjects):
    (result,) = evaluate_sections([Evidence()], subjects)
    return result


def of_region(arrays: Simulated, members: np.ndarray) -> dict[str, float]:
    """By least squares with the whole design of each voxel, and its hat matrix."""
    n = len(arrays.responses)
    product, spread, slopes = np.zeros(n), np.zeros(n), []
    nonlinear = linear = 0.0
    for k in members:
        y = arrays.responses[:, k] / arrays.responses[:, k].std()
        g = arrays.nonlinear[:, k]
        fits = (x[:, k] for x in (arrays.ridge, arrays.least, arrays.prediction - arrays.nonlinear))
        others = np.column_stack([np.ones(n), *fits])
        hat = others @ np.linalg.pinv(others)
        rest, part = y - hat @ y, g - hat @ g
        full = np.column_stack([others, g])
        leverage = np.diag(full @ np.linalg.pinv(full))
        coefficients, *_ = np.linalg.lstsq(full, y, rcond=None)
        slope, left = coefficients[-1], y - full @ coefficients
        product += part * rest
        spread += part * left / (1 - leverage)
        power = part @ part
        noise = (part**2 * left**2 / (1 - leverage)).sum() / power**2
        nonlinear += (slope**2 - noise) * power / n
        h = np.diag(hat)
        overfit = ((h - 1 / n) * rest**2 / (1 - h)).mean()
        linear += np.var(hat @ y) - overfit
        slopes.append(slope * arrays.responses[:, k].std())
    z = product.sum() / np.sqrt((spread**2).sum())
    return {
        "nonlinear_z": z,
        "nonlinear_p": stats.t.sf(z, n - 5),
        "r2_nonlinear_part": nonlinear / len(members),
        "r2_linear_part": linear / len(members),
        "validated_share": nonlinear / (nonlinear + linear),
        "slopes": slopes,
    }


def trained(data, rois):
    """The rows of these ROIs that have evidence, and their columns in the arrays."""
    rows = data.voxels.drop(index=CONSTANT)
    at = np.flatnonzero(rows["roi"].isin(rois))
    return rows.iloc[at], at


def test_every_number_of_a_region_is_what_its_voxels_give(subjects, simulated, result):
    table = result.tables["evidence"].set_index(["subject", "level", "group"])
    for data in subjects:
        assert list(table.loc[data.name].index) == list(GROUPS)
        _, arrays = simulated[data.name]
        p, _ = voxelwise(arrays)
        q = stats.false_discovery_control(p)
        for key, rois in GROUPS.items():
            rows, at = trained(data, rois)
            expected = of_region(arrays, at)
            slopes = np.array(expected.pop("slopes"))
            found = table.loc[(data.name, *key)]
            close(found, expected, expected, rel=1e-3, abs=1e-4)
            analysed = rows["analysed"].to_numpy()
            jne = rows["jne"].to_numpy()
            expected = {
                "n_voxels": len(rows),
                "n_nonlinear": (q[at] <= RATE).sum(),
                "voxels_nonlinear": (q[at] <= RATE).mean(),
                "jne": jne[analysed].mean(),
                "jne_calibrated": (np.maximum(slopes, 0) * jne)[analysed].mean(),
            }
            close(found, expected, expected, rel=1e-4)
            # The interval: the same voxels, alone
            alone = region_evidence(Simulated(*(x[:, at] for x in arrays)), np.full(len(at), "x"))
            ends = alone.regions.table({"x": ["x"]}).loc["x"]
            close(found, ends, ("validated_share_low", "validated_share_high"), rel=1e-4)
            assert found["validated_share_low"] < found["validated_share"]
            assert found["validated_share"] < found["validated_share_high"]


def voxelwise(arrays):
    each = [of_region(arrays, np.array([k])) for k in range(arrays.responses.shape[1])]
    return np.array([one["nonlinear_p"] for one in each]), each


def test_holm_is_over_the_regions_of_a_level(result):
    for tables in result.by_subject.values():
        for _, rows in tables["evidence"].groupby("level"):
            expected = multipletests(rows["nonlinear_p"], method="holm")[1]
            np.testing.assert_allclose(rows["p_holm"], expected)


def test_the_truth_is_in_the_tables(result):
    """V1 of the first subject has no nonlinear part; EBA's is four times that of V2."""
    table = result.by_subject["subj01"]["evidence"].set_index("group")
    assert table.loc["V1", "nonlinear_p"] > 0.05
    assert table.loc["V1", "validated_share_low"] <= 0
    assert table.loc["V1", "n_nonlinear"] == 0
    assert table.loc["EBA", "n_nonlinear"] == 5
    for roi, size in (("V2", 0.6), ("EBA", 1.2)):
        truth = size**2 * 1.25 / (size**2 * 1.25 + 1)
        row = table.loc[roi]
        assert row["validated_share_low"] < truth < row["validated_share_high"]


def test_steps_from_tier_to_tier(subjects, result):
    table = result.tables["evidence_steps"].set_index(["subject", "lower", "upper"])
    for data in subjects:
        evidence = data.subject.nonlinear.region_evidence
        sums = evidence.sums

        def share_by_weight(roi, weight, sums=sums, rois=evidence.rois):
            """The share, were the stimuli weighted a little differently: (n,) derivative."""
            k = rois.index(roi)
            nonlinear = sums.nonlinear[k] + 2 * weight * sums.nonlinear_pull[:, k]
            linear = sums.linear[k] + weight * sums.linear_pull[:, k]
            return nonlinear / (nonlinear + linear)

        for (low, lower), (high, upper) in pairwise(TIERS):
            step = 1e-5
            change = [
                share_by_weight(high, w) - share_by_weight(low, w) for w in (-step, 0.0, step)
            ]
            derivative = (change[2] - change[0]) / (2 * step)
            half = Z * np.sqrt((derivative**2).sum())
            centre = change[1][0]
            expected = {"difference": centre, "difference_low": centre - half,
                        "difference_high": centre + half}  # fmt: skip
            close(table.loc[data.name, lower, upper], expected, expected, rel=1e-5)
        assert len(table.loc[data.name]) == 2

        def slope_by_weight(weight, share=share_by_weight):
            """Over the ranks of V1, V2 and EBA."""
            each = np.array([share(roi, np.full(N_STIMULI, weight)) for roi, _ in TIERS])
            return np.polyfit([0, 1, 2], each, 1)[0]

        slope = slope_by_weight(0.0)[0]
        derivative = (slope_by_weight(step) - slope_by_weight(-step)) / (2 * step)
        error = np.sqrt((derivative**2).sum())
        trend = result.tables["evidence_trend"].set_index("subject").loc[data.name]
        expected = {"slope": slope, "slope_low": slope - Z * error, "slope_high": slope + Z * error}
        close(trend, expected, expected, rel=1e-5)
        # A rare p, of a large z
        assert np.log(trend["p"]) == pytest.approx(stats.norm.logsf(slope / error) + np.log(2))


def test_rows_over_subjects_are_random_effects_means_and_the_sign(result):
    for table, keys, name in (
        ("evidence", ["level", "group"], "validated_share"),
        ("evidence_steps", ["lower", "upper"], "difference"),
    ):
        rows = result.tables[table]
        across = rows[rows["subject"] == "all"].set_index(keys)
        each = rows[rows["subject"] != "all"].set_index(keys)
        assert len(across) == len(each) / 2
        for key in across.index:
            both = each.loc[[key]]
            width = both[f"{name}_high"] - both[f"{name}_low"]
            mean, low, high = random_effects_mean(both[name].to_numpy(), width.to_numpy() / (2 * Z))
            expected = {name: mean, f"{name}_low": low, f"{name}_high": high, "n_subjects": 2,
                        "n_clear": (both[f"{name}_low"] > 0).sum()}  # fmt: skip
            close(across.loc[key], expected, expected)


def percent(row):
    numbers = [row[f"validated_share{end}"] for end in ("", "_low", "_high")]
    share, low, high = (f"{100 * x:.0f}".replace("-0", "0") for x in numbers)
    return f"{share} % [{low}, {high}]"


def test_what_the_reader_is_told(subjects, result):
    findings = collect_findings(subjects, [result])
    first, rise = findings[result.section, "subj01"]
    row = result.by_subject["subj01"]["evidence"].set_index("group").loc
    assert first.startswith(
        f"Of what is predicted of unseen responses, {percent(row['all'])} is by the nonlinear part "
        f"of the encoder alone (validated share, p "
    )
    n = row["all"]["n_nonlinear"]
    assert first.endswith(
        f"{percent(row['EBA'])} in EBA; {n} of 14 voxels are nonlinear at a false discovery rate "
        "of 10 %."
    )
    assert rise.startswith("The validated share rises from PVC to IVC by ")
    assert re.search(r"; its slope is \d+ percentage points per tier \[\d+, \d+\] \(p", rise)
    (across,) = findings[result.section, None]
    assert "exists in unseen responses in 2 of 2 (p < 0.05); it rises clearly from PVC" in across
    assert sentences(findings)[0] == across
    scalars = result.section.scalars(result.tables)
    assert scalars["validated_share/subj01"] == row["all"]["validated_share"]
    assert scalars["nonlinear_z/subj02"] > 2
    assert {name for name in scalars if name.endswith("/all")} == {"validated_share/all"}
    assert len(result.section.caveats(subjects, result.tables)) == 2
    assert "q by Benjamini-Hochberg, 10 %" in result.section.text(subjects[0], result.tables)


def test_where_nothing_nonlinear_exists_one_sentence_says_so(folder):
    run, _ = with_evidence(
        write_run(folder / "none", subject="subj03"), dict.fromkeys(["V1", "V2", "EBA"], 0.0), 5
    )
    data = tables_of(folder, run)
    (result,) = evaluate_sections([Evidence()], data)
    whole = result.by_subject["subj03"]["evidence"].iloc[0]
    assert (whole["nonlinear_p"] > 0.05, whole["n_nonlinear"]) == (True, 0)
    (sentence,) = result.section.findings(data[0], result.by_subject["subj03"])
    assert sentence.startswith("No nonlinear part of the prediction exists in unseen responses (p ")
    assert sentence.endswith("JNE here describes the training, not the brain.")


def changed(tables, **values):
    table = tables["evidence"].copy()
    table.loc[0, list(values)] = list(values.values())
    return tables | {"evidence": table}


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"nonlinear_p": np.nan}, "The predictions of the encoder are linear"),
        ({"nonlinear_p": 0.5, "n_nonlinear": 2}, "2 of 14 voxels are nonlinear at"),
        ({"validated_share": np.nan, "n_nonlinear": 2}, "2 of 14 voxels are nonlinear at"),
        ({"nonlinear_p": 0.5, "n_nonlinear": 0}, "No nonlinear part of the prediction exists"),
    ],
)
def test_nothing_is_claimed_where_its_premise_fails(subjects, result, values, start):
    (sentence,) = Evidence().findings(subjects[0], changed(result.by_subject["subj01"], **values))
    assert sentence.startswith(start)
    assert "rises" not in sentence
    assert "nan" not in sentence


def test_over_subjects_without_evidence_of_any(subjects, result):
    table = result.tables["evidence"].assign(nonlinear_p=0.5)
    (sentence,) = Evidence().findings_across(subjects, result.tables | {"evidence": table})
    assert "in none of them a nonlinear part of the prediction exists" in sentence


def drawn(data, tables):
    with rc_context(STYLE):
        (figure,) = Evidence().figures(data, tables).values()
    return figure.axes


def test_the_figure_shows_every_region_tier_and_all_voxels(subjects, result):
    tables = result.by_subject["subj01"]
    left, right = drawn(subjects[0], tables)
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["V1", "V2", "EBA", "PVC", "IVC", "HVC", "all voxels"]
    table = tables["evidence"].set_index("group")
    marks = np.concatenate([np.asarray(m.get_offsets()) for m in left.collections[1::2]])
    order = [*labels[:-1], "all"]
    np.testing.assert_allclose(marks[:, 0], table.loc[order, "validated_share"])
    against = np.asarray(right.collections[1].get_offsets())
    np.testing.assert_allclose(
        against, table.loc[labels[:3], ["jne_calibrated", "validated_share"]]
    )


def test_beside_the_nonlinear_share_it_is_drawn_against_that(folder, simulated):
    share = {"EBA": 0.6, "V1": 0.0, "V2": 0.3}
    plain, _ = with_evidence(write_run(folder / "both"), {"V1": 0.0, "V2": 0.6, "EBA": 1.2})
    (data,) = tables_of(folder, with_shares(plain, share))
    results = evaluate_sections([Share(), Evidence()], [data])
    of_signal, evidence = (result.by_subject["subj01"] for result in results)
    table, expected = (
        tables.set_index(["level", "group"])
        for tables in (evidence["evidence"], of_signal["share"])
    )
    np.testing.assert_allclose(
        table["nonlinear_share"], expected.loc[table.index, "nonlinear_share"]
    )
    right = drawn(data, evidence)[1]
    assert right.get_xlabel() == "nonlinear share"
    np.testing.assert_allclose(
        np.asarray(right.collections[1].get_offsets())[:, 0],
        [expected.loc[("roi", roi), "nonlinear_share"] for roi in ("V1", "V2", "EBA")],
    )


def test_a_run_without_evidence_has_no_section_but_a_sentence(folder, subjects, tmp_path):
    plain = tables_of(folder, write_run(folder / "plain"))
    results = evaluate_sections([Evidence()], plain)
    section, tables = results[0].section, results[0].by_subject["subj01"]
    assert results[0].tables == tables == section.figures(plain[0], tables) == {}
    assert section.caveats(plain, {}) == []
    (sentence,) = section.findings(plain[0], tables)
    assert sentence.startswith("JNE has no null in this run")
    assert section.page_tables(plain[0], tables) == section.scalars({}) == {}
    assert section.text(plain[0], tables) == ""
    page = build_page(plain, results, {}, collect_findings(plain, results), tmp_path)
    assert section.title not in page
    without = replace(subjects[0], voxels=subjects[0].voxels.drop(columns="nonlinear_p"))
    assert section.tables(without) == {}, "a table without the columns"


def test_it_stands_after_the_share():
    assert [type(section) for section in SECTIONS[1:3]] == [Share, Evidence]
