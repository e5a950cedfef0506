"""Values that float32 cannot hold: large offsets, repeats in float16, constant or huge features."""

from functools import partial

import numpy as np
import pytest
import torch
from finished_run import CONSTANT, N_FEATURES, write_run
from sklearn.linear_model import Ridge

from jne import JNERegressor
from jne.data.centring import centred
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.encoders import RawEncoder
from jne.errors import InputError
from jne.results.contents import write_encoder
from jne.tracking.model import _signature
from jne.utils.blocks import voxel_blocks

FAR = 1e8  # of which float32 keeps multiples of 8


@pytest.mark.parametrize("values", [
    np.array([0, 3, 900]) + np.random.default_rng(0).standard_normal((50, 3)),
    (np.random.default_rng(0).standard_normal((50, 3)) * 5 + 10_000).astype(np.float32),
    np.full((50, 3), 0.1),
    1e8 + np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32),
    1e3 + 1e-12 * np.random.default_rng(0).standard_normal((50, 3)),  # the rounding of float64
])  # fmt: skip
def test_what_float32_holds_or_is_given_keeps_its_bytes(values):
    array, offset = centred(values)
    assert offset is None
    np.testing.assert_array_equal(array, values.astype(np.float32))


def test_a_column_far_from_zero_is_centred_and_no_other():
    rng = np.random.default_rng(0)
    values = np.array([0, FAR, -FAR, 5, 1e12]) + rng.standard_normal((200, 5))
    values[3, 1] = np.nan
    array, offset = centred(values)
    assert offset.dtype == np.float64
    assert (offset != 0).tolist() == [False, True, True, False, False]
    np.testing.assert_array_equal(array[:, [0, 3]], values[:, [0, 3]].astype(np.float32))
    np.testing.assert_allclose(array[:, 1:3] + offset[1:3], values[:, 1:3], atol=3e-7)
    assert np.isnan(array[3, 1])
    whole, shift = centred(np.rint(values[:, 2:3] * 4).astype(np.int64))  # integers, too
    np.testing.assert_array_equal(np.rint(whole + shift), np.rint(values[:, 2:3] * 4))


def test_blocks_of_columns_equal_the_whole(monkeypatch):
    values = np.random.default_rng(0).standard_normal((20, 7)) + np.where(np.arange(7) % 3, 0, FAR)
    whole = centred(values)
    pairs = partial(voxel_blocks, size=2)
    monkeypatch.setattr("jne.data.centring.voxel_blocks", pairs)
    for expected, found in zip(whole, centred(values), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_offset_of_the_data_changes_nothing_but_the_means(recorded):
    folder, x, y, source = recorded
    near = EncodingData(prepare(source(), folder / "p"), batch_size=None, seed=0)
    np.save(folder / "x.npy", x + FAR)
    np.save(folder / "y.npy", y + np.array([FAR, 0, -FAR, 0]))
    prepared = prepare(source(), folder / "p")
    far = EncodingData(prepared, batch_size=None, seed=0)
    np.testing.assert_allclose(far.features, near.features, atol=2e-6)
    np.testing.assert_allclose(far.responses[:], near.responses[:], atol=2e-6)
    np.testing.assert_allclose(far.feature_mean - FAR, near.feature_mean, atol=1e-6)
    assert far.feature_mean.dtype == far.response_mean.dtype == torch.float64
    np.testing.assert_allclose(prepared.measured("feature"), x[:, 1] + FAR, rtol=0, atol=1e-6)
    chosen = prepared.measured("response", np.array([2, 1]))
    np.testing.assert_allclose(chosen, y[:, [2, 1]] - [FAR, 0], rtol=0, atol=1e-6)
    assert near.feature_mean.dtype == near.response_mean.dtype == torch.float32
    assert len(list(folder.glob("p/*/*_offset.npy"))) == 2


def test_predictions_far_from_zero_are_right_to_float64(tmp_path):
    """Of an encoder in the folder of a run, with features in float64 or, as given, in float32."""
    run = write_run(tmp_path / "run")
    x = np.random.default_rng(1).standard_normal((5, N_FEATURES))
    expected = run.predict(x)
    n_trained = run.voxels["status"].eq("ok").sum()
    means = {"feature": torch.full((N_FEATURES,), FAR, dtype=torch.float64),
             "response": torch.full((n_trained,), -FAR, dtype=torch.float64)}  # fmt: skip
    ones = {"feature": torch.ones(N_FEATURES), "response": torch.ones(n_trained)}
    scaling = {f"{side}_mean": mean for side, mean in means.items()}
    scaling |= {f"{side}_scale": scale for side, scale in ones.items()}
    write_encoder(run.path / "encoder.pt", run.config["encoder"], run.encoder(), scaling)
    found = run.predict(x + FAR)
    assert found.dtype == np.float64
    assert np.isnan(found[:, CONSTANT]).all()
    np.testing.assert_allclose(found + FAR, expected, rtol=0, atol=1e-6)
    whole = run.predict(np.full((1, N_FEATURES), int(FAR) + 1))
    np.testing.assert_allclose(whole + FAR, run.predict(np.full((1, N_FEATURES), FAR + 1)) + FAR)
    signature = _signature(scaling, len(run.voxels))
    types = {schema.inputs[0].type for schema in (signature.inputs, signature.outputs)}
    assert types == {np.dtype(np.float64)}


def test_a_raw_encoder_of_ordinary_data_computes_in_float32():
    scaling = {f"{side}_{what}": torch.ones(3) for side in ("feature", "response")
               for what in ("mean", "scale")}  # fmt: skip
    raw = RawEncoder(torch.nn.Identity(), scaling, np.ones(3, dtype=bool))
    assert raw(torch.ones(2, 3)).dtype == torch.float32
    assert raw.predict(np.ones((2, 3), dtype=np.float32)).dtype == np.float32


def test_the_estimator_takes_the_same_data():
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((150, 6)), rng.standard_normal((6, 2))
    y = x @ weights + 0.3 * rng.standard_normal((150, 2))

    def fit(x, y):
        return JNERegressor(hidden_width=16, n_hidden=2, max_epochs=3).fit(x, y)

    near = fit(x[:100], y[:100]).predict(x[100:])
    far = fit(x[:100] + FAR, y[:100] - FAR)
    found = far.predict(x[100:] + FAR)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found + FAR, near, rtol=0, atol=2e-3)
    truth = Ridge(1.0).fit(x[:100], y[:100]).predict(x[100:])  # another program
    assert np.corrcoef(found[:, 0], truth[:, 0])[0, 1] > 0.98
    assert far.deviation(x[100:] + FAR).dtype == np.float32
    near_jne = fit(x[:100], y[:100]).jne(x[100:])
    far_jne = fit(x[:100] + FAR, y[:100] - FAR).jne(x[100:] + FAR)
    np.testing.assert_allclose(far_jne, near_jne, rtol=0.02)


@pytest.mark.parametrize(("offset", "dtype"), [
    (5_000, np.float16), (30_000, np.float16), (5_000, np.float32), (5_000, np.int16),
])  # fmt: skip
def test_repeats_are_averaged_in_float64(recorded, offset, dtype):
    folder, *_, source = recorded
    rng = np.random.default_rng(0)
    repeats = (offset + 40 * rng.standard_normal((50, 4, 3))).astype(dtype)
    if np.dtype(dtype).kind == "f":
        repeats[:, :, 1:][rng.random((50, 4, 2)) < 0.2] = np.nan
    np.save(folder / "y.npy", repeats)
    found = prepare(source(), folder / "p").responses
    expected = np.nanmean(repeats.astype(np.float64), axis=2)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_features_that_are_all_constant_are_refused_in_one_sentence(recorded):
    folder, x, _, source = recorded
    np.save(folder / "x.npy", np.ones_like(x))
    message = r"^data\.features: all features are constant over the 40 stimuli to train on"
    with pytest.raises(InputError, match=message):
        EncodingData(prepare(source(), folder / "p"), batch_size=None, seed=0)
    with pytest.raises(InputError, match=r"^X: all features are constant over the 45 stimuli"):
        JNERegressor().fit(np.ones((50, 3)), np.arange(50))
    some = x.copy()
    some[:, :, 1:] = 1
    np.save(folder / "x.npy", some)  # one that varies is enough
    EncodingData(prepare(source(), folder / "p"), batch_size=None, seed=0)


@pytest.mark.parametrize("scale", [1e39, -1e300])
def test_features_beyond_float32_are_refused_in_one_sentence(recorded, scale):
    folder, x, _, source = recorded
    x[7, 1, 0] = scale
    np.save(folder / "x.npy", x)
    message = r"^data\.features: values beyond 1e\+38, too large for float32 .* 1 of 50 .* row 7 c"
    with pytest.raises(InputError, match=message):
        prepare(source(), folder / "p")
    with pytest.raises(InputError, match=r"^X: holds values that are too large for float32"):
        JNERegressor().fit(x[:, 1], np.arange(50))
