"""Residuals of consecutive rows: their correlation by hand, and the sentence."""

import numpy as np
import pytest
from helpers import small_cells
from scipy.signal import lfilter

from jne.data.datamodule import EncodingData
from jne.data.folds import Cutting
from jne.data.prepared import prepare
from jne.measuring.autocorrelation import autocorrelated, lag_one


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(small_cells(n_test=120), tmp_path_factory.mktemp("cells"))


def test_the_median_over_voxels_by_hand(prepared):
    data = EncodingData(prepared, batch_size=None, seed=0)
    rows, y = data.rows["test"], data.split("test")[1].numpy()
    assert (np.diff(rows) == 1).all()
    noise = lfilter([1], [1, -0.8], np.random.default_rng(0).standard_normal(y.shape), axis=0)
    expected = [np.corrcoef(noise[1:, v], noise[:-1, v])[0, 1] for v in range(y.shape[1])]
    found = lag_one(data, y - noise)
    assert found == pytest.approx(np.median(expected), abs=1e-5)
    assert f"r {found:.2f}" in autocorrelated(data, y - noise)
    white = np.random.default_rng(1).standard_normal(y.shape)
    assert autocorrelated(data, y - white) == ""


def test_nothing_is_said_of_groups_and_of_few_pairs(prepared):
    data = EncodingData.cut(prepared, Cutting(purge=2), batch_size=None, seed=0)
    y = data.split("test")[1].numpy()
    alike = np.ones_like(y) * np.linspace(0, 1, len(y))[:, None]
    assert autocorrelated(data, y - alike) == ""
    single = {**data.rows, "test": data.rows["test"][::2]}
    apart = EncodingData(prepared, batch_size=None, seed=0, rows=single)
    assert np.isnan(lag_one(apart, np.zeros((len(single["test"]), y.shape[1]))))
