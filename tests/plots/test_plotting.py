"""The figures of `jne.plotting`: axes in, axes out, and what is in them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from finished_run import write_run
from matplotlib.collections import LineCollection
from region_evidence import with_evidence

import jne
from jne import plotting
from jne.analysis.inference import share_interval
from jne.errors import InputError
from jne.plots.style import subplots

matplotlib.use("Agg")
UNIT = "(SD of response per SD of feature)"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "first")


def segments(axes) -> list[np.ndarray]:
    lines = [drawn for drawn in axes.collections if isinstance(drawn, LineCollection)]
    return [line.get_segments()[0] for line in lines]


def test_the_functions_draw_into_given_axes_and_return_them(run):
    _, axes = subplots()
    assert plotting.plot_by_roi(run, "jne", axes) is axes
    assert plotting.plot_scatter(run, run, ax=axes) is axes
    _, both = subplots(1, 2)
    assert plotting.plot_training(run, axes=both) is both
    assert set(plotting.__all__) == set(dir(plotting))
    assert jne.plotting is plotting


def test_regions_have_medians_units_and_the_number_of_voxels(run):
    axes = plotting.plot_by_roi(run)
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["V1", "V2", "EBA"]
    medians = [segment[0, 1] for segment in segments(axes)]
    expected = [run.voxels.query(f"roi == '{roi}'")["jne"].median() for roi in names]
    np.testing.assert_allclose(medians, expected)
    assert axes.get_ylabel() == f"JNE\n{UNIT}"
    assert axes.get_title(loc="left") == "JNE by ROI, n = 14 voxels"


def test_the_level_of_the_null_is_drawn_where_the_table_has_it(run):
    voxels = run.voxels.dropna(subset=["r2"])
    medians = voxels.groupby("roi", observed=True)["r2_ridge"].median()
    axes = plotting.plot_by_roi(run, "r2")
    np.testing.assert_allclose([segment[0, 1] for segment in segments(axes)[3:]], medians)
    assert "median R² ridge" in [text.get_text() for text in axes.get_legend().get_texts()]
    r2 = plotting.plot_by_roi(run.voxels.assign(r2=np.linspace(-1, 1, 15)), "r2")
    assert r2.get_ylim()[0] < -1
    assert any(list(line.get_ydata()) == [0, 0] for line in r2.lines)


def test_two_measures_have_their_correlation_and_the_line_of_equality(run):
    axes = plotting.plot_scatter(run, run, ("r2_ridge", "r2"))
    r2, ridge = run.voxels["r2"].dropna(), run.voxels["r2_ridge"].dropna()
    r = np.corrcoef(r2, ridge)[0, 1]
    assert axes.get_title(loc="left") == f"r = {r:.2f}, n = 14"
    identity, drawn = axes.lines
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    np.testing.assert_array_equal(np.sort(drawn.get_ydata()), np.sort(r2))
    assert axes.get_xlim() == axes.get_ylim()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("R² ridge", "R²")


def test_measures_of_other_units_have_no_line_of_equality(run):
    axes = plotting.plot_scatter(run, run, ("r2", "jne"))
    assert len(axes.lines) == 1
    assert axes.get_xlim() != axes.get_ylim()
    many = np.random.default_rng(0).normal(size=(2, 500))
    assert len(plotting.plot_scatter(*many).collections) == 1, "a density"


def test_runs_are_told_apart_and_must_have_the_same_voxels(run, tmp_path):
    other = write_run(tmp_path / "second", placement="none")
    axes = plotting.plot_scatter(run, other)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("R²\nfirst", "R²\nsecond")
    other.voxels = other.voxels.iloc[::-1]
    with pytest.raises(InputError, match="y: has other voxels than x"):
        plotting.plot_scatter(run, other)
    with pytest.raises(InputError, match=r"y: must have a value for each voxel of x, \(15,\)"):
        plotting.plot_scatter(run, np.ones(4))
    with pytest.raises(InputError, match=r"measure=r2s: .*did you mean r2\?"):
        plotting.plot_scatter(run, run, "r2s")


def test_the_summary_of_a_run_without_evidence_is_jne_and_r2(run):
    strength, prediction = plotting.plot_summary(run)
    names = [label.get_text() for label in strength.get_yticklabels()]
    assert names == ["V1", "V2", "EBA", "all voxels"]
    medians = strength.collections[-1].get_offsets()[:, 0]
    groups = [run.voxels[run.voxels["roi"] == roi]["jne"] for roi in names[:3]]
    expected = [values.median() for values in (*groups, run.voxels["jne"])]
    np.testing.assert_allclose(medians, expected)
    assert prediction.get_xlabel() == "n = 15 voxels, 24 test stimuli"
    drawn = {line.get_label(): line.get_xdata() for line in prediction.lines}
    assert drawn["nonlinear encoder"][-1] == pytest.approx(run.voxels["r2"].mean())


def test_the_summary_of_a_run_with_evidence_has_shares_and_how_many_voxels(tmp_path):
    run, _ = with_evidence(write_run(tmp_path / "run"), {"V1": 0.0, "V2": 0.6, "EBA": 1.2})
    strength, voxels, _ = plotting.plot_summary(run)
    shares = run.regions["validated_share"]
    np.testing.assert_allclose(strength.collections[-1].get_offsets()[:, 0], shares)
    share = voxels.collections[-1].get_offsets()[:, 0]
    np.testing.assert_allclose(share, run.regions["nonlinear"])
    q = run.voxels["nonlinear_p_fdr"].dropna()
    _, low, high = share_interval(int((q <= 0.1).sum()), len(q))
    np.testing.assert_allclose(voxels.collections[0].get_segments()[-1][:, 0], [low, high])


def test_training_marks_the_epoch_of_the_run(run):
    epochs = pd.DataFrame(
        {"epoch": range(1, 7), "train/loss": 1.0, "val/loss": np.arange(6.0), "val/r2": 0.5}
    )
    left, right = plotting.plot_training(epochs, 3)
    np.testing.assert_array_equal(left.lines[0].get_xdata(), range(1, 7))
    assert list(right.lines[-1].get_xdata()) == [3, 3]
    run.epochs, run.summary["metrics"]["train/best_epoch"] = epochs, 5
    assert list(plotting.plot_training(run)[1].lines[-1].get_xdata()) == [5, 5]
    assert len(plotting.plot_training(epochs)[1].lines) == 1


def test_a_map_has_its_label_and_voxels_without_a_place_are_refused(run):
    with pytest.raises(InputError, match="run: the voxels have no position in a brain"):
        plotting.plot_map(run)
    places = {"i": np.arange(15) % 4, "j": np.arange(15) // 4, "k": 0}
    run.voxels, run.space = run.voxels.assign(**places), {"shape": [4, 4, 2], "affine": np.eye(4)}
    _, given = subplots(layout="constrained")
    axes = plotting.plot_map(run, "mean_deviation", given)
    assert axes is given
    image = axes.child_axes[0].images[0].get_array()
    values = run.voxels["mean_deviation"]
    np.testing.assert_allclose(np.sort(image.compressed()), np.sort(values.dropna()), rtol=1e-6)
    bar = axes.figure.axes[-1]
    assert bar.get_ylabel() == f"mean deviation, n = 14 voxels\n{UNIT}"
