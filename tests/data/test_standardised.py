"""Standardised responses, in memory or from disk, against NumPy."""

import numpy as np
import pytest
import torch

from jne.data.datamodule import StandardisedData
from jne.data.responses import voxel_statistics

ROWS = {"train": np.arange(3, 20), "val": np.arange(3), "test": np.arange(20, 26)}
KEPT = np.array([0, 2, 3, 5])  # of 7 voxels


def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (26, 5)).astype(np.float32)
    x[:, 1] = 4  # a constant feature becomes 0
    y = rng.normal(rng.normal(size=7) * 5, 1 + np.arange(7) % 3, (26, 7)).astype(np.float32)
    y[ROWS["train"], 1] = 2.5
    y[22, 4] = np.nan
    y[:, 6] = y[0, 6]
    return x, y


def made(**settings):
    x, y = arrays()
    return StandardisedData(x, y, ROWS, batch_size=None, seed=5, **settings)


@pytest.mark.parametrize("in_memory", [2**30, 0])
@pytest.mark.parametrize("shuffle", [False, True])
def test_standardisation_is_by_the_training_stimuli_that_are_paired(
    monkeypatch, in_memory, shuffle
):
    monkeypatch.setattr("jne.data.responses._IN_MEMORY", in_memory)
    x, y = arrays()
    data = made(shuffle=shuffle)
    assert data.voxel_status.tolist() == [
        "ok", "constant" if not shuffle else "ok", "ok", "ok", "missing", "ok", "constant"
    ]  # fmt: skip
    kept = KEPT if not shuffle else np.array([0, 1, 2, 3, 5])
    np.testing.assert_array_equal(data.kept, kept)
    paired = y[np.random.default_rng(5).permutation(26)] if shuffle else y
    train = paired[ROWS["train"]][:, kept].astype(np.float64)
    expected = (paired[:, kept] - train.mean(axis=0)) / train.std(axis=0)
    np.testing.assert_allclose(data.responses[:], expected, rtol=1e-4, atol=1e-5)
    rows = np.array([7, 0, 25])
    np.testing.assert_allclose(data.responses.block(rows, slice(1, 3)), expected[rows, 1:3],
                               rtol=1e-4, atol=1e-5)  # fmt: skip
    varying = np.array([0, 2, 3, 4])
    standard = x[ROWS["train"]].astype(np.float64)
    z = (x - standard.mean(axis=0))[:, varying] / standard.std(axis=0)[varying]
    np.testing.assert_allclose(data.features[:, varying], z, rtol=1e-4, atol=1e-5)
    assert (data.features[:, 1] == 0).all()
    assert data.feature_scale[1] == 1
    units = data.responses[:] * data.response_scale + data.response_mean
    np.testing.assert_allclose(units, paired[:, kept], rtol=1e-4, atol=1e-4)


def test_offsets_are_part_of_the_means():
    x, y = arrays()
    shift = {"feature_offset": np.arange(5) * 1e9, "response_offset": np.arange(7) * 1e8}
    data, plain = made(**shift), made()
    torch.testing.assert_close(data.responses[:], plain.responses[:])
    train = ROWS["train"]
    np.testing.assert_allclose(data.feature_mean,
                               x[train].mean(axis=0, dtype=np.float64) + shift["feature_offset"],
                               rtol=1e-15, atol=1e-6)  # fmt: skip
    expected = y[train].mean(axis=0, dtype=np.float64) + shift["response_offset"]
    np.testing.assert_allclose(data.response_mean, expected[KEPT], rtol=1e-15, atol=1e-6)


def test_values_of_trained_voxels_among_all():
    data = made()
    nan = np.nan
    values = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]], dtype=np.float32)
    found = data.all_voxels(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[1, nan, 2, 3, nan, 4, nan], [5, nan, 6, 7, nan, 8, nan]])
    np.testing.assert_array_equal(
        data.all_voxels(np.array([9.0, 8.0]), np.array([3, 1])), [nan, nan, 8, nan, nan, 9, nan]
    )


def test_blocks_of_voxels_have_their_own_statistics():
    rng = np.random.default_rng(2)
    values = rng.normal(rng.normal(size=5000), 1 + rng.random(5000), (9, 5000))
    values[:, 4095] = 3
    values[8, 4096] = np.inf
    train = np.arange(6)
    status, mean, scale = voxel_statistics(values, train)
    assert dict(zip(*np.unique(status, return_counts=True), strict=True)) == {
        "ok": 4998, "constant": 1, "missing": 1
    }  # fmt: skip
    assert (status[4095], status[4096]) == ("constant", "missing")
    ok = status == "ok"
    np.testing.assert_allclose(mean[ok], values[train].mean(axis=0)[ok], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale[ok], values[train].std(axis=0)[ok], rtol=1e-5)
    assert scale[4095] == 1


@pytest.mark.parametrize(("batch_size", "rows"), [(None, 17), (6, 6), (100, 17)])
def test_how_many_bytes_a_batch_has_and_in_how_many_parts_it_comes(monkeypatch, batch_size, rows):
    x, y = arrays()
    for at_once in (2**30, 4 * 4 * 5, 1):  # of everything, of five rows, of less than one
        monkeypatch.setattr("jne.data.datamodule._AT_ONCE", at_once)
        data = StandardisedData(x, y, ROWS, batch_size=batch_size, seed=0)
        assert data.batch_bytes == 4 * rows * 4
        assert data.n_parts == {2**30: 1, 80: -(-rows // 5), 1: rows}[at_once]
    other = data.with_responses(np.zeros((26, 10), np.float32))
    assert (other.batch_bytes, other.n_outputs, data.n_outputs) == (4 * rows * 10, 10, 4)
