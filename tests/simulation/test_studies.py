"""The simulations against closed forms and brute force, and their published results."""

import numpy as np
import pytest
import scipy.stats
import torch

from jne.encoders import ResidualEncoder
from jne.simulation import ActivationCurves, Depth, InputScale, PlacementGrid, SampleSize
from jne.simulation.base import means
from jne.simulation.networks import Inputs, Network, derived_seed

ACTIVATIONS = ["relu", "leaky_relu", "gelu", "swish"]
PLACEMENTS = ["none", "loc1", "loc2", "both"]
NETWORK = {"n_hidden": 2, "width": 24, "skip_first": True, "init": "default"}
GRID = {
    "activations": ACTIVATIONS,
    "placements": PLACEMENTS,
    "networks": [NETWORK],
    "inputs": {"distribution": "uniform", "scale": 10.0},
    "n_features": 24,
    "n_stimuli": 30,
    "n_draws": 3,
    "seed": 0,
}
CURVES = {
    "activations": [*ACTIVATIONS, "tanh"],
    "start": -3.0,
    "stop": 3.0,
    "step": 0.25,
    "window": 0.001,
    "n_points": 1001,
}


def quiet(_):
    pass


def second_derivative(activation, x):
    """Closed forms of phi''."""
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    sigmoid = 1 / (1 + np.exp(-x))
    slope = sigmoid * (1 - sigmoid)
    return {
        "gelu": density * (2 - x**2),
        "swish": slope * (2 + x * (1 - 2 * sigmoid)),
        "tanh": -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
    }[activation]


@pytest.mark.parametrize("activation", ["gelu", "swish", "tanh"])
def test_curves_follow_the_second_derivative(activation):
    study = ActivationCurves(**CURVES)
    table = study.run(quiet).query("activation == @activation")
    second = np.abs(second_derivative(activation, table["x"].to_numpy()))
    np.testing.assert_allclose(np.abs(table["second_derivative"]), second, atol=1e-12)
    curved = second > 0.01
    assert curved.sum() > 10
    np.testing.assert_allclose(
        table["jne"][curved], second[curved] * 0.001 / np.sqrt(12), rtol=2e-3
    )


def test_piecewise_linear_activations_have_jne_at_the_kink_alone():
    study = ActivationCurves(**CURVES)
    table = study.run(quiet)
    for activation, slope in (("relu", 0.0), ("leaky_relu", 0.01)):
        curve = table[table["activation"] == activation].set_index("x")["jne"]
        assert (curve.drop(index=0.0) == 0).all()
        # 500 points of slope 1 and 501 of the other: p and 1 - p of two deviations
        p = 500 / 1001
        at_kink = (1 - slope) * abs(1 - 2 * p) * np.sqrt(p * (1 - p))
        assert curve[0.0] == pytest.approx(at_kink, rel=1e-6)
    assert study.summary(table)["jne_away_from_0/relu"] == 0


def test_grid_is_brute_force():
    """Every cell from autograd Jacobians of an encoder built for it alone."""
    study = PlacementGrid(**GRID)
    table = study.run(quiet)
    for draw in range(3):
        x = study.inputs.draw(30, 24, torch.Generator().manual_seed(derived_seed(0, draw, 0)))
        weights = study.networks[0].draw(24, derived_seed(0, draw, 1)).state_dict()
        for activation in ACTIVATIONS:
            for placement in PLACEMENTS:
                encoder = ResidualEncoder(
                    24,
                    1,
                    hidden_width=24,
                    n_hidden=2,
                    skip_first=True,
                    activation=activation,
                    placement=placement,
                )
                encoder.load_state_dict(weights)
                row = x.clone().requires_grad_()
                (jacobian,) = torch.autograd.grad(encoder(row).sum(), row)
                s = (jacobian - jacobian.mean(dim=0)).abs().sum(dim=1).double()
                found = table.query(
                    "draw == @draw and activation == @activation and placement == @placement"
                )["jne"].item()
                expected = s.std(unbiased=False).item()
                if placement == "none":
                    assert found == 0
                else:
                    assert found == pytest.approx(expected, rel=1e-3)


def test_inputs_have_the_promised_spread():
    generator = torch.Generator().manual_seed(0)
    for distribution in ("uniform", "normal"):
        x = Inputs(distribution=distribution, scale=6.0).draw(400, 500, generator)
        assert x.std().item() == pytest.approx(6 / np.sqrt(3), rel=0.01)
        assert abs(x.mean().item()) < 0.03


@pytest.mark.parametrize("init", ["default", "xavier_uniform", "kaiming_normal", "orthogonal"])
def test_initialisations(init):
    network = Network(
        **(NETWORK | {"init": init, "width": 200, "n_hidden": 1, "skip_first": False})
    )
    weight = network.draw(100, 0).hidden[0].weight.detach()
    expected = {
        "default": np.sqrt(1 / 3 / 100),
        "xavier_uniform": np.sqrt(2 / 300),
        "kaiming_normal": np.sqrt(2 / 100),
        "orthogonal": np.sqrt(1 / 200),
    }[init]
    assert weight.std().item() == pytest.approx(expected, rel=0.03)
    assert torch.equal(weight, network.draw(100, 0).hidden[0].weight)


def test_sample_size_agrees_with_the_paper():
    """r of JNE with |sin t|: about 0.87 at N 10, and rising (A.7.1); fewer points here."""
    study = SampleSize(sizes=[10, 100], n_points=401, n_features=768, seed=0)
    metrics = study.summary(study.run(quiet))
    assert metrics["r/0010"] == pytest.approx(0.874, abs=0.03)
    assert metrics["r/0100"] == pytest.approx(0.987, abs=0.006)


@pytest.mark.slow
def test_published_order_at_full_size():
    """none = 0 < Loc1 < Loc2 < both on average, at the paper's sizes (A.6)."""
    settings = {"n_features": 768, "n_stimuli": 1000, "n_draws": 20}
    network = NETWORK | {"width": 768}
    study = PlacementGrid(**(GRID | settings | {"networks": [network]}))
    means = study.run(quiet).groupby(["activation", "placement"])["jne"].mean()
    assert means["relu"]["loc1"] == pytest.approx(0.117, abs=0.01)
    assert means["relu"]["loc2"] == pytest.approx(0.135, abs=0.01)
    assert means["relu"]["both"] == pytest.approx(0.162, abs=0.01)
    assert means["gelu"]["both"] == pytest.approx(0.170, abs=0.01)
    for activation in ACTIVATIONS:
        m = means[activation]
        assert m["none"] == 0 < m["loc1"] < m["loc2"] < m["both"]


def test_depth_counts_the_activated_layers():
    study = Depth(
        activations=["relu"],
        depths=[2, 1],
        width=16,
        inputs=GRID["inputs"],
        n_stimuli=20,
        n_draws=2,
        seed=0,
    )
    table = study.run(quiet)
    counts = set(zip(table["n_hidden"], table["n_activated"], strict=True))
    assert counts == {(1, 1), (2, 1), (2, 2)}
    # The first layer of two, activated alone, is Loc1 of the same weights.
    grid = PlacementGrid(
        **(GRID | {"activations": ["relu"], "placements": ["loc1"], "n_draws": 2})
        | {"networks": [NETWORK | {"width": 16}], "n_features": 16, "n_stimuli": 20}
    )
    loc1 = grid.run(quiet)["jne"].to_numpy()
    np.testing.assert_array_equal(
        table.query("n_hidden == 2 and n_activated == 1")["jne"].to_numpy(), loc1
    )


def test_means_carry_their_standard_error():
    study = PlacementGrid(**(GRID | {"n_draws": 5}))
    table = study.run(quiet)
    cells = means(table)
    assert len(cells) == table.groupby(["activation", "placement"]).ngroups
    for cell in cells.itertuples():
        draws = table.query("activation == @cell.activation and placement == @cell.placement")
        assert cell.n_draws == len(draws) == 5
        assert cell.mean == pytest.approx(np.mean(draws["jne"]))
        assert cell.standard_error == pytest.approx(scipy.stats.sem(draws["jne"]))


def test_input_scale_is_relative_to_the_first():
    study = InputScale(
        **{key: GRID[key] for key in ("activations", "n_features", "n_stimuli", "n_draws", "seed")},
        placements=["none", "both"],
        network=NETWORK,
        inputs=[GRID["inputs"], GRID["inputs"] | {"scale": 1000.0}],
    )
    table = study.run(quiet)
    means = table.query("placement == 'both'").groupby(["inputs", "activation"])["jne"].mean()
    change = (means["uniform 1000"] / means["uniform 10"] - 1).abs().max()
    metrics = study.summary(table)
    assert metrics["largest_change/uniform_10"] == 0
    assert metrics["largest_change/uniform_1000"] == pytest.approx(change)
