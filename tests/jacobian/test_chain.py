"""Encoders of a user's own that have a `residual_chain`, against autograd."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from brute_force import all_variants
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jne import jacobian_deviation
from jne.encoders import HasResidualChain, ResidualEncoder, ResidualLayer
from jne.jacobian.chain import Chain

N, D, V = 14, 12, 30


class Foreign(nn.Module):
    """Layers of any widths, with skip connections or without; no subclass of ResidualEncoder."""

    def __init__(self, *layers):
        super().__init__()
        widths = [D, *(width for width, _, _ in layers)]
        self.linears = nn.ModuleList(nn.Linear(*ends) for ends in pairwise(widths))
        self.phis = nn.ModuleList(phi for _, phi, _ in layers)
        self.skips = [skip for _, _, skip in layers]
        self.out = nn.Linear(widths[-1], V)

    def residual_chain(self):
        layers = zip(self.linears, self.phis, self.skips, strict=True)
        return [ResidualLayer(*layer) for layer in layers], self.out

    def forward(self, x):
        h = x
        for linear, phi, skip in zip(self.linears, self.phis, self.skips, strict=True):
            step = phi(linear(h))
            h = step + h if skip else step
        return self.out(h)


NETWORKS = {
    "no skips": [(16, nn.ReLU(), False)] * 3,
    "several widths": [(20, nn.ReLU(), False), (9, nn.ReLU(), False), (17, nn.ReLU(), False)],
    "skip, then none": [(D, nn.ReLU(), True), (D, nn.ReLU(), True), (7, nn.ReLU(), False)],
    "none, then skip": [(18, nn.Hardtanh(-0.2, 0.2), False), (18, nn.ReLU(), True)],
    "a linear layer": [(16, nn.ReLU(), False), (8, nn.Identity(), False), (8, nn.GELU(), True)],
    "a linear end": [(16, nn.ReLU(), False), (10, nn.Identity(), False)],
    "slope with a parameter": [(16, nn.PReLU(), False), (16, nn.PReLU(), True)],
    "in place": [(16, nn.ReLU(inplace=True), False), (16, nn.ReLU(inplace=True), True)],
}
SPARSE = ["no skips", "several widths", "skip, then none", "none, then skip", "in place"]


@pytest.fixture
def x():
    return torch.randn(N, D, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def built(name):
    torch.manual_seed(0)
    encoder = Foreign(*NETWORKS[name]).double()
    for linear in encoder.linears:
        nn.init.normal_(linear.bias, -0.2, 0.1)  # so that most slopes of ReLU are 0
    return encoder


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("order", "variants"),
    [
        ("centred", ("l1", "l2")),
        ("reverse", ("l1", "l2", "zscore_l1", "zscore_l2")),
        ("streamed", ("l1", "l2", "zscore_l1", "zscore_l2")),
        ("held", ("l1", "l2", "zscore_l1", "zscore_l2")),
    ],
)
def test_a_foreign_chain_is_brute_force(name, order, variants, x, monkeypatch):
    encoder = built(name)
    truth = all_variants(encoder, x)
    assert truth["l1"].max() > 0.01
    assert isinstance(encoder, HasResidualChain)

    def not_the_fast_path(*_):
        raise AssertionError("differentiated by autograd")

    monkeypatch.setattr("jne.jacobian.plan.ModuleJacobians", not_the_fast_path)
    found = jacobian_deviation(encoder, x, variant=variants, order=order)
    for variant in variants:
        np.testing.assert_allclose(
            found[variant], truth[variant], rtol=1e-10, atol=1e-13, err_msg=variant
        )


@pytest.mark.parametrize("name", SPARSE)
def test_rows_of_zero_slope_are_left_out_and_counted(name, x):
    """The number of operations that the plan is made from, against torch's own count."""
    chain = Chain(built(name).residual_chain()[0], x)
    with FlopCounterMode(display=False) as counter:
        for i in range(N):
            chain.hidden_jacobian(i)
    counted = counter.get_total_flops() / N
    dense = 2 * D * sum(layer.weight.numel() for layer in chain.layers[1:])
    assert counted < 0.75 * dense
    assert chain.forward_operations(D) == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("variant", ["l1", "zscore_l1"])
def test_a_hidden_jacobian_is_computed_once_where_the_memory_allows(variant, monkeypatch):
    torch.manual_seed(0)
    encoder, x = ResidualEncoder(64, 400, hidden_width=512), torch.randn(40, 64)
    compute, computed = Chain._hidden_jacobian, []
    monkeypatch.setattr(
        Chain, "_hidden_jacobian", lambda chain, i: computed.append(i) or compute(chain, i)
    )
    settings = {"variant": variant, "order": "streamed" if variant == "zscore_l1" else "centred"}
    kept = jacobian_deviation(encoder, x, **settings)
    assert sorted(computed) == list(range(40))
    computed.clear()
    few = jacobian_deviation(encoder, x, max_memory_gb=0.0395, **settings)
    assert 40 < len(computed) < 80
    np.testing.assert_array_equal(few, kept)


def test_activations_that_work_in_place_leave_the_memo_alone(x):
    encoder, memo = built("in place"), {}
    first = jacobian_deviation(encoder, x, memo=memo)
    np.testing.assert_array_equal(jacobian_deviation(encoder, x, memo=memo), first)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one hidden layer"),
        (
            [(16, nn.ReLU(), True)],
            r"layer 1 of its residual_chain has a skip connection, so its width \(16\)",
        ),
        ([(16, nn.ReLU(), False), (1, nn.ReLU(), True)], r"layer 2 .* number of its inputs \(16\)"),
    ],
)
def test_impossible_chains_are_refused(layers, message, x):
    with pytest.raises(ValueError, match=message):
        jacobian_deviation(Foreign(*layers).double(), x)


def test_a_wide_layer_needs_its_memory():
    """A hidden layer far wider than the last one counts in the bound on memory."""
    narrow, wide = (
        Foreign((width, nn.ReLU(), False), (16, nn.ReLU(), False)) for width in (16, 200_000)
    )
    x = torch.randn(N, D)
    for encoder in (narrow, wide, ResidualEncoder(D, V, hidden_width=16)):
        jacobian_deviation(encoder, x, max_memory_gb=0.3)
    jacobian_deviation(narrow, x, max_memory_gb=0.04)
    with pytest.raises(ValueError, match="needs at least"):
        jacobian_deviation(wide, x, max_memory_gb=0.04)
