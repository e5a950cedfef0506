"""`readout=stacked`: r + a (l - r) + b g, against regressions by hand and worlds that are known."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, TINY_COHORT, compose_train
from sklearn.linear_model import LinearRegression, Ridge
from torch import nn

from jne import JNERegressor, Results, jacobian_deviation
from jne.analysis.nonlinearity import jne
from jne.analysis.prediction import r2_score
from jne.data.datamodule import StandardisedData
from jne.encoders import ResidualEncoder
from jne.errors import InputError
from jne.estimator.parameters import checked
from jne.fitting import stacking
from jne.fitting.fit import fit
from jne.fitting.history import read_trained, write_trained
from jne.fitting.readout import refit_readout
from jne.fitting.stacking import LEAST_NONLINEAR, Pool, regress, stack_readout, stacking_lacks
from jne.training.config import check_config
from jne.utils.progress import without_progress

D, N_UNITS = 60, 8


def world(nonlinear=0.0, *, seed=0, n_voxels=60, n_train=500, n_val=200, noise=2.0):
    """Standardised data; the signal is linear, plus `nonlinear` times 8 absolute values."""
    rng, n = np.random.default_rng(seed), n_train + n_val + 800
    x = rng.standard_normal((n, D))
    linear = x @ rng.standard_normal((D, n_voxels)) / np.sqrt(D)
    units = rng.standard_normal((D, N_UNITS)) / np.sqrt(D)
    mixed = np.abs(x @ units) @ rng.standard_normal((N_UNITS, n_voxels))
    y = linear + nonlinear * (mixed - mixed.mean(axis=0))
    y += noise * rng.standard_normal(y.shape)
    parts = np.split(np.arange(n), [n_train, n_train + n_val])
    rows = dict(zip(("train", "val", "test"), parts, strict=True))
    data = StandardisedData(x, y.astype(np.float32), rows, batch_size=100, seed=0)
    return data, units


def encoder_of(data, units=None):
    """Of one hidden layer, which has the units of the world among others."""
    torch.manual_seed(0)
    sizes = {"hidden_width": 64, "n_hidden": 1, "linear_path": True}
    encoder = ResidualEncoder(D, data.n_outputs, **sizes)
    if units is not None:
        with torch.no_grad():
            weights = torch.from_numpy(np.concatenate([units.T, -units.T])).float()
            encoder.hidden[0].weight[: len(weights)] = weights
            encoder.hidden[0].bias[: len(weights)] = 0
    return encoder


@torch.no_grad()
def test_r2(encoder, data):
    x, y = data.split("test")
    return r2_score(y.numpy(), encoder(x).numpy())


test_r2.__test__ = False


def ridge_r2(data, penalty):
    seen = [torch.cat(pair) for pair in zip(data.split("train"), data.split("val"), strict=True)]
    x, y = (values.double().numpy() for values in seen)
    features, responses = (values.double().numpy() for values in data.split("test"))
    return r2_score(responses, Ridge(penalty.astype(float)).fit(x, y).predict(features))


def regressions(h, x, y, penalty):
    """A function of (h, x) to r, l and g, all of them float64."""
    share = stacking.HIDDEN_SHARE
    ratio = x.var(axis=0).sum() / h.var(axis=0).sum()
    scale = np.sqrt(share / (1 - share) * ratio)
    r = Ridge(penalty).fit(x, y)
    both = Ridge(penalty).fit(np.concatenate([h * scale, x], axis=1), y)
    prediction = both.predict(np.concatenate([h * scale, x], axis=1))
    l = LinearRegression().fit(x, prediction)  # noqa: E741

    def predict(h, x):
        whole = both.predict(np.concatenate([h * scale, x], axis=1))
        return r.predict(x), l.predict(x), whole - l.predict(x)

    return predict


@torch.no_grad()
def hidden(encoder, x):
    return encoder.activations[0](encoder.hidden[0](x)).double().numpy()


def test_the_encoder_is_ridge_plus_its_linear_and_its_nonlinear_part(monkeypatch):
    """Whatever the two weights of a voxel are."""
    weights = [np.linspace(0, 1, 20), np.linspace(2, 0.5, 20)]
    monkeypatch.setattr(Pool, "shrunk", lambda *_: weights.pop(0))
    data, units = world(0.6, n_voxels=20)
    encoder = encoder_of(data, units)
    solved = stack_readout(encoder, data)
    penalty = solved.penalty.astype(np.float64)
    (x, y), (at_val, y_val) = data.split("train"), data.split("val")
    arrays = [values.double().numpy() for values in (x, y, at_val, y_val)]
    h, h_val = hidden(encoder, x), hidden(encoder, at_val)

    r, line, g = regressions(h, *arrays[:2], penalty)(h_val, arrays[2])
    loss = np.square(
        arrays[3] - r - solved.stack_linear * (line - r) - solved.stack_nonlinear * g
    ).mean()
    assert solved.loss == pytest.approx(loss, rel=1e-4)

    seen = [np.concatenate(pair) for pair in zip(arrays[:2], arrays[2:], strict=True)]
    predict = regressions(np.concatenate([h, h_val]), *seen, penalty)
    test = data.split("test")[0]
    r, line, g = predict(hidden(encoder, test), test.double().numpy())
    expected = r + solved.stack_linear * (line - r) + solved.stack_nonlinear * g
    with torch.no_grad():
        np.testing.assert_allclose(encoder(test), expected, atol=2e-5)
    assert g.std() > 0.05
    assert (line - r).std() > 0.02


def test_blocks_of_voxels_are_stacked_as_all_at_once(monkeypatch):
    data, units = world(0.3, n_voxels=20, noise=1.0)
    whole = encoder_of(data, units)
    blocks = deepcopy(whole)
    expected = stack_readout(whole, data)
    monkeypatch.setattr(stacking, "_VOXELS_AT_ONCE", 7)
    solved = stack_readout(blocks, data)
    for name in ("stack_linear", "stack_nonlinear", "penalty"):
        np.testing.assert_allclose(getattr(solved, name), getattr(expected, name), rtol=1e-3)
    assert 0 < solved.stack_linear.mean() < 1
    torch.testing.assert_close(blocks.readout.weight, whole.readout.weight, rtol=1e-3, atol=1e-5)


def test_slopes_are_of_least_squares_and_errors_hc3():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((50, 3)) for _ in range(2)]
    y = rng.standard_normal((50, 3)) + x[0]
    slope, error, rest = regress(y, x)
    for v in range(3):
        design = np.column_stack([np.ones(50), x[0][:, v], x[1][:, v]])
        inverse = np.linalg.inv(design.T @ design)
        beta = inverse @ design.T @ y[:, v]
        left = y[:, v] - design @ beta
        free = 1 - np.einsum("ij,jk,ik->i", design, inverse, design)
        meat = design.T * np.square(left / free) @ design
        np.testing.assert_allclose(slope[:, v], beta[1:])
        np.testing.assert_allclose(error[:, v], np.sqrt(np.diag(inverse @ meat @ inverse))[1:])
        np.testing.assert_allclose(rest[:, v], left)


def test_a_regressor_of_rounding_has_no_slope():
    """Blown up to the size of others, it would move the slopes of all voxels."""
    rng = np.random.default_rng(0)
    x = [1e-6 * rng.standard_normal((50, 2)), rng.standard_normal((50, 2))]
    y = rng.standard_normal((50, 2)) + x[1]
    slope, error, rest = regress(y, x)
    assert np.isnan(slope[0]).all()
    assert np.isnan(error[0]).all()
    alone = regress(y, x[1:])
    for found, expected in zip(
        (slope[1], error[1], rest), (*alone[0], *alone[1], alone[2]), strict=True
    ):
        np.testing.assert_allclose(found, expected)
    pool = Pool(slope[0], error[0], zeros=False)
    np.testing.assert_array_equal(pool.shrunk(np.zeros(50)), 0)


def test_slopes_that_are_drawn_are_closer_to_the_truth_when_pooled():
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(2000) < 0.5, 0, 1 + 0.3 * rng.standard_normal(2000))
    error = rng.uniform(0.2, 0.8, 2000)
    slope = truth + error * rng.standard_normal(2000)
    pool = Pool(slope, error, zeros=True)
    pooled = pool.shrunk(np.zeros(5))
    assert np.square(pooled - truth).mean() < 0.5 * np.square(slope - truth).mean()
    assert pool.weights.sum() == pytest.approx(1)
    assert pool.shrunk(np.full(5, 0.2)).mean() < pooled.mean()  # the mean itself is uncertain
    (alone,) = Pool(np.array([2.0]), np.array([1.0]), zeros=True).shrunk(np.array([0.6, 0.8]))
    assert alone == pytest.approx(2 * (1 - 1 / 4), rel=0.3)  # one voxel is shrunk by its own error
    assert not Pool(np.zeros(3), np.zeros(3), zeros=True).shrunk(np.zeros(5)).any()


@pytest.mark.runs
@pytest.mark.parametrize("trained", [False, True])
def test_no_linear_voxel_is_below_ridge_regression(trained):
    """Nor has it a JNE; those of `readout=ridge` are both."""
    data, _ = world(n_train=1500, n_val=300, noise=1.0)
    if trained:
        settings = {"hidden_width": 32, "max_epochs": 15, "weight_decay": 0.01}
        regressor = JNERegressor(**settings)
        with without_progress():
            encoder = fit(data, checked(regressor.get_params(deep=False)).config()).encoder
    else:
        encoder = encoder_of(data)
    ridge = deepcopy(encoder)
    solved = stack_readout(encoder, data)
    refit_readout(ridge, data)
    reference = ridge_r2(data, solved.penalty)
    assert (test_r2(encoder, data) - reference).min() > -0.005
    assert (test_r2(ridge, data) - reference).min() < -0.005
    at = data.split("test")[0]
    measured, before = (jne(jacobian_deviation(e, at)) for e in (encoder, ridge))
    assert measured.mean() < min(0.005, 0.1 * before.mean())
    assert (solved.stack_nonlinear >= np.float32(LEAST_NONLINEAR)).all()
    assert (measured > 0).all()


def test_a_nonlinear_part_that_the_ridge_readout_shrinks_gets_its_size():
    data, units = world(0.6)
    encoder = encoder_of(data, units)
    ridge = deepcopy(encoder)
    refit_readout(ridge, data)
    solved = stack_readout(encoder, data)
    gain = test_r2(encoder, data) - test_r2(ridge, data)
    assert gain.mean() > 0.01
    assert np.median(solved.stack_nonlinear) > 1.5
    assert (test_r2(encoder, data) - ridge_r2(data, solved.penalty)).mean() > 0.01


def test_the_fast_jacobians_are_those_of_automatic_differentiation():
    data, units = world(0.6, n_voxels=6)
    encoder = encoder_of(data, units)
    stack_readout(encoder, data)
    assert isinstance(encoder, ResidualEncoder)
    at = data.split("test")[0][:20]
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: encoder(x[None])[0]))(at).detach()
    expected = (jacobians - jacobians.mean(dim=0)).abs().sum(dim=2)
    np.testing.assert_allclose(jacobian_deviation(encoder, at), expected, rtol=1e-3, atol=1e-5)


class Squared(ResidualEncoder):
    def forward(self, features):
        return super().forward(features).square()


@pytest.mark.parametrize(
    ("make", "n_val", "lacks"),
    [
        (lambda v: ResidualEncoder(D, v, hidden_width=8, linear_path=True), 4, None),
        (lambda v: ResidualEncoder(D, v, hidden_width=8, linear_path=True), 3, "4 validation"),
        (lambda v: ResidualEncoder(D, v, hidden_width=8), 9, "a linear path"),
        (lambda v: ResidualEncoder(D, v, hidden_width=8, bias=False, linear_path=True), 9, "bias"),
        (lambda v: nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, v)), 9, "a linear path"),
    ],
)
def test_what_cannot_be_stacked(make, n_val, lacks):
    data, _ = world(n_voxels=3, n_val=n_val)
    found = stacking_lacks(make(3), data)
    assert (found is None) if lacks is None else (lacks in found)


def test_an_encoder_that_does_not_end_in_a_linear_layer_is_refused():
    data, _ = world(n_voxels=3)
    with pytest.raises(InputError, match=r"ends in a torch\.nn\.Linear"):
        stacking_lacks(Squared(D, 3, hidden_width=8, linear_path=True), data)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"linear_path": False}, "readout=stacked needs a linear path"), ({"placement": "none"}, "")],
)
def test_what_cannot_be_stacked_is_solved_for_by_itself(changes, sentence, capsys):
    """A linear encoder without a word: stacked on ridge regression, it is what ridge makes it."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 60, 6))
    settings = {"hidden_width": 8, "max_epochs": 3, "weight_decay": 0.0, **changes}
    stacked = JNERegressor(**settings).fit(x, y)
    said = capsys.readouterr().out
    assert (sentence in said) if sentence else ("stacked" not in said)
    ridge = JNERegressor(readout="ridge", **settings).fit(x, y)
    np.testing.assert_array_equal(stacked.predict(x), ridge.predict(x))


@pytest.fixture(scope="module")
def config():
    settings = ("encoder.hidden_width=16", "trainer.max_epochs=3", "optimizer.weight_decay=0.01")
    return check_config(compose_train("unused", *settings))[0]


@pytest.mark.runs
@pytest.mark.parametrize("decay", [0.01, "auto"])
@pytest.mark.parametrize("space", ["voxels", "components"])
def test_hidden_layers_are_trained_as_for_a_ridge_readout(config, tmp_path, space, decay):
    data, _ = world(0.6, n_voxels=12)
    trainer = config.trainer.model_copy(update={"response_space": space})
    optimizer = config.optimizer | {"weight_decay": decay}
    fitted = {}
    with without_progress():
        for readout in ("ridge", "stacked"):
            changes = {"readout": readout, "trainer": trainer, "optimizer": optimizer}
            fitted[readout] = fit(data, config.model_copy(update=changes))
        again = deepcopy(fitted["ridge"].encoder)
        solved = stack_readout(again, data)
    encoder, history = fitted["stacked"].encoder, fitted["stacked"].history
    for name, values in again.state_dict().items():
        assert torch.equal(values, encoder.state_dict()[name])
    assert history.best_loss == solved.loss
    pd.testing.assert_frame_equal(history.epochs, fitted["ridge"].history.epochs)
    assert fitted["ridge"].history.stack_linear is None
    write_trained(tmp_path / "trained.pt", encoder, history)
    read = read_trained(tmp_path / "trained.pt", again)
    for name in ("stack_linear", "stack_nonlinear", "readout_penalty"):
        np.testing.assert_array_equal(getattr(read, name), getattr(history, name))
    write_trained(tmp_path / "ridge.pt", encoder, fitted["ridge"].history)
    assert not [name for name in torch.load(tmp_path / "ridge.pt") if name.startswith("stack")]


@pytest.mark.runs
def test_the_record_has_the_weights(run_script):
    (folder,) = run_script("train.py", *TINY_COHORT, *TINY, "readout=stacked", "baseline=[ridge]")
    run = Results(folder)
    voxels = run.voxels
    assert voxels["stack_linear"].between(0, 1).all()
    assert (voxels["stack_nonlinear"] >= np.float32(LEAST_NONLINEAR)).all()
    np.testing.assert_allclose(voxels["readout_penalty"], voxels["ridge_penalty"], rtol=0.02)
    encoder = run.encoder()
    with torch.no_grad():
        predictions = encoder(torch.tensor(np.array(run.array("features"))))
    np.testing.assert_allclose(predictions, run.array("predictions"), atol=1e-5)
    inside = voxels["readout_penalty_end"] == 0  # else hardly anything but the mean is predicted
    assert voxels["nonlinear_z"].notna().sum() >= inside.sum() > 20
