"""The curves of a training, computed again from its encoder."""

import numpy as np
import pytest
import torch
from helpers import compose_train, small_cells

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.fitting.fit import train_module
from jne.fitting.module import EncodingModule
from jne.training.config import check_config


@pytest.mark.parametrize("encoder", ["encoder=nonlinear", "encoder=ridge"])
def test_the_curves_are_the_loss_and_the_r2_of_the_encoder(tmp_path, encoder):
    source = small_cells(voxels_per_cell=5, n_train=60, n_val=15, n_test=5)
    data = EncodingData(prepare(source, tmp_path), batch_size=7, seed=0)
    config = check_config(compose_train("unused", encoder))[0]
    torch.manual_seed(0)
    module = EncodingModule(data.n_features, data.n_outputs, config.encoder, config.optimizer)
    trainer = config.trainer.model_copy(update={"max_epochs": 3, "response_space": "voxels"})
    settings = config.model_copy(update={"trainer": trainer, "readout": "trained"})
    history = train_module(module, data, settings)
    features, responses = data.split("val")
    with torch.no_grad():
        error = np.square(module.encoder(features).numpy() - responses.numpy())
    best = history.epochs.iloc[history.best_epoch - 1]
    assert best["val/loss"] == pytest.approx(error.mean(), rel=1e-4)
    assert best["val/r2"] == pytest.approx(1 - error.mean() / responses.numpy().var(axis=0).mean())
    assert history.best_loss == pytest.approx(history.epochs["val/loss"].min())
    assert list(history.epochs["epoch"]) == list(range(1, len(history.epochs) + 1))
