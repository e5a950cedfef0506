"""Results.predict, between the data's own units, and Results.to_xarray."""

import sys
from pathlib import Path

import numpy as np
import pytest
from finished_run import CONSTANT, N_FEATURES, N_VOXELS, write_run
from helpers import only_run, status

from jne.data.prepared import load
from jne.errors import InputError
from jne.results import Results

xarray = pytest.importorskip("xarray")


def test_predictions_are_in_the_units_of_the_data(finished_run):
    """Of raw features of the test stimuli: the run's own, with the standardisation undone."""
    run = Results(only_run(finished_run))
    prepared = load(Path(status(run.path)["prepared"]))
    train = prepared.responses[prepared.rows("train")].astype(np.float64)
    expected = run.array("predictions") * train.std(axis=0) + train.mean(axis=0)
    raw = prepared.features[prepared.rows("test")]
    found = run.predict(raw)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    precise = run.predict(raw.astype(np.float64))
    assert precise.dtype == np.float64
    np.testing.assert_allclose(precise, expected, atol=1e-5)
    np.testing.assert_allclose(run.predict(raw[3:4].tolist()), found[3:4], atol=1e-5)


def test_a_voxel_without_an_encoder_has_no_prediction(tmp_path):
    run = write_run(tmp_path / "run")
    found = run.predict(np.ones((2, N_FEATURES)))
    assert found.shape == (2, N_VOXELS)
    assert np.isnan(found[0]).nonzero()[0].tolist() == [CONSTANT]


@pytest.mark.runs
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((2, 5)), r"features: must be numbers of shape \(n_stimuli, 6\), found \(2, 5\)"),
        (np.ones(6), r"found \(6,\) float64"),
        ([["a"] * 6], r"found \(1, 6\) <U1"),
        (np.ones((2, 6), dtype=complex), "complex128"),
        (np.full((2, 6), np.nan), "features: NaN or infinite values"),
    ],
)
def test_bad_features_are_refused(features, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_run(tmp_path / "run").predict(features)


def test_a_run_as_a_dataset(tmp_path):
    stimuli = {"image": "a.png", "voxel": 1, "roi": "x", "jne": 3.0, "feature": 2}
    run = write_run(tmp_path / "run", stimuli=stimuli)
    found = run.to_xarray()
    assert dict(found.sizes) == {"stimulus": 24, "voxel": 15, "feature": 6}
    np.testing.assert_array_equal(found["jne"], run.voxels["jne"])
    np.testing.assert_array_equal(found["deviation"], run.array("deviation"))
    assert np.shares_memory(found["deviation"].values, run.array("deviation")) or isinstance(
        found["deviation"].variable._data, np.memmap
    )
    assert found["deviation"].attrs["units"].startswith("standard deviations")
    assert found.attrs["subject"] == "subj01"
    # Columns of the stimulus table that have a name of others carry its name.
    for name in ("voxel", "roi", "jne", "feature"):
        assert found[f"stimulus_{name}"].dims == ("stimulus",)
    of_v1 = found["jne"].where(found["roi"] == "V1", drop=True)
    np.testing.assert_array_equal(of_v1, run.voxels["jne"][:5])
    by_category = found["jne_ss"].groupby("category").mean("stimulus")
    expected = run.array("jne_ss")[:12].mean(axis=0)
    np.testing.assert_allclose(by_category.sel(category="animals"), expected, rtol=1e-5)
    assert float(found["r2"].sel(voxel=3)) == run.voxels["r2"][3]


def test_a_dataset_is_saved_and_read(finished_run, tmp_path):
    run = Results(only_run(finished_run))
    path = tmp_path / "run.nc"
    run.to_xarray().to_netcdf(path, engine="scipy")
    with xarray.open_dataset(path, engine="scipy") as again:
        np.testing.assert_array_equal(again["jne"], run.voxels["jne"])
        assert again["roi"].values.tolist() == run.voxels["roi"].tolist()


def test_without_xarray_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(InputError, match=r'needs xarray: pip install "jne\[xarray\]"'):
        write_run(tmp_path / "run").to_xarray()
