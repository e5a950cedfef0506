"""MeasureJNE in a LightningModule that is not ours: what it measures, logs and refuses."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from jne import JNERegressor, MeasureJNE, measure
from jne.errors import InputError

D, V = 6, 3


class Theirs(pl.LightningModule):
    """A module with dropout and batches of its own form."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(D, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, V))

    def forward(self, x):
        return self.network(x)

    def step(self, batch):
        x, y = (batch["image"], batch["bold"]) if isinstance(batch, dict) else batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("loss", loss)
        return loss

    def training_step(self, batch):
        return self.step(batch)

    def validation_step(self, batch, batch_idx=0, dataloader_idx=0):
        self.step(batch)

    def test_step(self, batch):
        self.step(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class AsDicts(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return {"image": X[i], "bold": Y[i]}


X = torch.randn(20, D, generator=torch.Generator().manual_seed(0))
Y = torch.randn(20, V, generator=torch.Generator().manual_seed(1))
PAIRS = TensorDataset(X, Y)


def loader(data=PAIRS, batch_size=8):
    return DataLoader(data, batch_size=batch_size)


def trainer(*callbacks, logger=False, epochs=2, **settings):
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )


pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


def test_jne_of_the_test_stimuli():
    module, callback = Theirs(), MeasureJNE()
    logged = trainer(callback).test(module, loader(), verbose=False)[0]
    expected = measure(module, X)
    np.testing.assert_allclose(callback.measurement.deviation, expected.deviation, rtol=1e-5)
    assert logged["jne/mean"] == pytest.approx(expected.jne.mean(), rel=1e-5)
    assert logged["mean_deviation/mean"] == pytest.approx(expected.mean_deviation.mean(), rel=1e-5)


def test_batches_that_are_dicts_and_an_encoder_inside():
    callback = MeasureJNE(lambda batch: batch["image"], encoder=lambda module: module.network)
    module = Theirs()
    trainer(callback).test(module, loader(AsDicts()), verbose=False)
    np.testing.assert_allclose(callback.measurement.jne, measure(module.network, X).jne, rtol=1e-5)


def test_jne_of_every_epoch_can_be_monitored(tmp_path):
    module, callback = Theirs(), MeasureJNE(when="validation", voxels=[1])
    stopping = EarlyStopping("jne/mean", patience=1, min_delta=1e9)
    logger = CSVLogger(tmp_path)
    fitted = trainer(callback, stopping, logger=logger, epochs=9)
    fitted.fit(module, loader(), loader())
    assert fitted.current_epoch == 2  # stopped, because JNE never fell by a billion
    assert callback.measurement.deviation.shape == (20, 1)
    last = measure(module, X, voxels=[1])
    assert float(fitted.callback_metrics["jne/mean"]) == pytest.approx(last.jne.mean(), rel=1e-5)
    assert "jne/mean" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    assert module.training


def test_jne_when_training_is_over(tmp_path):
    module, callback = Theirs(), MeasureJNE(when="fit")
    fitted = trainer(callback, logger=CSVLogger(tmp_path))
    fitted.fit(module, loader(), [loader(), loader(batch_size=20)])
    both = torch.cat([X, X])  # of two dataloaders
    np.testing.assert_allclose(callback.measurement.jne, measure(module, both).jne, rtol=1e-5)
    assert "jne/mean" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()


def test_measuring_does_not_change_training():
    with_callback, without = Theirs(), Theirs()
    for module, callbacks in ((with_callback, [MeasureJNE(when="validation")]), (without, [])):
        torch.manual_seed(1)
        trainer(*callbacks).fit(module, loader(), loader())
    for ours, theirs in zip(with_callback.parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_is_the_number_of_the_estimator():
    """The same encoder, by the callback and its slow path and by JNERegressor."""
    model = JNERegressor(hidden_width=8, max_epochs=2).fit(X.numpy(), Y.numpy())

    class Wrapped(Theirs):
        def __init__(self):
            super().__init__()
            self.network = model.encoder_

    standardised = TensorDataset(model._model.standardised(X), Y)
    callback = MeasureJNE()
    trainer(callback).test(Wrapped(), loader(standardised), verbose=False)
    np.testing.assert_allclose(callback.measurement.jne, model.jne(X.numpy()), rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "image"}, "features: must be a function, found str"),
        ({"encoder": nn.Linear}, None),
        ({"encoder": "network"}, "encoder: must be a function, found str"),
        ({"when": "train"}, "when=train: write test, validation, fit"),
        ({"when": None}, "when=None: write test, validation, fit"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    if message is None:
        MeasureJNE(**settings)
        return
    with pytest.raises(InputError, match=message):
        MeasureJNE(**settings)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (
            AsDicts(),
            {},
            "features: MeasureJNE finds none in a batch that is a dict; give it a function",
        ),
        (AsDicts(), {"features": lambda batch: batch}, r"must return a tensor .* found dict"),
        (PAIRS, {"features": lambda batch: batch[0][:, 0]}, r"must return a tensor .* \(8,\)"),
        (
            PAIRS,
            {"features": lambda batch: batch[0][:, : len(batch[0])]},
            "features: must return tensors of one shape",
        ),
        (PAIRS, {"features": lambda batch: batch[0][:, :5]}, "cannot be applied to features"),
        (PAIRS, {"encoder": lambda module: "network"}, "must be a torch.nn.Module, found str"),
        (PAIRS, {"encoder": lambda module: module.forward}, "found method"),
        (TensorDataset(X[:2], Y[:2]), {}, "features: 2 stimuli, but JNE needs at least 3"),
        (PAIRS, {"max_memory_gb": 1e-9}, "max_memory_gb=1e-09: too small"),
        (PAIRS, {"device": "tpu0"}, "device=tpu0: write cpu"),
        (PAIRS, {"voxels": [7]}, "voxels: must be indices of the encoder's 3 outputs"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(data, settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        trainer(MeasureJNE(**settings)).test(Theirs(), loader(data), verbose=False)
    assert "\n" not in str(refused.value)


def test_no_stimuli_are_refused():
    with pytest.raises(
        InputError, match=r"when=fit: MeasureJNE saw no stimuli; give the Trainer a dataloa"
    ):
        trainer(MeasureJNE(when="fit"), limit_val_batches=0).fit(Theirs(), loader(), loader())
