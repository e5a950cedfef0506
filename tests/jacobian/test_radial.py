"""Encoders whose first layer is of radial units, against autograd."""

import numpy as np
import pytest
import torch
from brute_force import all_variants, brute_force
from torch import nn

from jne import jacobian_deviation
from jne.encoders import KernelRegression, ResidualLayer

N, D, V, CENTRES = 14, 12, 30, 40


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = KernelRegression(D, V, n_centres=CENTRES).double()
    encoder.place(draw(CENTRES, D), 0.13)
    return encoder


def test_it_is_a_sum_of_bumps_and_a_linear_map(encoder):
    x, centres = draw(N, D, seed=1), draw(CENTRES, D)
    bumps = torch.exp(-0.13 / 2 * (x[:, None] - centres).square().sum(dim=2))
    expected = bumps @ encoder.readout.weight.T + encoder.readout.bias
    expected = expected + x @ encoder.linear_path.weight.T
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize(
    ("order", "variants"),
    [
        ("centred", ("l1", "l2")),
        ("reverse", ("l1", "l2", "zscore_l1", "zscore_l2")),
        ("streamed", ("l1", "l2", "zscore_l1", "zscore_l2")),
        ("held", ("l1", "l2", "zscore_l1", "zscore_l2")),
    ],
)
def test_its_deviations_are_brute_force(encoder, order, variants):
    x = draw(N, D, seed=1)
    truth = all_variants(encoder, x)
    found = jacobian_deviation(encoder, x, variant=variants, order=order)
    for variant in variants:
        np.testing.assert_allclose(found[variant], truth[variant], rtol=1e-9)


def test_those_of_float32_are_brute_force_to_a_hundred_thousandth(encoder):
    x = draw(N, D, seed=1)
    truth = brute_force(encoder, x)
    found = jacobian_deviation(encoder.float(), x.float())
    assert np.abs(found - truth).max() < 1e-5 * truth.max()


class Deep(nn.Module):
    """Radial units of several widths, then another layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(D, 20), nn.Linear(20, 20)
        self.out, self.phi = nn.Linear(20, V), nn.GELU()
        self.falloff = torch.linspace(0.05, 0.3, 20, dtype=torch.double)

    def residual_chain(self):
        first = ResidualLayer(self.first, nn.SiLU(), False, self.falloff)
        return [first, ResidualLayer(self.second, self.phi, True)], self.out

    def forward(self, x):
        fall = x.square().sum(dim=1, keepdim=True) / 2 * self.falloff
        h = nn.functional.silu(self.first(x) - fall)
        return self.out(self.phi(self.second(h)) + h)


@pytest.mark.parametrize("order", ["centred", "reverse"])
def test_a_layer_may_follow(order):
    torch.manual_seed(0)
    encoder, x = Deep().double(), draw(N, D, seed=1)
    found = jacobian_deviation(encoder, x, order=order)
    np.testing.assert_allclose(found, brute_force(encoder, x), rtol=1e-9)


def test_a_later_layer_cannot_be_radial():
    encoder = Deep()
    hidden, readout = encoder.residual_chain()
    encoder.residual_chain = lambda: (hidden[::-1], readout)
    with pytest.raises(ValueError, match="only the first layer"):
        jacobian_deviation(encoder.double(), draw(N, D))


@pytest.mark.parametrize("widths", [[], [0], [1, -2], "wide", None])
def test_widths_are_numbers_above_0(widths):
    with pytest.raises(ValueError, match=r"widths.*: must be a list of numbers above 0"):
        KernelRegression(D, V, widths=widths)
