"""Scores and metrics of a run: a new one is one entry."""

import numpy as np
import pandas as pd
import pytest
import torch

from jne import columns
from jne.analysis.nonlinearity import gain_change, shape_change
from jne.analysis.prediction import pearson_r
from jne.columns import RUN, Column
from jne.jacobian import jacobian_deviation
from jne.results import Results
from jne.training import steps


@pytest.mark.runs
def test_a_new_score_and_a_new_metric_are_an_entry_each(run_train, monkeypatch):
    """They become columns of voxels.csv, the metric also for each variant."""
    score = Column("r", "r", RUN, "", array="predictions", reduce=pearson_r)
    largest = Column("largest", "", RUN, "", array="deviation", reduce=lambda s: np.max(s, axis=0))
    monkeypatch.setattr(columns, "COLUMNS", (*columns.COLUMNS, score, largest))
    (folder,) = run_train("jacobian.variants=[l1,l2]")
    run = Results(folder)
    responses, predictions = run.array("responses"), run.array("predictions")
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(responses.T, predictions.T, strict=True)]
    np.testing.assert_allclose(run.voxels["r"], expected, rtol=1e-5)
    np.testing.assert_allclose(run.voxels["largest"], run.array("deviation").max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(
        run.voxels["largest_l2"], run.array("deviation_l2").max(axis=0), rtol=1e-6
    )


@pytest.mark.parametrize("voxels", [pytest.param("all", marks=pytest.mark.runs), "[V1]"])
def test_gain_and_shape_are_columns(run_train, voxels):
    (folder,) = run_train(f"jacobian.voxels={voxels}", "jacobian.variants=[l1,l2]")
    run = Results(folder)
    encoder, x = run.encoder(), torch.tensor(np.array(run.array("features")))
    arrays = jacobian_deviation(encoder.double(), x.double(), variant=["l1"], gain_shape=True)
    asked_for = (run.voxels["roi"] == "V1").to_numpy() | (voxels == "all")
    assert (np.isfinite(run.array("gain")) == asked_for).all()
    for column, expected in (
        ("gain_change", gain_change(arrays["gain"])),
        ("shape_change", shape_change(arrays["shape"])),
    ):
        np.testing.assert_allclose(run.voxels[column][asked_for], expected[asked_for], rtol=1e-4)
        assert run.voxels[column][~asked_for].isna().all()
    # Of all trained voxels, whichever were asked for
    of_all = jacobian_deviation(encoder.double(), x.double(), variant="l2")
    rms = np.sqrt(np.square(of_all).mean(axis=0))
    np.testing.assert_allclose(run.voxels["rms_deviation"], rms, rtol=1e-4)
    assert not list(folder.glob("*shape*"))
    assert not list(folder.glob("measured*"))


@pytest.mark.runs
def test_steps_of_a_run_return_what_the_next_one_uses(run_train, monkeypatch):
    """The nonlinearity that train.py gets is what the results folder holds."""
    returned = []
    original = steps.measure_nonlinearity

    def kept(*arguments):
        returned.append(original(*arguments))
        return returned[-1]

    monkeypatch.setattr(steps, "measure_nonlinearity", kept)
    (folder,) = run_train()
    (measured,) = returned
    run = Results(folder)
    assert measured.jne_ss.shape == measured.deviation.shape == (20, 30)
    columns = pd.DataFrame(measured.columns)
    pd.testing.assert_frame_equal(columns, run.voxels[list(columns)], rtol=1e-6, check_dtype=False)
