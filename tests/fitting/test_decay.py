"""The weight decay that is found while training (`optimizer.weight_decay=auto`)."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import compose_train, small_cells

from jne import JNERegressor, Results
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.fitting.callbacks import LastCheckpoint
from jne.fitting.decay import DECAYS, DecayPath, solved_loss
from jne.fitting.fit import fit, train_module
from jne.fitting.module import EncodingModule, build_optimizer
from jne.stages import Stages
from jne.training.config import check_config

ADAM = {"_target_": "torch.optim.Adam", "lr": 3e-3, "weight_decay": "auto", "fused": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = small_cells(voxels_per_cell=5, n_train=60, n_val=15, n_test=5)
    return EncodingData(prepare(source, tmp_path_factory.mktemp("cells")), batch_size=20, seed=0)


@pytest.fixture(scope="module")
def config():
    composed = compose_train("unused", "encoder.hidden_width=16", "trainer.max_epochs=4")
    return check_config(composed)[0].model_copy(update={"optimizer": ADAM})


@pytest.fixture
def ends(monkeypatch):
    """The best weights of each decay, and their epoch, as they were when its turn was over."""
    seen = []
    original = DecayPath._end

    def end(path, module):
        original(path, module)
        seen.append((path.best.epoch, deepcopy(path.best.weights)))

    monkeypatch.setattr(DecayPath, "_end", end)
    return seen


def settings_of(config, **changes):
    trainer = config.trainer.model_copy(update={"checkpoint_seconds": 0})
    return config.model_copy(update={"trainer": trainer, **changes})


@pytest.mark.runs
@pytest.mark.parametrize("space", ["voxels", "components"])
@pytest.mark.parametrize("readout", ["ridge", "trained"])
def test_the_decay_of_the_lowest_loss_is_kept(data, config, ends, readout, space):
    trainer = config.trainer.model_copy(update={"response_space": space})
    settings = config.model_copy(update={"readout": readout, "trainer": trainer})
    fitted = fit(data, settings)
    decays, history = fitted.history.decays, fitted.history
    assert tuple(decays["weight_decay"]) == DECAYS
    losses = []
    for epoch, weights in ends:
        trained = history.epochs["val/loss"][epoch - 1]
        if readout == "trained":
            losses.append(trained)
        elif space == "voxels":
            encoder = deepcopy(fitted.encoder)
            encoder.load_state_dict(weights)
            losses.append(solved_loss(encoder, data))
    if losses:
        np.testing.assert_allclose(decays["loss"], losses, rtol=1e-5)
    best = decays["loss"].idxmin()
    assert history.weight_decay == DECAYS[best]
    assert history.best_epoch == ends[best][0] == decays["best_epoch"][best]
    np.testing.assert_allclose(
        decays["trained_loss"], history.epochs["val/loss"][decays["best_epoch"] - 1], rtol=1e-6
    )
    first = next(name for name in ends[best][1] if name.startswith("hidden.0"))
    assert torch.equal(fitted.encoder.state_dict()[first], ends[best][1][first])
    if space == "voxels":
        expected = decays["loss"].min()
        assert history.best_loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.runs
def test_each_decay_begins_with_the_best_weights_of_the_one_before(data, config, monkeypatch):
    begun = []
    original = DecayPath._begin

    def begin(path, trainer, module):
        best = deepcopy(path.best.weights)
        original(path, trainer, module)
        (optimizer,) = trainer.optimizers
        begun.append([group["weight_decay"] for group in optimizer.param_groups])
        assert not optimizer.state
        for name, value in module.encoder.state_dict().items():
            assert torch.equal(value, best[name])

    monkeypatch.setattr(DecayPath, "_begin", begin)
    monkeypatch.setattr("jne.fitting.fit._FULL_DECAY", data.n_outputs / 4)
    history = fit(data, config).history
    np.testing.assert_allclose(begun, [[decay, decay / 4] for decay in DECAYS[1:]], rtol=1e-6)
    starts = history.decays["first_epoch"]
    assert starts[0] == 1
    assert (np.diff(starts) <= config.trainer.max_epochs).all()
    assert (history.decays["best_epoch"] >= starts).all()
    assert (history.decays["best_epoch"][:-1].to_numpy() < starts[1:].to_numpy()).all()


@pytest.mark.runs
@pytest.mark.parametrize("killed_after", [2, 4, 9, 20])
def test_a_kill_changes_nothing(data, config, tmp_path, monkeypatch, killed_after):
    settings = settings_of(config)
    whole = fit(data, settings)
    trained = []

    class Kill(BaseException):
        pass

    original = LastCheckpoint.on_train_epoch_end

    def save(callback, trainer, module):
        original(callback, trainer, module)
        trained.append(trainer.current_epoch)
        if len(trained) == killed_after:
            raise Kill

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", save)
    stages = Stages(tmp_path / "stages")
    with pytest.raises(Kill):
        fit(data, settings, stages)
    epochs = []
    continued = fit(data, settings, stages, on_epoch=epochs.append)
    n = len(whole.history.epochs)
    assert len(epochs) == n
    assert 0 < trained[killed_after] <= killed_after  # it goes on where a checkpoint was written
    assert trained[killed_after:] == [*range(trained[killed_after], n)]
    for history in (continued.history, fit(data, settings, stages).history):
        pd.testing.assert_frame_equal(history.epochs, whole.history.epochs)
        pd.testing.assert_frame_equal(history.decays, whole.history.decays)
        assert history.best_epoch == whole.history.best_epoch
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(continued.encoder.state_dict()[name], value)


def test_a_number_trains_once_and_leaves_no_choice(data, config, tmp_path):
    settings = config.model_copy(update={"optimizer": ADAM | {"weight_decay": 0.01}})
    stages = Stages(tmp_path / "stages")
    for _ in range(2):
        history = fit(data, settings, stages).history
        assert history.decays is history.weight_decay is None
        assert len(history.epochs) <= settings.trainer.max_epochs
    (file,) = (tmp_path / "stages").rglob("trained.pt")
    assert "decays" not in torch.load(file, weights_only=True)


def test_a_decay_that_is_no_term_of_the_loss_is_not_chosen(data, config):
    encoder = EncodingModule(8, 2, config.encoder, ADAM).encoder
    adamw = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": "auto"}
    with pytest.raises(InputError, match=r"^optimizer.weight_decay='?auto'?: is chosen only where"):
        build_optimizer(adamw, encoder)
    for other in ("sgd", "SGD"):
        with pytest.raises(InputError, match=r"^optimizer.weight_decay"):
            build_optimizer(ADAM | {"weight_decay": other}, encoder)
    build_optimizer({"_target_": "torch.optim.SGD", "lr": 1.0, "weight_decay": "auto"}, encoder)
    with pytest.raises(InputError, match=r"^weight_decay='?auto'?: is chosen only where"):
        JNERegressor(optimizer="adamw").fit(*(part.numpy() for part in data.split("train")))


@pytest.mark.runs
@pytest.mark.parametrize("decays", [("auto", 0.01), (0.01, "auto")])
def test_a_checkpoint_of_the_other_kind_is_refused(data, config, tmp_path, decays):
    of, now = [settings_of(config, optimizer=ADAM | {"weight_decay": decay}) for decay in decays]
    module = EncodingModule(data.n_features, data.n_outputs, config.encoder, of.optimizer)
    train_module(module, data, of, save_to=tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"training (chose|did not choose) a weight"):
        fit(data, now, checkpoint=tmp_path / "last.ckpt")


def test_a_loss_that_is_no_number_ends_the_choice(data, config, monkeypatch):
    """With what was tried before it; the first epochs of all have losses."""
    original = EncodingModule.validation_step

    def step(module, batch):
        if module.current_epoch >= 6:
            batch = batch._replace(responses=batch.responses * torch.nan)
        original(module, batch)

    monkeypatch.setattr(EncodingModule, "validation_step", step)
    history = fit(data, config).history
    assert tuple(history.decays["weight_decay"]) == DECAYS[:2]
    assert np.isfinite(history.best_loss)
    assert history.best_epoch <= 6


def test_an_optimiser_without_weight_decay(data, config):
    """As one of the user's own may be."""
    settings = config.model_copy(
        update={"optimizer": {"_target_": "torch.optim.Rprop", "lr": 1e-3}}
    )
    assert fit(data, settings).history.decays is None


def test_an_encoder_that_is_not_trained_has_no_choice(data, config):
    ridge = {"_target_": "jne.encoders.RidgeRegression", "bias": True}
    assert fit(data, config.model_copy(update={"encoder": ridge})).history.decays is None


@pytest.mark.runs
def test_the_estimator_and_a_run_have_the_choice(data, run_train, capsys):
    x, y = data.split("train")
    model = JNERegressor(hidden_width=8, max_epochs=2).fit(x.numpy(), y.numpy())
    assert model.weight_decay_ in DECAYS
    fixed = JNERegressor(hidden_width=8, max_epochs=2, weight_decay=0.5).fit(x.numpy(), y.numpy())
    assert fixed.weight_decay_ == 0.5
    (folder,) = run_train("optimizer.weight_decay=auto")
    run = Results(folder)
    decays = pd.DataFrame(run.summary["weight_decays"])
    assert tuple(decays["weight_decay"]) == DECAYS
    best = decays["loss"].idxmin()
    assert run.summary["metrics"]["train/weight_decay"] == DECAYS[best]
    assert run.summary["metrics"]["train/best_epoch"] == decays["best_epoch"][best]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"weight decay {DECAYS[best]:g}, of {len(DECAYS)} the one of" in printed
