"""A killed computation is continued by the same computation, and by no other."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from brute_force import autograd_jacobians, small_net, zscored

from jne import jacobian_deviation
from jne.encoders import ResidualEncoder
from jne.jacobian import variant_file
from jne.jacobian.plan import Job, make_plan


@pytest.fixture
def net():
    return small_net()


class Killed(BaseException):
    pass


def kill_after(share):
    def progress(done):
        if done >= share:
            raise Killed

    return progress


@pytest.mark.parametrize(
    ("order", "variant", "budget"),
    [
        ("centred", ("l1", "l2"), 1.0),
        ("reverse", ("l1",), 0.032),
        ("streamed", ("zscore_l1", "l1"), 0.032),
        ("held", ("zscore_l1", "l1"), 0.032),
    ],
)
def test_resumed_equals_uninterrupted(net, tmp_path, monkeypatch, order, variant, budget):
    encoder, x = net
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    settings = {"variant": variant, "order": order, "max_memory_gb": budget}
    whole = jacobian_deviation(encoder, x, **settings)
    path = tmp_path / "deviation.npy"
    with pytest.raises(Killed):
        jacobian_deviation(encoder, x, path=path, progress=kill_after(0.4), **settings)
    assert not path.exists()
    shares = []
    resumed = jacobian_deviation(encoder, x, path=path, progress=shares.append, **settings)
    assert shares[0] > 0.4
    for name in variant:
        np.testing.assert_array_equal(resumed[name], whole[name])
        np.testing.assert_array_equal(np.load(variant_file(path, name)), whole[name])
    assert len(list(tmp_path.iterdir())) == len(variant)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("order", ["streamed", "held", "reverse"])
def test_resumed_within_any_block_of_voxels(tmp_path, monkeypatch, order, share):
    torch.manual_seed(0)
    encoder, x = ResidualEncoder(5, 7, hidden_width=6).double(), torch.randn(9, 5).double()
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    monkeypatch.setattr("jne.jacobian.plan._SMALLEST_BLOCK", 2)
    variant, budget = ("zscore_l1", "l1"), 0.03002
    job = Job(encoder, x, None, variant, "float32", torch.device("cpu"))
    while make_plan(job, budget, order).n_groups < 3:  # blocks of two or three of seven voxels
        budget -= 2e-7
    settings = {"variant": variant, "order": order, "max_memory_gb": budget}
    jacobians = autograd_jacobians(encoder, x)
    path = tmp_path / "deviation.npy"
    with pytest.raises(Killed):
        jacobian_deviation(encoder, x, path=path, progress=kill_after(share), **settings)
    shares = []
    resumed = jacobian_deviation(encoder, x, path=path, progress=shares.append, **settings)
    assert shares[0] > share
    for name, values in (("l1", jacobians), ("zscore_l1", zscored(jacobians))):
        expected = np.abs(values - values.mean(axis=0)).sum(axis=2)
        np.testing.assert_allclose(resumed[name], expected, rtol=1e-9, atol=1e-12)


def test_another_computation_does_not_continue(net, tmp_path, monkeypatch):
    encoder, x = net
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    path = tmp_path / "deviation.npy"
    other = ResidualEncoder(12, 150, hidden_width=16, activation="relu").double()
    for first, second in (
        ((encoder, x, {}), (other, x, {})),
        ((encoder, x, {}), (encoder, x + 1, {})),
        ((encoder, x, {"voxels": np.arange(150)}), (encoder, x, {"voxels": np.arange(150)[::-1]})),
        ((encoder, x, {}), (encoder, x, {"variant": "l2"})),
    ):
        with pytest.raises(Killed):
            jacobian_deviation(
                *first[:2], path=path, progress=kill_after(0.5), order="centred", **first[2]
            )
        shares = []
        found = jacobian_deviation(
            *second[:2], path=path, progress=shares.append, order="centred", **second[2]
        )
        assert shares[0] == pytest.approx(1 / len(x))
        np.testing.assert_array_equal(
            found, jacobian_deviation(*second[:2], order="centred", **second[2])
        )
        for file in tmp_path.iterdir():
            file.unlink()


def with_tanh_or_gelu(kind):
    """Two modules with the same weights and other activations; one has a residual chain."""
    torch.manual_seed(0)
    if kind == "residual chain":
        encoder = ResidualEncoder(12, 20, hidden_width=16, activation="tanh")
        return encoder, encoder.with_activation("gelu", "both")
    first, last = torch.nn.Linear(12, 16), torch.nn.Linear(16, 20)
    return (
        torch.nn.Sequential(first, torch.nn.Tanh(), last),
        torch.nn.Sequential(first, torch.nn.GELU(), last),
    )


@pytest.mark.parametrize("kind", ["residual chain", "any module"])
def test_other_activations_of_the_same_weights_are_another_computation(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("jne.jacobian.resumable._SAVE_SECONDS", 0)
    tanh, gelu = with_tanh_or_gelu(kind)
    x = torch.randn(9, 12)
    path = tmp_path / "deviation.npy"
    settings = {"order": "centred" if kind == "residual chain" else "streamed"}
    with pytest.raises(Killed):
        jacobian_deviation(tanh, x, path=path, progress=kill_after(0.5), **settings)
    found = jacobian_deviation(gelu, x, path=path, **settings)
    np.testing.assert_array_equal(found, jacobian_deviation(gelu, x, **settings))


@pytest.mark.slow  # starts two processes
def test_a_kill_is_survived(tmp_path):
    """A process is killed with SIGKILL, and another one continues."""
    script = """
import sys, time, torch
from pathlib import Path
from jne import ResidualEncoder, jacobian_deviation
from jne.jacobian import resumable
resumable._SAVE_SECONDS = 0
torch.manual_seed(0)
encoder, x = ResidualEncoder(12, 150, hidden_width=16), torch.randn(40, 12)
slow = lambda done: (print(done, flush=True), time.sleep(float(sys.argv[2])))
jacobian_deviation(encoder, x, order="centred", path=Path(sys.argv[1]), progress=slow)
"""
    path = tmp_path / "deviation.npy"
    command = [sys.executable, "-c", script, str(path)]
    process = subprocess.Popen([*command, "0.05"], stdout=subprocess.PIPE, text=True)
    while float(process.stdout.readline()) < 0.5:
        pass
    process.kill()
    process.communicate()
    assert not path.exists()
    output = subprocess.run([*command, "0"], capture_output=True, text=True, check=True).stdout
    assert float(output.split()[0]) >= 0.5
    torch.manual_seed(0)
    encoder, x = ResidualEncoder(12, 150, hidden_width=16), torch.randn(40, 12)
    np.testing.assert_array_equal(np.load(path), jacobian_deviation(encoder, x, order="centred"))
