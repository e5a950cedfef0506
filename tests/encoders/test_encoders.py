"""The encoder against its equations, written out (Gao et al. 2025, 2.2)."""

import pytest
import torch
from torch.nn import functional

from jne.encoders import ACTIVATIONS, ResidualEncoder, activated_layers

PHI = {
    "relu": torch.relu,
    "leaky_relu": lambda a: torch.where(a > 0, a, 0.01 * a),
    "gelu": lambda a: a * torch.distributions.Normal(0, 1).cdf(a),
    "swish": lambda a: a / (1 + torch.exp(-a)),
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("placement", ["none", "loc1", "loc2", "both"])
def test_forward_is_the_equation(activation, placement):
    encoder = ResidualEncoder(
        6, 4, hidden_width=5, n_hidden=3, activation=activation, placement=placement
    ).double()
    x = torch.randn(9, 6, dtype=torch.double)
    identity = lambda a: a  # noqa: E731
    phi1 = PHI[activation] if placement in ("loc1", "both") else identity
    phi2 = PHI[activation] if placement in ("loc2", "both") else identity
    w = [layer.weight for layer in (*encoder.hidden, encoder.readout)]
    b = [layer.bias for layer in (*encoder.hidden, encoder.readout)]
    h = phi1(x @ w[0].T + b[0])
    h = phi2(h @ w[1].T + b[1]) + h
    h = phi2(h @ w[2].T + b[2]) + h
    torch.testing.assert_close(encoder(x), h @ w[3].T + b[3])


def test_skip_first_adds_the_features():
    encoder = ResidualEncoder(6, 4, hidden_width=6, n_hidden=1, skip_first=True)
    x = torch.randn(3, 6)
    expected = functional.linear(torch.relu(encoder.hidden[0](x)) + x, encoder.readout.weight)
    torch.testing.assert_close(encoder(x), expected + encoder.readout.bias)


def test_a_linear_path_adds_a_map_of_the_features_without_a_bias():
    encoder = ResidualEncoder(6, 4, hidden_width=5, n_hidden=1, linear_path=True)
    x = torch.randn(3, 6)
    hidden = encoder.readout(torch.relu(encoder.hidden[0](x)))
    torch.testing.assert_close(encoder(x), hidden + x @ encoder.linear_path.weight.T)


def test_one_of_each_is_enough():
    encoder = ResidualEncoder(1, 1, hidden_width=1, n_hidden=1)
    weight = [encoder.hidden[0].weight, encoder.readout.weight]
    bias = [encoder.hidden[0].bias, encoder.readout.bias]
    x = torch.randn(4, 1)
    torch.testing.assert_close(
        encoder(x), torch.relu(x * weight[0] + bias[0]) * weight[1] + bias[1]
    )


def test_placement_names_the_layers():
    assert activated_layers("loc1", 3) == [True, False, False]
    assert activated_layers("loc2", 3) == [False, True, True]
    assert activated_layers("loc2", 2) == [False, True]
    assert activated_layers("both", 2) == [True, True]
    assert activated_layers("none", 2) == [False, False]


def test_layers_are_named_by_their_numbers_from_1():
    for n_hidden in (1, 2, 3):
        for chosen in range(2**n_hidden):
            active = [bool(chosen >> k & 1) for k in range(n_hidden)]
            numbers = [k + 1 for k in range(n_hidden) if active[k]]
            assert activated_layers(numbers, n_hidden) == active
        for outside in (0, n_hidden + 1):
            with pytest.raises(ValueError, match=f"names layer {outside}, but n_hidden is"):
                activated_layers([1, outside], n_hidden)


@pytest.mark.parametrize("placement", [[1], [2], [3], [1, 3]])
def test_an_encoder_has_activations_in_the_layers_that_are_named(placement):
    """By its equation: each layer is ReLU or nothing."""
    encoder = ResidualEncoder(6, 4, hidden_width=5, n_hidden=3, placement=placement).double()
    h = x = torch.randn(9, 6, dtype=torch.double)
    for number, layer in enumerate(encoder.hidden, start=1):
        step = h @ layer.weight.T + layer.bias
        step = torch.relu(step) if number in placement else step
        h = step if number == 1 else step + h
    torch.testing.assert_close(encoder(x), encoder.readout(h))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "sine"}, "activation=sine: choose one of relu"),
        ({"placement": "loc3"}, "placement=loc3: choose one of"),
        ({"placement": "loc2", "n_hidden": 1}, "loc2: needs n_hidden of at least 2"),
        ({"n_hidden": 0}, "n_hidden=0: must be at least 1"),
        ({"hidden_width": 0}, "hidden_width=0: must be at least 1"),
        ({"bias": None}, "bias=None: must be true or false"),
        ({"bias": -1}, "bias=-1: must be true or false"),
        ({"skip_first": "no"}, "skip_first=no: must be true or false"),
        ({"n_hidden": 2.5}, "n_hidden=2.5: must be a whole number"),
        ({"hidden_width": True}, "hidden_width=True: must be a whole number"),
        ({"skip_first": True, "hidden_width": 5}, "must equal the number of features"),
    ],
)
def test_impossible_encoders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResidualEncoder(6, 4, **arguments)
