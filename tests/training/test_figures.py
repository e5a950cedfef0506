"""The figures of a training run, and what is said of many ROIs."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context

from jne.plots.style import STYLE
from jne.results.contents import regions_in_mlflow, roi_table, summarise
from jne.roi import ROIS
from jne.training import figures
from jne.training.shown import say_what_is_shown


def voxels_of(n_rois: int, paper: bool = False) -> pd.DataFrame:
    """Three voxels per ROI; JNE rises with the number of the ROI."""
    names = [f"area{k:05d}" for k in range(n_rois)]
    names[: len(ROIS) * paper] = ROIS[: len(ROIS) * paper]
    jne = np.repeat(np.arange(n_rois, dtype=float), 3) + np.tile([0.0, 0.1, 0.5], n_rois)
    columns = dict.fromkeys(("r2", "p_fdr", "jne_ss_p95", "mean_deviation"), 0.5)
    return pd.DataFrame({"roi": np.repeat(names, 3), "jne": jne, "status": "ok", **columns})


def test_epochs_are_counted_from_1_in_whole_numbers():
    table = pd.DataFrame(
        {"epoch": range(1, 7), "train/loss": 1.0, "val/loss": np.arange(6.0), "val/r2": 0.5}
    )
    figure = figures.training_curves(table, best_epoch=3)
    figure.canvas.draw()
    for panel in figure.axes:
        np.testing.assert_array_equal(panel.lines[0].get_xdata(), range(1, 7))
        assert list(panel.lines[-1].get_xdata()) == [3, 3], "the weights that were kept"
        labels = [label.get_text() for label in panel.get_xticklabels()]
        assert all(label.replace("−", "-").lstrip("-").isdecimal() for label in labels)
    followed = pd.DataFrame(
        {"epoch": [1, 2, 3, 2], "stage": ["training"] * 3 + ["final"], "voxel": 0, "roi": "V1",
         "r2": 0.5, "jne": 1.0}
    )  # fmt: skip
    for panel in figures.trajectories(followed, best_epoch=2).axes:
        np.testing.assert_array_equal(panel.lines[0].get_xdata(), [1, 2, 3])
        assert panel.get_xticks()[0] == 1


@pytest.mark.runs
def test_of_many_rois_figures_show_the_50_strongest_and_say_so():
    voxels = voxels_of(2000)
    jne_ss = np.abs(np.random.default_rng(0).standard_normal((7, len(voxels))))
    expected = [f"area{k:05d}" for k in range(1950, 2000)]
    with rc_context(STYLE):
        strip, violins = figures.overview(voxels), figures.by_roi(voxels, "jne", "mean_deviation")
        matrix = figures.jne_ss_map(voxels, jne_ss)
    assert len(strip.axes[0].patches) == 50
    for panel in (violins.axes[1], matrix.axes[0]):
        assert [label.get_text() for label in panel.get_xticklabels()] == expected
    for title in (strip.axes[0], violins.axes[0], matrix.axes[0]):
        assert "the 50 of 2000 ROIs with the highest median" in title.get_title(loc="left")
    # The strongest voxels are those of the last ROI: area01999 is column 49.
    assert matrix.axes[0].images[0].get_array().shape == (7, 150)


def test_up_to_50_rois_figures_show_all_in_their_order():
    voxels = voxels_of(50, paper=True)
    with rc_context(STYLE):
        labels = figures.by_roi(voxels, "jne", "mean_deviation").axes[1].get_xticklabels()
    assert [label.get_text() for label in labels] == list(voxels["roi"].unique())


@pytest.mark.parametrize(
    ("n_rois", "paper", "metrics", "said"),
    [
        (12, False, 12, ""),
        (13, False, 0, "of 13 ROIs, MLflow has metrics of none; rois.csv"),
        (13, True, 10, f"of 13 ROIs, MLflow has metrics of {', '.join(ROIS)}; rois.csv"),
        (60, False, 0, "the 50 of 60 ROIs with the highest mean JNE; rois.csv has all"),
    ],
)
def test_above_12_rois_it_is_said_which_are_in_mlflow(n_rois, paper, metrics, said, capsys):
    voxels = voxels_of(n_rois, paper)
    regions = roi_table(voxels)
    assert len(regions) == n_rois + 1
    named = regions_in_mlflow(regions)
    assert len(named) == metrics
    jne = [name for name in summarise(voxels, 0.05)["metrics"] if name.startswith("jne/")]
    assert set(jne) == {"jne/mean", "jne/median", *(f"jne/{roi}" for roi in named)}
    say_what_is_shown(regions)
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed
    assert bool(printed) == bool(said)


def test_means_by_roi_are_those_of_a_plain_computation():
    rng = np.random.default_rng(0)
    voxels = voxels_of(5).sample(frac=1, random_state=0, ignore_index=True)
    voxels["jne"] = rng.random(15)
    voxels.loc[3, ["jne", "r2"]] = np.nan
    table = roi_table(voxels).set_index("roi")
    for roi in voxels["roi"].unique():
        chosen = voxels[voxels["roi"] == roi]
        assert table.loc[roi, "n_voxels"] == 3
        assert table.loc[roi, "jne"] == chosen["jne"].mean()
        assert table.loc[roi, "jne_ss_mean"] == np.square(chosen["jne"]).mean()
    assert table.loc["all", "jne"] == pytest.approx(voxels["jne"].mean(), rel=1e-12)
