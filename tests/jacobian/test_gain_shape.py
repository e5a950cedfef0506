"""Gain and shape of the Jacobians against brute force: autograd Jacobians of every stimulus."""

from pathlib import Path

import numpy as np
import pytest
import torch
from brute_force import autograd_jacobians, small_net
from torch import nn

from jne import jacobian_deviation
from jne.analysis.nonlinearity import gain_change, shape_change
from jne.encoders import ResidualEncoder
from jne.jacobian.plan import Job, make_plan


def truth(encoder, x):
    """a_i and ||J_i - a_i Jbar|| / ||Jbar||, (N, V) each, by their definition."""
    jacobians = autograd_jacobians(encoder, x)
    mean = jacobians.mean(axis=0)
    squared = (mean**2).sum(axis=1)
    gain = (jacobians * mean).sum(axis=2) / squared
    rest = jacobians - gain[:, :, None] * mean
    return gain, np.sqrt((rest**2).sum(axis=2) / squared)


@pytest.fixture(scope="module")
def truth_of_small_net():
    return truth(*small_net())


def found(encoder, x, variant=("l1",), **settings):
    return jacobian_deviation(encoder, x, variant=variant, gain_shape=True, **settings)


@pytest.mark.parametrize(
    ("order", "variant"),
    [
        ("centred", ("l1",)),
        ("centred", ("l2", "l1")),
        ("reverse", ("l1",)),
        ("reverse", ("zscore_l1", "l1")),
        ("streamed", ("l1", "zscore_l2")),
        ("streamed", ("zscore_l2",)),
        ("held", ("l1", "zscore_l2")),
        (None, ("l1",)),
    ],
)
def test_gain_and_shape_are_brute_force(truth_of_small_net, order, variant):
    encoder, x = small_net()
    arrays = found(encoder, x, variant, order=order)
    assert list(arrays) == [*variant, "gain", "shape"]
    gain, shape = truth_of_small_net
    np.testing.assert_allclose(arrays["gain"], gain, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(arrays["shape"], shape, rtol=1e-10)
    plain = jacobian_deviation(encoder, x, variant=variant, order=order)
    for name in variant:
        np.testing.assert_array_equal(arrays[name], plain[name], err_msg=name)


def test_any_module():
    x = small_net()[1]
    module = nn.Sequential(ResidualEncoder(12, 9, hidden_width=16, activation="gelu").double())
    gain, shape = truth(module, x)
    arrays = found(module, x)
    np.testing.assert_allclose(arrays["gain"], gain, rtol=1e-11)
    np.testing.assert_allclose(arrays["shape"], shape, rtol=1e-10)
    chosen = np.array([7, 0])
    np.testing.assert_allclose(found(module, x, voxels=chosen)["gain"], gain[:, chosen])


def test_their_squares_sum_to_the_relative_size_of_the_deviations():
    encoder, x = small_net()
    arrays = found(encoder, x, ("l1", "l2"))
    length = np.linalg.norm(autograd_jacobians(encoder, x).mean(axis=0), axis=1)
    np.testing.assert_allclose(
        gain_change(arrays["gain"]) ** 2 + shape_change(arrays["shape"]) ** 2,
        (arrays["l2"] ** 2).mean(axis=0) / length**2,
        rtol=1e-11,
    )
    np.testing.assert_allclose(arrays["gain"].mean(axis=0), 1, rtol=1e-12)


def test_an_output_nonlinearity_changes_the_gain_alone():
    torch.manual_seed(0)
    linear, x = nn.Linear(10, 4).double(), torch.randn(30, 10, dtype=torch.double)
    arrays = found(nn.Sequential(linear, nn.Tanh()), x)
    slope = 1 - torch.tanh(linear(x)).detach().numpy() ** 2
    expected = slope.std(axis=0) / slope.mean(axis=0)
    np.testing.assert_allclose(gain_change(arrays["gain"]), expected, rtol=1e-10)
    assert (shape_change(arrays["shape"]) < 1e-7 * expected).all()
    single = found(nn.Sequential(linear, nn.Tanh()).float(), x.float())
    assert (shape_change(single["shape"]) < 2e-3 * expected).all()


@pytest.mark.parametrize(
    "encoder",
    [
        ResidualEncoder(20, 6, hidden_width=30, placement="none"),
        nn.Linear(20, 6),
        nn.Sequential(ResidualEncoder(20, 6, hidden_width=30, placement="none")),
    ],
    ids=["residual chain", "nn.Linear", "any module"],
)
def test_a_linear_encoder_changes_by_exactly_zero(encoder):
    arrays = found(encoder, torch.randn(7, 20))
    assert (arrays["gain"] == 1).all()
    assert (arrays["shape"] == 0).all()
    assert (gain_change(arrays["gain"]) == 0).all()
    assert (shape_change(arrays["shape"]) == 0).all()


@pytest.mark.parametrize("order", ["centred", "reverse"])
def test_a_voxel_without_weights_changes_by_exactly_zero(order):
    encoder, x = small_net()
    encoder.readout.weight.data[3] = 0
    arrays = found(encoder, x, order=order)
    assert np.isfinite(arrays["gain"]).all()
    assert gain_change(arrays["gain"])[3] == shape_change(arrays["shape"])[3] == 0


def test_a_mean_jacobian_of_zero_has_no_direction():
    """y = x^2 at -1 and 1."""

    class Square(nn.Linear):
        def forward(self, x):
            return super().forward(x) ** 2

    module = Square(1, 1, bias=False)
    arrays = found(module, torch.tensor([[-1.0], [1.0]]))
    assert (arrays["l1"] > 0).all()
    assert np.isnan(arrays["gain"]).all()
    assert np.isnan(arrays["shape"]).all()


@pytest.fixture
def grouped(monkeypatch):
    """An encoder, features, and a budget with which the voxels are in four groups of blocks."""
    monkeypatch.setattr("jne.jacobian.plan._VOXEL_BLOCK", 20)
    torch.manual_seed(0)
    encoder = ResidualEncoder(12, 900, hidden_width=16).double()
    x, names = torch.randn(14, 12, dtype=torch.double), ("l1", "gain", "shape")
    with pytest.raises(ValueError, match="needs at least") as refused:
        found(encoder, x, order="centred", max_memory_gb=1e-6)
    budget = float(str(refused.value).split()[-1])  # rounded up: the shapes are too small for it
    job = Job(encoder, x, None, names, "float32", torch.device("cpu"))
    while (plan := make_plan(job, budget, "centred")).n_groups < 4:
        budget -= 1e-6
    assert plan.voxel_block == 20
    assert f"groups of {plan.voxel_group}" in str(plan)
    return encoder, x, budget


def test_groups_of_blocks_do_not_change_the_result(grouped):
    encoder, x, budget = grouped
    whole = found(encoder, x, order="centred")
    in_groups = found(encoder, x, order="centred", max_memory_gb=budget)
    for name, values in whole.items():
        np.testing.assert_allclose(in_groups[name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize(("linear_path", "chosen"), [(False, False), (True, True)])
def test_the_memory_stays_within_its_bound(linear_path, chosen):
    """The peak, as the operating system counts it: of groups of blocks, and of chosen rows."""
    torch.manual_seed(0)
    encoder = ResidualEncoder(768, 40_000, hidden_width=16, linear_path=linear_path)
    x = torch.randn(3, 768)
    voxels = np.arange(0, 40_000, 2) if chosen else None
    found(encoder, x, voxels=np.arange(300), order="centred")  # the libraries' own buffers
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is used now
    before = process_bytes("VmRSS")
    arrays = found(encoder, x, voxels=voxels, order="centred", max_memory_gb=0.13)
    result = sum(array.nbytes for array in arrays.values())
    assert process_bytes("VmHWM") - before - result < 0.13e9


def process_bytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


@pytest.mark.parametrize("order", ["centred", "streamed"])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, grouped, order):
    class Killed(BaseException):
        pass

    def kill(done):
        if done > 0.6:
            raise Killed

    encoder, x, budget = grouped
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    variant = ("l1",) if order == "centred" else ("l1", "zscore_l1")
    budget = budget if order == "centred" else 1.0
    settings = {"order": order, "max_memory_gb": budget, "variant": variant}
    whole = found(encoder, x, **settings)
    path = tmp_path / "deviation.npy"
    with pytest.raises(Killed):
        found(encoder, x, path=path, progress=kill, **settings)
    shares = []
    resumed = found(encoder, x, path=path, progress=shares.append, **settings)
    assert shares[0] > 0.6
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)
    np.testing.assert_array_equal(np.load(tmp_path / "deviation_gain.npy"), whole["gain"])


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_fast_precisions_are_close_at_every_voxel(precision):
    torch.manual_seed(0)
    encoder = ResidualEncoder(256, 500, hidden_width=384)
    x = torch.randn(60, 256)
    exact = found(encoder, x, order="centred")
    fast = found(encoder, x, order="centred", precision=precision)
    for reduce, name in ((gain_change, "gain"), (shape_change, "shape")):
        np.testing.assert_allclose(reduce(fast[name]), reduce(exact[name]), rtol=0.02)


def test_one_variant_by_name_cannot_have_them():
    with pytest.raises(ValueError, match=r"gain_shape: needs a sequence of variants"):
        jacobian_deviation(*small_net(), variant="l1", gain_shape=True)
