"""Root mean squared deviations without the Jacobians of voxels, against brute force."""

import numpy as np
import pytest
import torch
from brute_force import all_variants
from torch import nn

from jne import rms_deviation
from jne.encoders import KernelRegression, ResidualEncoder, RidgeRegression

D = 12


def draw(n=14, seed=1):
    return torch.randn(n, D, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def encoders():
    torch.manual_seed(0)
    kernel = KernelRegression(D, 30, n_centres=40)
    kernel.place(draw(40, seed=2).float(), 0.13)
    return {
        "more voxels than units": ResidualEncoder(D, 150, hidden_width=16),
        "fewer voxels than units": ResidualEncoder(D, 7, hidden_width=16, linear_path=True),
        "kernel": kernel,
        "no chain": nn.Sequential(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, 5)),
    }


@pytest.mark.parametrize("name", encoders())
def test_it_is_brute_force(name):
    encoder, x = encoders()[name].double(), draw()
    expected = np.sqrt(np.square(all_variants(encoder, x)["l2"]).mean(axis=0))
    np.testing.assert_allclose(rms_deviation(encoder, x), expected, rtol=1e-9)
    single = rms_deviation(encoder.float(), x.float())
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "encoder",
    [RidgeRegression(D, 5), ResidualEncoder(D, 5, placement="none", hidden_width=8)],
)
def test_that_of_a_linear_encoder_is_0(encoder):
    np.testing.assert_array_equal(rms_deviation(encoder, draw().float()), np.zeros(5, np.float32))


@pytest.mark.parametrize("n_voxels", [3, 40])
def test_where_all_jacobians_are_equal_it_is_exactly_0(n_voxels):
    """All units stay on one side of their kinks."""
    encoder = ResidualEncoder(D, n_voxels, hidden_width=8)
    with torch.no_grad():
        for layer in encoder.hidden:
            layer.bias.fill_(1e3)
    assert not rms_deviation(encoder, draw().float()).any()


def test_a_unit_that_switches_between_two_maps_has_one_though_its_jne_is_0():
    """y = |x_1| at as many stimuli on either side: J is +1 or -1, and each deviates by 1."""
    encoder = ResidualEncoder(1, 1, hidden_width=2, n_hidden=1, bias=False)
    with torch.no_grad():
        encoder.hidden[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        encoder.readout.weight.fill_(1)
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    np.testing.assert_allclose(rms_deviation(encoder, x), [1.0], rtol=1e-6)


def test_a_single_stimulus_does_not_deviate():
    assert not rms_deviation(encoders()["kernel"], draw(1).float()).any()


def test_progress_ends_at_1():
    seen = []
    rms_deviation(encoders()["kernel"], draw().float(), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
