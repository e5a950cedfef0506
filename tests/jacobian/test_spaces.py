"""Deviations within feature spaces, against autograd Jacobians of every stimulus."""

import numpy as np
import pytest
import torch
from brute_force import autograd_jacobians, small_net, zscored
from torch import nn

from jne import jacobian_deviation, rms_deviation
from jne.encoders import ResidualEncoder, RidgeRegression
from jne.errors import InputError
from jne.jacobian import GAIN_SHAPE, PRECISIONS, in_space, variant_file

SPACES = {"words": slice(0, 5), "edges/1": slice(5, 6), "layers": slice(6, 12)}
ALL = ["l1", "l2", "zscore_l1", "zscore_l2"]


def truth(encoder, x):
    """(N, V) of every array in every space, by their definitions."""
    jacobians = autograd_jacobians(encoder, x)
    mean = jacobians.mean(axis=0)
    arrays = {}
    for space, columns in SPACES.items():
        for prefix, values in (("", jacobians), ("zscore_", zscored(jacobians))):
            centred = (values - values.mean(axis=0))[..., columns]
            arrays[in_space(f"{prefix}l1", space)] = np.abs(centred).sum(axis=2)
            arrays[in_space(f"{prefix}l2", space)] = np.linalg.norm(centred, axis=2)
        inside, of_mean = jacobians[..., columns], mean[:, columns]
        squared = (of_mean**2).sum(axis=1)
        gain = (inside * of_mean).sum(axis=2) / squared
        rest = inside - gain[:, :, None] * of_mean
        arrays[in_space("gain", space)] = gain
        arrays[in_space("shape", space)] = np.sqrt((rest**2).sum(axis=2) / squared)
    return arrays


@pytest.mark.parametrize(
    ("order", "variant"),
    [
        ("centred", ["l1"]),
        ("centred", ["l2", "l1"]),
        ("reverse", ["l1", "l2"]),
        ("reverse", ALL),
        ("streamed", ALL),
        ("held", ALL),
        (None, ALL[::-1]),
    ],
)
def test_every_array_of_every_space_is_brute_force(order, variant):
    encoder, x = small_net()
    settings = {"variant": variant, "order": order, "gain_shape": True}
    arrays = jacobian_deviation(encoder, x, spaces=SPACES, **settings)
    expected = truth(encoder, x)
    names = [*variant, *GAIN_SHAPE]
    assert list(arrays) == names + [in_space(name, space) for space in SPACES for name in names]
    for name in arrays.keys() & expected.keys():
        np.testing.assert_allclose(
            arrays[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name
        )
    whole = jacobian_deviation(encoder, x, **settings)
    for name in names:
        np.testing.assert_allclose(arrays[name], whole[name], rtol=1e-9, atol=1e-11, err_msg=name)
    if "l1" in variant:
        together = sum(arrays[in_space("l1", space)] for space in SPACES)
        np.testing.assert_allclose(together, arrays["l1"], rtol=1e-14)


def test_any_module():
    x = small_net()[1]
    module = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)).double()
    arrays = jacobian_deviation(module, x, variant=["l1"], spaces=SPACES, gain_shape=True)
    expected = truth(module, x)
    for name in arrays.keys() & expected.keys():
        np.testing.assert_allclose(arrays[name], expected[name], rtol=1e-9, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(precision):
    encoder, x = small_net()
    encoder, x = encoder.float(), x.float()
    arrays = jacobian_deviation(encoder, x, variant=["l1"], spaces=SPACES, precision=precision)
    whole = jacobian_deviation(encoder, x, precision=precision)
    together = sum(arrays[in_space("l1", space)] for space in SPACES)
    np.testing.assert_allclose(together, whole, rtol=1e-5)


def test_a_single_space_is_the_whole():
    encoder, x = small_net()
    settings = {"variant": ["l1", "l2"], "gain_shape": True}
    arrays = jacobian_deviation(encoder, x, spaces={"a": slice(None)}, **settings)
    for name, values in jacobian_deviation(encoder, x, **settings).items():
        np.testing.assert_array_equal(arrays[name], values)
        np.testing.assert_array_equal(arrays[in_space(name, "a")], values)


def test_a_space_that_no_voxel_reads_has_no_direction_and_takes_none_from_the_others():
    encoder, x = small_net()
    module = nn.Sequential(Zeroed(SPACES["words"]), encoder)
    arrays = jacobian_deviation(module, x, variant=["l1"], spaces=SPACES, gain_shape=True)
    assert (arrays[in_space("l1", "words")] == 0).all()
    assert (arrays[in_space("gain", "words")] == 1).all()
    assert (arrays[in_space("shape", "words")] == 0).all()
    assert np.isfinite(arrays["gain"]).all()
    assert np.isfinite(arrays["shape"]).all()


class Zeroed(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def forward(self, x):
        kept = torch.ones(x.shape[1], dtype=x.dtype)
        kept[self.columns] = 0
        return x * kept


def test_a_linear_encoder_deviates_nowhere():
    encoder = ResidualEncoder(12, 6, hidden_width=8, placement="none")
    x = torch.randn(7, 12)
    arrays = jacobian_deviation(encoder, x, variant=["l1"], spaces=SPACES, gain_shape=True)
    for name, values in arrays.items():
        assert (values == name.startswith("gain")).all()
    assert not any(values.any() for values in rms_deviation(encoder, x, spaces=SPACES).values())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("order", ["centred", "reverse", "streamed"])
def test_resumed_and_sharded_they_are_the_whole(tmp_path, monkeypatch, order):
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 64)
    encoder, x = small_net()
    variant = ["l1", "zscore_l2"] if order == "streamed" else ["l1"]
    settings = {"variant": variant, "spaces": SPACES, "order": order, "gain_shape": True}
    settings["max_memory_gb"] = 0.0303
    whole = jacobian_deviation(encoder, x, **settings)

    def kill(share):
        if share > 0.4:
            raise Killed

    path = tmp_path / "deviation.npy"
    with pytest.raises(Killed):
        jacobian_deviation(encoder, x, path=path, progress=kill, **settings)
    shares = []
    resumed = jacobian_deviation(encoder, x, path=path, progress=shares.append, **settings)
    assert shares[0] > 0.4
    parts = [jacobian_deviation(encoder, x, shard=(k, 2), **settings) for k in (1, 2)]
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)
        np.testing.assert_array_equal(np.load(variant_file(path, name)), values)
        np.testing.assert_array_equal(np.hstack([part[name] for part in parts]), values)
    assert len(list(tmp_path.iterdir())) == len(whole)


@pytest.mark.parametrize(
    ("encoder", "n_voxels"),
    [(ResidualEncoder(12, 40, hidden_width=8), 40), (ResidualEncoder(12, 5, hidden_width=8), 5),
     (nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5)), 5)],
)  # fmt: skip
def test_the_root_mean_square_of_spaces_is_brute_force(encoder, n_voxels):
    encoder, x = encoder.double(), small_net()[1]
    jacobians = autograd_jacobians(encoder, x)
    squares = np.square(jacobians - jacobians.mean(axis=0)).mean(axis=0)
    rms = rms_deviation(encoder, x, spaces=SPACES)
    assert list(rms) == list(SPACES)
    for space, columns in SPACES.items():
        expected = np.sqrt(squares[:, columns].sum(axis=1))
        np.testing.assert_allclose(rms[space], expected, rtol=1e-9)
    together = np.sqrt(sum(np.square(values) for values in rms.values()))
    np.testing.assert_allclose(together, rms_deviation(encoder, x), rtol=1e-12)
    assert together.shape == (n_voxels,)


@pytest.mark.parametrize(
    "spaces",
    [
        {"a": slice(0, 6)},
        {"a": slice(0, 6), "b": slice(7, 12)},
        {"a": slice(0, 6), "b": slice(5, 12)},
        {"a": slice(0, 6), "b": slice(6, 13)},
        {"a": slice(0, 0), "b": slice(0, 12)},
        {"a": slice(0, 12, 2)},
    ],
)
def test_spaces_that_do_not_cover_the_features_in_order_are_refused(spaces):
    encoder, x = small_net()
    with pytest.raises(InputError, match="spaces: "):
        jacobian_deviation(encoder, x, variant=["l1"], spaces=spaces)
    with pytest.raises(InputError, match="spaces: "):
        rms_deviation(encoder, x, spaces=spaces)


def test_they_need_a_sequence_of_variants():
    encoder, x = small_net()
    with pytest.raises(InputError, match="needs a sequence of variants"):
        jacobian_deviation(encoder, x, spaces=SPACES)


def test_rms_of_ridge_regression_is_0():
    x = small_net()[1].float()
    for values in rms_deviation(RidgeRegression(12, 3), x, spaces=SPACES).values():
        np.testing.assert_array_equal(values, np.zeros(3, np.float32))
