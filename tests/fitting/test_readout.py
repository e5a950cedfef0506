"""The ridge readout and the baselines, on the tiny cohort, against ridge regression by hand."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, TINY_COHORT, no_figures, run_quietly
from himalaya.ridge import RidgeCV
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import nn

from jne import Results, jacobian_deviation
from jne.data.datamodule import EncodingData
from jne.data.folds import cross_validation
from jne.data.prepared import load
from jne.encoders import ResidualEncoder, RidgeRegression
from jne.encoders.ridge import PENALTIES
from jne.errors import InputError
from jne.fitting import baseline
from jne.fitting.baseline import baseline_columns, ridge_penalties
from jne.fitting.readout import last_layer, refit_readout
from jne.fitting.stacking import stack_readout
from jne.stages import Stages


@pytest.fixture(scope="module")
def run(tmp_path_factory, store):
    with no_figures():
        cohort = (*TINY_COHORT, *TINY, "baseline=[ridge,kernel]")
        (folder,) = run_quietly(tmp_path_factory.mktemp("readout"), store, "train.py", *cohort)
    return Results(folder)


@pytest.fixture
def data(run):
    return EncodingData(load(Path(run.status["prepared"])), batch_size=None, seed=0)


def split(data, *names):
    parts = [data.split(name) for name in names]
    return [torch.cat(list(part)).double().numpy() for part in zip(*parts, strict=True)]


def ridge_at(penalty, x, y):
    return Ridge(alpha=np.asarray(penalty, dtype=np.float64), fit_intercept=False).fit(x, y)


def check_against_himalaya(penalty, x, y, cv):
    """Penalties are himalaya's, which are of the grid, but for what lies between; else no worse."""
    grid = np.array(PENALTIES) * np.square(x).sum() / len(x)
    best = RidgeCV(alphas=grid, cv=cv).fit(x, y)
    assert not np.isin(np.float32(penalty), np.float32(grid[1:-1])).any()
    near = np.abs(np.log10(penalty / best.best_alphas_)) < 0.33
    assert near.mean() > 0.9
    errors = np.zeros(y.shape[1])
    for train, val in cv:
        predictions = ridge_at(penalty, x[train], y[train]).predict(x[val])
        errors += np.square(y[val] - predictions).mean(axis=0) / len(cv)
    assert (errors <= -best.cv_scores_ * (1 + 1e-3)).all()
    return errors


def test_the_baseline_is_himalayas(run, data):
    x, y = split(data, "train", "val")
    cv = cross_validation(data)
    penalty = run.voxels["ridge_penalty"].to_numpy()
    check_against_himalaya(penalty, x - x.mean(0), y - y.mean(0), cv)
    model = ridge_at(penalty, x - x.mean(0), y - y.mean(0))
    test_x, test_y = split(data, "test")
    predicted = (test_x - x.mean(0)) @ model.coef_.T + y.mean(0)
    expected = r2_score(test_y, predicted, multioutput="raw_values")
    np.testing.assert_allclose(run.voxels["r2_ridge"], expected, atol=1e-5)
    assert run.summary["metrics"]["r2_ridge/mean"] == pytest.approx(expected.mean(), abs=1e-5)
    assert run.voxels["r2_kernel"].notna().all()


def test_a_baseline_is_computed_once(data, tmp_path, monkeypatch):
    first = baseline_columns(["ridge"], data, Stages(tmp_path))["r2_ridge"]
    monkeypatch.delattr(baseline, "_computed")  # nothing is computed any more
    again = baseline_columns(["ridge"], data, Stages(tmp_path))["r2_ridge"]
    np.testing.assert_array_equal(again, first)


def test_a_killed_baseline_continues(data, tmp_path, monkeypatch):
    expected = baseline_columns(["ridge"], data, Stages(tmp_path / "whole"))["r2_ridge"]
    monkeypatch.setattr(baseline, "_VOXELS_AT_ONCE", 7)
    choose, calls = baseline.RidgeCV.choose, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return choose(*arguments)

    monkeypatch.setattr(baseline.RidgeCV, "choose", killed)
    with pytest.raises(KeyboardInterrupt):
        baseline_columns(["ridge"], data, Stages(tmp_path))
    assert not list(tmp_path.glob("baseline/[!.]*"))
    found = baseline_columns(["ridge"], data, Stages(tmp_path))["r2_ridge"]
    assert len(calls) == 3 + 3  # of 30 voxels in blocks of 7, two were complete
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_stacking_takes_the_penalties_of_the_baseline(data, tmp_path):
    """They are those that it would choose itself."""
    encoder = ResidualEncoder(data.n_features, data.n_outputs, hidden_width=8, linear_path=True)
    again, chosen = deepcopy(encoder), ridge_penalties(data, Stages(tmp_path))
    expected = stack_readout(encoder, data)
    solved = stack_readout(again, data, chosen)
    np.testing.assert_allclose(solved.penalty, expected.penalty, rtol=1e-4)
    np.testing.assert_array_equal(solved.end, expected.end)
    np.testing.assert_allclose(solved.stack_nonlinear, expected.stack_nonlinear, atol=1e-4)
    np.testing.assert_array_equal(solved.penalty, chosen[0])
    assert ridge_penalties(data) is None


def test_kernel_ridge_that_does_not_fit_the_memory_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr("jne.fitting.kernel.memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"baseline=kernel: needs about .* leave it out"):
        baseline_columns(["kernel"], data, Stages(tmp_path))


@pytest.mark.parametrize("linear_path", [True, False])
def test_the_readout_is_ridge_regression_on_the_hidden_layer(data, linear_path):
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, data.n_trained, hidden_width=16, linear_path=linear_path)
    x, y = split(data, "train", "val")
    layers = []
    encoder.readout.register_forward_pre_hook(lambda _, inputs: layers.append(inputs[0]))
    with torch.no_grad():
        encoder(torch.tensor(x).float())
    n = len(data.rows["train"])
    spaces = [layers[0].double().numpy()] + ([x] if linear_path else [])
    spaces = [space - space[:n].mean(axis=0) for space in spaces]
    if linear_path:
        spaces[0] *= np.sqrt(spaces[1][:n].var(axis=0).sum() / spaces[0][:n].var(axis=0).sum() / 9)
    both = np.concatenate(spaces, axis=1)
    cv = [(np.arange(n), np.arange(n, len(x)))]
    target = y - y[:n].mean(axis=0)

    found = refit_readout(encoder, data)
    with torch.no_grad():
        predictions = encoder(torch.tensor(x).float())
    errors = check_against_himalaya(found.penalty, both, target, cv)
    expected = ridge_at(found.penalty, both, target).predict(both) + y[:n].mean(axis=0)
    np.testing.assert_allclose(predictions, expected, atol=2e-4)
    assert found.loss == pytest.approx(errors.mean(), rel=1e-5)


def test_an_encoder_without_bias_keeps_none(data):
    encoder = ResidualEncoder(64, data.n_trained, hidden_width=16, bias=False)
    refit_readout(encoder, data)
    assert encoder.readout.bias is None


def test_any_module_that_ends_in_a_linear_layer(data):
    encoder = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, data.n_trained))
    before = encoder[2].weight.clone()
    refit_readout(encoder, data)
    assert not torch.equal(encoder[2].weight, before)
    encoder.append(nn.Tanh())
    with pytest.raises(InputError, match="set readout=trained"):
        refit_readout(encoder, data)


def test_encoder_ridge_is_the_baseline_and_its_jne_is_0(run_script):
    (folder,) = run_script("train.py", *TINY_COHORT, "encoder=ridge")
    run = Results(folder)
    np.testing.assert_allclose(run.voxels["r2"], run.voxels["r2_ridge"], atol=1e-5)
    assert (run.voxels["jne"] == 0).all()
    assert len(run.epochs) == 1
    encoder = run.encoder()
    assert not jacobian_deviation(encoder, run.array("features")).any()
    with torch.no_grad():
        predictions = encoder(torch.tensor(np.array(run.array("features"))))
    np.testing.assert_allclose(predictions, run.array("predictions"), atol=1e-6)


def test_the_stored_encoder_has_the_readout_of_ridge(run):
    encoder = run.encoder()
    with torch.no_grad():
        predictions = encoder(torch.tensor(np.array(run.array("features"))))
    np.testing.assert_allclose(predictions, run.array("predictions"), atol=1e-5)
    assert encoder.linear_path.weight.any()
    assert run.voxels["readout_penalty"].nunique() > 20  # of 30: continuous


def test_a_linear_encoder_is_cross_validated(data):
    torch.manual_seed(0)
    encoder = ResidualEncoder(64, data.n_trained, hidden_width=16, placement="none")
    x, y = split(data, "train", "val")
    inputs = []
    encoder.readout.register_forward_pre_hook(lambda _, entered: inputs.append(entered[0]))
    with torch.no_grad():
        encoder(torch.tensor(x).float())
    cv = cross_validation(data)
    hidden = inputs[0].double().numpy()
    found = refit_readout(encoder, data)
    check_against_himalaya(found.penalty, hidden - hidden.mean(axis=0), y - y.mean(axis=0), cv)


class Twice(nn.Module):
    """Its last layer is called twice, and the second result is returned."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, x):
        return self.last(torch.tanh(self.last(torch.tanh(self.first(x)))))


def test_what_enters_the_last_layer_is_found_without_predicting_all_responses(data, monkeypatch):
    monkeypatch.setattr("jne.fitting.readout._ROWS_AT_ONCE", 7)
    rows = np.concatenate([data.rows["train"], data.rows["val"]])
    encoder = Twice(data.n_features).train()
    readout, entered = last_layer(encoder, data, rows)
    assert readout is encoder.last
    assert encoder.training
    with torch.no_grad():
        once = encoder.last(torch.tanh(encoder.first(data.features[rows])))
    torch.testing.assert_close(entered, torch.tanh(once))
    large = ResidualEncoder(data.n_features, 50, hidden_width=8)
    predicted = []
    large.readout.register_forward_hook(lambda _, inputs, __: predicted.append(len(inputs[0])))
    last_layer(large, data, rows)
    assert sum(predicted) == 2


@pytest.mark.parametrize("kind", ["ridge", "linear"])
def test_the_validation_loss_of_a_linear_encoder_is_that_of_the_validation_stimuli(data, kind):
    """Not that of the folds that chose its penalties: one meaning for all encoders."""
    torch.manual_seed(0)
    n = len(data.rows["train"])
    encoder = RidgeRegression(64, data.n_trained)
    x, y = split(data, "train", "val")
    if kind == "linear":
        encoder = ResidualEncoder(64, data.n_trained, hidden_width=16, placement="none")
        layers = []
        encoder.readout.register_forward_pre_hook(lambda _, inputs: layers.append(inputs[0]))
        encoder(torch.tensor(x).float())
        x = layers[0].detach().double().numpy()
    solved = refit_readout(encoder, data)
    losses = [
        np.square(y[n:, v] - Ridge(alpha).fit(x[:n], y[:n, v]).predict(x[n:])).mean()
        for v, alpha in enumerate(solved.penalty)
    ]
    assert solved.loss == pytest.approx(np.mean(losses), rel=1e-4)
