"""The penalties of `readout=ridge` in folds are those of all validation stimuli, by brute force."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import compose_train
from sklearn.linear_model import Ridge

from jne.data.datamodule import StandardisedData
from jne.data.folds import Belonging
from jne.encoders import ResidualEncoder
from jne.encoders.ridge import PENALTIES
from jne.fitting import readout as readouts
from jne.fitting.fit import fit
from jne.fitting.folds import fit_folds
from jne.fitting.readout import HIDDEN_SHARE, refit_readouts
from jne.stages import Stages
from jne.training.config import check_config
from jne.utils.progress import without_progress

N, D, V, N_FOLDS = 240, 6, 25, 3
ENCODER = {"hidden_width": 10, "n_hidden": 1}


def parts_of(seed=0):
    """The data of three folds: 240 stimuli, 25 voxels with more or less noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, D)) * np.geomspace(3, 0.3, D)
    y = np.abs(x) @ rng.standard_normal((D, V)) + x @ rng.standard_normal((D, V))
    y += np.geomspace(0.5, 30, V) * rng.standard_normal((N, V))
    parts = []
    for k, (rest, test) in enumerate(Belonging().folds(np.arange(N), N_FOLDS, seed)):
        train, val = Belonging().folds(rest, 4 + k)[0]  # of another size in each
        rows = {"train": rest[train], "val": rest[val], "test": test}
        parts.append(StandardisedData(x, y.astype(np.float32), rows, batch_size=None, seed=0))
    return parts


def encoders_of(linear_path, bias=True):
    encoders = []
    for seed in range(N_FOLDS):
        torch.manual_seed(seed)
        encoders.append(ResidualEncoder(D, V, **ENCODER, linear_path=linear_path, bias=bias))
    return encoders


class ByHand:
    """What the readout of a fold is solved from, float64: training stimuli first."""

    @torch.no_grad()
    def __init__(self, encoder, data):
        self.rows = np.concatenate([data.rows["train"], data.rows["val"]])
        self.n = n = len(data.rows["train"])
        features = data.features[self.rows]
        x = features.double().numpy()
        h = encoder.activations[0](encoder.hidden[0](features)).double().numpy()
        if encoder.linear_path is not None:
            ratio = x[:n].var(axis=0).sum() / h[:n].var(axis=0).sum()
            h = np.concatenate([h * np.sqrt(HIDDEN_SHARE / (1 - HIDDEN_SHARE) * ratio), x], axis=1)
        y = data.responses[self.rows].double().numpy()
        self.mean = np.zeros(V)
        if encoder.readout.bias is not None:
            h, self.mean = h - h[:n].mean(axis=0), y[:n].mean(axis=0)
        self.x, self.y = h, y - self.mean
        self.unit = np.square(h).sum() / len(h)

    def errors(self, ratio):
        """Squares (n_val, V), predicted from the training stimuli at penalties ratio * unit."""
        (x, x_val), (y, y_val) = (np.split(values, [self.n]) for values in (self.x, self.y))
        model = Ridge(ratio * self.unit, fit_intercept=False).fit(x, y)
        return np.square(y_val - model.predict(x_val))


@pytest.mark.parametrize(("linear_path", "bias"), [(True, True), (False, True), (False, False)])
def test_a_penalty_has_the_smallest_error_of_all_folds(linear_path, bias):
    parts, encoders = parts_of(), encoders_of(linear_path, bias)
    by_hand = [ByHand(*fold) for fold in zip(encoders, parts, strict=True)]
    solved = refit_readouts(encoders, parts)

    def joint(ratio, test):
        """Of the validation stimuli of all folds, but for those that a fold tests."""
        return sum(
            fold.errors(ratio)[~np.isin(fold.rows[fold.n :], test)].sum(axis=0) for fold in by_hand
        )

    for encoder, data, fold, found in zip(encoders, parts, by_hand, solved, strict=True):
        test = data.rows["test"]
        assert sum(np.isin(other.rows[other.n :], test).sum() for other in by_hand) > 10
        curve = np.array([joint(np.full(V, ratio), test) for ratio in PENALTIES])
        ratio = found.penalty.astype(np.float64) / fold.unit
        best = np.array(PENALTIES)[curve.argmin(axis=0)]
        assert (np.abs(np.log10(ratio / best)) < 0.33).mean() > 0.9
        assert (joint(ratio, test) <= curve.min(axis=0) * (1 + 1e-3)).all()
        assert found.loss == pytest.approx(fold.errors(ratio).mean(), rel=1e-4)
        assert (found.end == 0).mean() > 0.5
        model = Ridge(found.penalty.astype(np.float64), fit_intercept=False).fit(fold.x, fold.y)
        with torch.no_grad():
            predicted = encoder(data.features[fold.rows])
        np.testing.assert_allclose(predicted, model.predict(fold.x) + fold.mean, atol=2e-4)


def test_what_a_fold_tests_does_not_choose_its_penalty():
    """By the validation stimuli of the other folds."""
    parts, encoders = parts_of(), encoders_of(linear_path=True)
    rng = np.random.default_rng(1)
    before = [part.with_responses(part.responses[np.arange(N)].numpy()) for part in parts]
    after = []
    for part in parts:
        values = part.responses[np.arange(N)].numpy()
        rows = np.intersect1d(part.rows["val"], parts[0].rows["test"])  # fold 1 tests them
        values[rows] = 10 * rng.standard_normal((len(rows), V))
        after.append(part.with_responses(values))
    others = deepcopy(encoders)
    solved, changed = refit_readouts(encoders, before), refit_readouts(others, after)
    np.testing.assert_array_equal(changed[0].penalty, solved[0].penalty)
    assert torch.equal(others[0].readout.weight, encoders[0].readout.weight)
    for k in (1, 2):
        assert (changed[k].penalty != solved[k].penalty).mean() > 0.9


def test_blocks_of_voxels_are_solved_as_all_at_once(monkeypatch):
    parts, encoders = parts_of(), encoders_of(linear_path=True)
    blocks = deepcopy(encoders)
    expected = refit_readouts(encoders, parts)
    monkeypatch.setattr(readouts, "_VOXELS_AT_ONCE", 7 * N_FOLDS)
    solved = refit_readouts(blocks, parts)
    for k in range(N_FOLDS):
        np.testing.assert_allclose(solved[k].penalty, expected[k].penalty, rtol=1e-3)
        solved_so = blocks[k].readout.weight, encoders[k].readout.weight
        torch.testing.assert_close(*solved_so, rtol=1e-3, atol=1e-4)


@pytest.fixture
def settings():
    keys = ("encoder.hidden_width=10", "trainer.max_epochs=2", "optimizer.weight_decay=0")
    config = check_config(compose_train("unused", *keys, "readout=ridge"))[0]
    return config.model_copy(update={"encoder": {**config.encoder, "n_hidden": 1}})


def identified(parts):
    """As the data of a prepared folder: what stands for them in the store."""
    for k, part in enumerate(parts):
        part.identity = {"fold": k}
    return parts


def check_same(fits, others):
    for fitted, other in zip(fits, others, strict=True):
        for name, values in fitted.encoder.state_dict().items():
            assert torch.equal(values, other.encoder.state_dict()[name])
        np.testing.assert_array_equal(fitted.history.readout_penalty, other.history.readout_penalty)
        assert fitted.history.best_loss == other.history.best_loss


@pytest.mark.parametrize("changes", [{}, {"linear_path": False}])
@pytest.mark.parametrize("readout", ["ridge", "stacked"])
def test_folds_are_trained_then_solved_together(settings, tmp_path, monkeypatch, readout, changes):
    """In any order, once; a readout that cannot be stacked as `readout=ridge`."""
    update = {"readout": readout, "encoder": {**settings.encoder, **changes}}
    settings, parts = settings.model_copy(update=update), identified(parts_of())
    with without_progress():
        fits = fit_folds(parts, settings, Stages(tmp_path / "a"))
        check_same(fits, fit_folds(parts, settings, Stages(tmp_path / "b"), first=1))
        check_same(fits, fit_folds(parts, settings))
        monkeypatch.setattr("jne.fitting.folds.refit_readouts", None)  # nothing is computed again
        monkeypatch.setattr("jne.fitting.folds.stack_readouts", None)
        check_same(fits, fit_folds(parts, settings, Stages(tmp_path / "a")))
    stacked = readout == "stacked" and not changes
    assert (fits[0].history.stack_linear is not None) == stacked
    if not stacked:
        again = [deepcopy(fitted.encoder) for fitted in fits]
        solved = refit_readouts(again, parts)  # what the hidden layers are does not change
        for fitted, found, encoder in zip(fits, solved, again, strict=True):
            np.testing.assert_array_equal(fitted.history.readout_penalty, found.penalty)
            assert torch.equal(encoder.readout.weight, fitted.encoder.readout.weight)


@pytest.mark.parametrize("changes", [{"placement": "none"}, None])
def test_a_linear_encoder_is_that_of_its_fold_alone(settings, changes):
    """As the ridge baseline, which `encoder=ridge` is."""
    encoder = {"_target_": "jne.encoders.RidgeRegression"}
    if changes is not None:
        encoder = {**settings.encoder, **changes}
    settings, parts = settings.model_copy(update={"encoder": encoder}), parts_of()
    with without_progress():
        check_same(fit_folds(parts, settings), [fit(part, settings) for part in parts])
