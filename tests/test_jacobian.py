"""Deviations against brute force: autograd Jacobians of every stimulus, held whole, float64."""

import numpy as np
import pytest
import torch

from jne import jacobian_deviation, jne, jne_ss, mean_deviation
from jne.encoders import ACTIVATIONS, ResidualEncoder


def brute_force(encoder, x):
    """s (N, V) from the N x V x D tensor of autograd, as PAPER 5 writes it."""
    per_stimulus = [
        torch.autograd.functional.jacobian(lambda z: encoder(z[None])[0], row) for row in x
    ]
    jacobians = torch.stack(per_stimulus).detach()
    return (jacobians - jacobians.mean(dim=0)).abs().sum(dim=2).numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("placement", ["loc1", "loc2", "both"])
@pytest.mark.parametrize(("n_hidden", "skip_first"), [(2, True), (3, False), (4, True)])
def test_deviation_is_brute_force(activation, placement, n_hidden, skip_first):
    torch.manual_seed(0)
    encoder = ResidualEncoder(
        8,
        5,
        hidden_width=8 if skip_first else 11,
        n_hidden=n_hidden,
        activation=activation,
        placement=placement,
        bias=not skip_first,
        skip_first=skip_first,
    ).double()
    x = torch.randn(12, 8, dtype=torch.double)
    truth = brute_force(encoder, x)
    s = jacobian_deviation(encoder, x)
    np.testing.assert_allclose(s, truth, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jne(s), truth.std(axis=0), rtol=1e-10)
    np.testing.assert_allclose(jne_ss(s), (truth - truth.mean(axis=0)) ** 2, atol=1e-12)
    np.testing.assert_allclose(mean_deviation(s), truth.mean(axis=0), rtol=1e-12)


def test_one_hidden_layer():
    encoder = ResidualEncoder(6, 3, hidden_width=7, n_hidden=1).double()
    x = torch.randn(9, 6, dtype=torch.double)
    np.testing.assert_allclose(
        jacobian_deviation(encoder, x), brute_force(encoder, x), rtol=1e-12, atol=1e-14
    )


def test_float32_is_close_to_float64():
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, 40, hidden_width=96, activation="gelu")
    x = torch.randn(30, 64)
    single = jacobian_deviation(encoder, x)
    double = jacobian_deviation(encoder.double(), x.double())
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_encoder_deviates_by_exactly_zero(dtype):
    encoder = ResidualEncoder(20, 6, hidden_width=30, placement="none").to(dtype)
    s = jacobian_deviation(encoder, torch.randn(7, 20, dtype=dtype))
    assert (s == 0).all()
    assert (jne(s) == 0).all()


def test_chosen_voxels_are_the_columns_of_all():
    encoder = ResidualEncoder(10, 9, hidden_width=12)
    x = torch.randn(6, 10)
    chosen = np.array([7, 0, 3])
    np.testing.assert_allclose(
        jacobian_deviation(encoder, x, voxels=chosen),
        jacobian_deviation(encoder, x)[:, chosen],
        rtol=1e-6,
    )


def test_features_are_checked():
    encoder = ResidualEncoder(10, 4, hidden_width=5)
    with pytest.raises(ValueError, match=r"must be \(n_stimuli, 10\)"):
        jacobian_deviation(encoder, torch.randn(3, 9))
    with pytest.raises(ValueError, match="NaN"):
        jacobian_deviation(encoder, torch.full((3, 10), torch.nan))


def test_it_works_in_lightnings_inference_mode():
    encoder = ResidualEncoder(10, 4, hidden_width=5, activation="gelu")
    x = torch.randn(5, 10)
    expected = jacobian_deviation(encoder, x)
    with torch.inference_mode():
        np.testing.assert_array_equal(jacobian_deviation(encoder, x.clone()), expected)
