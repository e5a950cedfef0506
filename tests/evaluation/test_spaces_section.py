"""The section on feature spaces, on a run that was never trained, against numbers by hand."""

import numpy as np
import pytest
from finished_run import CONSTANT, N_VOXELS, write_run
from matplotlib import rc_context
from two_subjects import tables_of

from jne.evaluation.report import build_page, collect_findings
from jne.evaluation.sections import evaluate_sections
from jne.evaluation.sections.feature_spaces import FeatureSpaces
from jne.plots.style import STYLE
from jne.results import Results
from jne.results.spaces import write_spaces
from jne.utils.spaces import cell_names
from jne.utils.tables import write_table

SPACES = {"clip": slice(0, 2), "depth": slice(2, 6)}
# Voxels 0 to 4 are V1, to 9 V2, to 14 EBA; the fifth was not trained on
IN = ["linear", "clip", "linear", "linear", "", *(["clip"] * 3), "depth", "linear",
      *(["interaction"] * 4), "depth"]  # fmt: skip


def with_spaces(run, nonlinear_in=IN, interaction=True, scale=1.0):
    """The run with spaces: a quarter of the deviation in clip; numbers that end with the voxel."""
    trained = np.where(np.arange(N_VOXELS) == CONSTANT, np.nan, scale)
    at, whole = np.arange(N_VOXELS), run.voxels["mean_deviation"].to_numpy()
    measured = {
        "clip": {"mean_deviation": whole / 4, "r2_split": trained * (0.1 + at / 100),
                 "r2_unique": trained * 0.05, "r2_nonlinear_part": trained * at / 100,
                 "validated_share": trained * np.where(at == 7, np.nan, 0.2)},
        "depth": {"mean_deviation": 3 * whole / 4, "r2_split": trained * -0.02,
                  "r2_unique": trained * 0.01, "r2_nonlinear_part": trained * 0.03,
                  "validated_share": trained * np.where(at < 5, 0.1, 0.3)},
        "interaction": {"r2_nonlinear_part": trained * 0, "validated_share": trained * 0},
    }  # fmt: skip
    if not interaction:
        measured = {name: {"mean_deviation": measured[name]["mean_deviation"]} for name in SPACES}
    write_spaces(run.path, run.voxels, SPACES, measured)
    if nonlinear_in is not None:
        write_table(run.path / "voxels.csv", run.voxels.assign(nonlinear_in=nonlinear_in))
    return Results(run.path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spaces")


@pytest.fixture(scope="module")
def subjects(folder):
    first = with_spaces(write_run(folder / "a"))
    other = with_spaces(write_run(folder / "b", subject="subj02"), ["linear"] * 15, scale=0.5)
    return tables_of(folder, first, other)


@pytest.fixture(scope="module")
def result(subjects):
    (result,) = evaluate_sections([FeatureSpaces()], subjects)
    return result


def row(result, group, space, subject="subj01"):
    table = result.tables["feature_spaces"].set_index(["subject", "group", "space"])
    return table.loc[(subject, group, space)]


def test_every_number_of_a_region_and_space(result):
    names = list(result.by_subject["subj01"]["feature_spaces"]["group"].unique())
    assert names == ["all", "V1", "V2", "EBA", "PVC", "IVC", "HVC"]
    v2 = row(result, "V2", "clip")  # voxels 5 to 9
    assert (v2["level"], v2["n_voxels"], v2["n_nonlinear"]) == ("roi", 5, 3)
    assert v2["voxels_nonlinear"] == pytest.approx(0.6)
    assert v2["deviation_share"] == pytest.approx(0.25, abs=1e-5)
    assert v2["r2_split"] == pytest.approx(0.17)
    assert v2["r2_unique"] == pytest.approx(0.05)
    assert v2["r2_nonlinear_part"] == pytest.approx(0.07)
    v1 = row(result, "V1", "depth")  # without the voxel that was not trained on
    assert (v1["n_voxels"], v1["n_nonlinear"]) == (4, 0)
    assert v1["deviation_share"] == pytest.approx(0.75, abs=1e-5)
    assert row(result, "EBA", "interaction")["n_nonlinear"] == 4
    assert np.isnan(row(result, "EBA", "interaction")["deviation_share"])
    assert row(result, "HVC", "depth")["n_nonlinear"] == 1


def test_the_validated_share_is_the_ratio_of_sums_over_voxels(result):
    """Of a voxel, r2 / share is predicted; one without a share is left out."""
    # depth: 4 voxels of V1 with 0.03 of 0.3, 10 others with 0.03 of 0.1
    assert row(result, "V1", "depth")["validated_share"] == pytest.approx(0.1)
    expected = 14 * 0.03 / (4 * 0.3 + 10 * 0.1)
    assert row(result, "all", "depth")["validated_share"] == pytest.approx(expected)
    assert row(result, "V2", "clip")["validated_share"] == pytest.approx(0.2)
    assert np.isnan(row(result, "V2", "interaction")["validated_share"])


def test_over_subjects_counts_add_up_and_shares_are_means(result):
    both = row(result, "V2", "clip", "all")
    assert (both["n_voxels"], both["n_nonlinear"], both["n_subjects"]) == (10, 3, 2)
    assert both["voxels_nonlinear"] == pytest.approx(0.3)
    assert both["r2_split"] == pytest.approx(0.75 * 0.17)
    scalars = result.section.scalars(result.tables)
    assert scalars["voxels_nonlinear_in/clip/subj01"] == pytest.approx(4 / 14)
    assert scalars["voxels_nonlinear_in/interaction/all"] == pytest.approx(2 / 14)


def test_what_the_reader_is_told(subjects, result, tmp_path):
    findings = collect_findings(subjects, [result])
    assert findings[result.section, "subj01"] == [
        "At a false discovery rate of 10 %, 4 of 14 voxels are nonlinear in clip (most in V2: 3 of "
        "5); 4 in several spaces together (most in EBA: 4 of 5); 2 in depth (most in V2: 1 of 5)."
    ]
    (none,) = findings[result.section, "subj02"]
    assert none.startswith("No voxel is nonlinear in any of the feature spaces")
    page = build_page(subjects, [result], {}, findings, tmp_path)
    assert result.section.title in page
    assert "Nonlinearity by region and feature space" in page


def test_the_bars_of_a_region_are_its_parts(subjects, result):
    with rc_context(STYLE):
        (figure,) = FeatureSpaces().figures(subjects[0], result.by_subject["subj01"]).values()
    counted, deviation, r2 = figure.axes
    assert [label.get_text() for label in counted.get_yticklabels()] == [
        "V1", "V2", "EBA", "all voxels"
    ]  # fmt: skip

    def bars(panel, y):
        boxes = [bar for bar in panel.patches if bar.get_width() and round(bar.get_y() + 0.35) == y]
        return [(bar.get_x(), bar.get_width()) for bar in boxes]

    np.testing.assert_allclose(bars(counted, 1), [(0, 0.6), (0.6, 0.2)])
    np.testing.assert_allclose(bars(deviation, 0), [(0, 0.25), (0.25, 0.75)], atol=1e-5)
    np.testing.assert_allclose(bars(r2, 1), [(0, 0.17), (0, -0.02)])


def test_of_cells_the_image_is_drawn_in_place_of_bars(folder, tmp_path):
    run = write_run(folder / "cells")
    whole, at = run.voxels["mean_deviation"].to_numpy(), np.arange(N_VOXELS)
    parts = np.array([[0.1, 0.2], [0.3, 0.4]])
    parts = np.where(at[:, None] < 5, parts.ravel(), parts.T.ravel())  # V1; others
    columns = slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 6)
    cells = dict(zip(cell_names(2), columns, strict=True))
    measured = {name: {"mean_deviation": whole * parts[:, k]} for k, name in enumerate(cells)}
    write_spaces(run.path, run.voxels, cells, measured)
    (data,) = tables_of(folder, Results(run.path))
    (result,) = evaluate_sections([FeatureSpaces()], [data])
    with rc_context(STYLE):
        figures = FeatureSpaces().figures(data, result.by_subject["subj01"])
    assert list(figures) == ["feature_spaces_cells"]
    *panels, _ = figures["feature_spaces_cells"].axes
    assert [panel.get_title("left") for panel in panels] == ["all voxels", "V1", "V2", "EBA"]
    for panel, expected in zip(
        panels[1:3], ([[0.1, 0.2], [0.3, 0.4]], [[0.1, 0.3], [0.2, 0.4]]), strict=True
    ):
        np.testing.assert_allclose(panel.images[0].get_array(), expected, atol=1e-5)
    assert panels[0].get_ylabel().replace("\n", " ") == "share of the mean deviation"
    build_page([data], [result], {}, {}, tmp_path)


def test_without_evidence_the_deviation_alone(folder):
    run = with_spaces(write_run(folder / "c"), None, interaction=False)
    (data,) = tables_of(folder, run)
    (result,) = evaluate_sections([FeatureSpaces()], [data])
    table = result.by_subject["subj01"]["feature_spaces"]
    assert list(table.columns) == ["level", "group", "space", "n_voxels", "deviation_share"]
    assert result.section.findings(data, {"feature_spaces": table}) == []
    assert result.section.scalars(result.tables) == {}
    (figure,) = result.section.figures(data, {"feature_spaces": table}).values()
    assert len(figure.axes) == 1


def test_with_one_feature_space_there_is_no_section(folder, tmp_path):
    data = tables_of(folder, write_run(folder / "d"))
    (result,) = evaluate_sections([FeatureSpaces()], data)
    section, nothing = result.section, result.by_subject["subj01"]
    assert result.tables == nothing == section.figures(data[0], nothing) == {}
    assert section.caveats(data, {}) == section.findings(data[0], nothing) == []
    assert section.title not in build_page(data, [result], {}, {}, tmp_path)
