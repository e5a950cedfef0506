"""Training that diverges, or goes on from a checkpoint in which it was over."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, TINY_COHORT, compose_train, small_cells, status
from mlflow import MlflowClient

from jne import JNERegressor
from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.fitting.fit import fit, train_module
from jne.fitting.module import EncodingModule
from jne.measuring.nonlinearity import check_measurable
from jne.measuring.trajectory import trajectory_of
from jne.results import Results
from jne.stages import Stages
from jne.training.config import check_config
from jne.training.steps import load_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    source = small_cells(voxels_per_cell=5, n_train=60, n_val=15, n_test=5)
    return EncodingData(prepare(source, tmp_path_factory.mktemp("cells")), batch_size=20, seed=0)


@pytest.fixture(scope="module")
def config():
    return check_config(
        compose_train("unused", "encoder.hidden_width=16", "optimizer.weight_decay=0")
    )[0]


def train(data, config, *, lr=3e-3, readout="ridge", checkpoint=None, save_to=None, **settings):
    """The trained module and its history."""
    torch.manual_seed(0)
    optimizer = config.optimizer | {"lr": lr}
    module = EncodingModule(data.n_features, data.n_outputs, config.encoder, optimizer)
    trainer = config.trainer.model_copy(update={"checkpoint_seconds": 0, **settings})
    settings = config.model_copy(update={"trainer": trainer, "readout": readout})
    history = train_module(module, data, settings, checkpoint=checkpoint, save_to=save_to)
    return module, history


@pytest.mark.runs
@pytest.mark.parametrize("space", ["voxels", "components"])
@pytest.mark.parametrize("readout", ["ridge", "trained"])
def test_hidden_layers_that_diverge_are_no_encoder(data, config, readout, space):
    """The ridge readout of such layers predicts well, which would hide it."""
    settings = {"max_epochs": 4, "response_space": space}
    with pytest.raises(InputError, match=r"diverged: .* never fell below .* lower it$") as refused:
        train(data, config, lr=1.0, readout=readout, **settings)
    assert (refused.value.key, refused.value.value) == ("optimizer.lr", 1.0)
    train(data, config, lr=1e-3, readout=readout, **settings)


def test_the_estimator_names_its_own_parameter(data):
    x, y = data.split("train")
    with pytest.raises(InputError, match=r"^lr=1\.0: training diverged"):
        JNERegressor(hidden_width=16, lr=1.0, max_epochs=3).fit(x.numpy(), y.numpy())


@pytest.mark.runs
def test_more_patience_continues_a_training_that_was_over(data, config, tmp_path, capsys):
    uninterrupted, whole = train(data, config, patience=12, max_epochs=60)
    _, short = train(data, config, patience=2, max_epochs=60, save_to=tmp_path / "last.ckpt")
    assert len(short.epochs) < len(whole.epochs) < 60
    capsys.readouterr()
    continued = {"checkpoint": tmp_path / "last.ckpt", "max_epochs": 60}
    continued["save_to"] = tmp_path / "other.ckpt"
    module, history = train(data, config, patience=12, **continued)
    pd.testing.assert_frame_equal(history.epochs, whole.epochs)
    assert history.best_epoch == whole.best_epoch
    for name, value in uninterrupted.encoder.state_dict().items():
        assert torch.equal(module.encoder.state_dict()[name], value)
    assert "training was over" not in capsys.readouterr().out

    (tmp_path / "other.ckpt").unlink()
    _, again = train(data, config, patience=2, **continued)
    pd.testing.assert_frame_equal(again.epochs, short.epochs)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"training was over in it after {len(short.epochs)} epochs" in printed
    assert "a larger trainer.patience" in printed


class BatchMean(torch.nn.Sequential):
    """An encoder of the user's own, whose response to a stimulus depends on the others."""

    def __init__(self, n_features: int, n_voxels: int) -> None:
        super().__init__(torch.nn.Linear(n_features, n_voxels))

    def forward(self, x):
        return super().forward(x - x.mean(dim=0))


@pytest.mark.runs
def test_what_cannot_be_measured_is_refused_before_training(run_train, monkeypatch):
    monkeypatch.setattr("jne.fitting.fit._train", lambda *_, **__: pytest.fail("it was trained"))
    own = "{_target_: tests.fitting.test_fit.BatchMean, label: mine}"
    with pytest.raises(SystemExit, match=r"^error: encoder: must give a stimulus the same"):
        run_train("~encoder", f"+encoder={own}")
    for voxels in ("all", "significant", "[V1]"):
        with pytest.raises(SystemExit, match=r"^error: jacobian.max_memory_gb=1e-06: too small"):
            run_train(f"jacobian.voxels={voxels}", "jacobian.max_memory_gb=1e-6", "baseline=[]")


def test_the_check_leaves_the_encoder_as_it_is(data, config):
    torch.manual_seed(0)
    encoder = EncodingModule(64, data.n_outputs, config.encoder, config.optimizer).encoder.train()
    before, random = encoder.state_dict(), torch.get_rng_state()
    check_measurable(encoder, data, config.jacobian)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@pytest.mark.runs
def test_what_does_not_change_the_encoder_does_not_train_it(run_train, store, monkeypatch):
    """Another run of the same encoder finds it, with its curves, and has its numbers."""
    (first,) = run_train()
    monkeypatch.setattr("jne.fitting.fit.train_module", lambda *_, **__: 1 / 0)
    more = ("jacobian.variants=[l1,l2]", "stats.alpha=0.01", "baseline=[]", "name=other")
    made = run_train(*more)
    (second,) = set(made) - {first}
    assert (first / "encoder.pt").read_bytes() == (second / "encoder.pt").read_bytes()
    assert (first / "epochs.csv").read_bytes() == (second / "epochs.csv").read_bytes()
    ours, theirs = Results(second).voxels, Results(first).voxels
    for column in ("r2", "jne"):
        np.testing.assert_array_equal(ours[column], theirs[column])
    used = status(first)["stages"]
    assert sorted(name.partition("/")[0] for name in used) == ["baseline", "fit"]
    assert set(status(second)["stages"]) == set(used)  # the evidence needs the baseline, too
    client = MlflowClient(store)
    for folder in (first, second):  # the curves are those of the training, whoever trained
        history = client.get_metric_history(status(folder)["mlflow_run_id"], "val/loss")
        expected = Results(folder).epochs["val/loss"]
        np.testing.assert_allclose([point.value for point in history], expected, rtol=6e-4)


@pytest.mark.runs
@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "optimizer.lr=0.01", "trainer.max_epochs=2", "encoder.hidden_width=8",
        "data.n_train=79", "control=shuffle", "readout=trained",
        "trainer.batch_size=16", "jacobian.trajectory=2",
    ],
)  # fmt: skip
def test_what_changes_the_encoder_is_part_of_its_name(tmp_path, override):
    names = []
    for overrides in ((), (override,)):
        config, source = check_config(compose_train(tmp_path, *TINY_COHORT, *TINY, *overrides))
        stages = Stages(tmp_path / "stages")
        data = load_data(source, config)
        followed = trajectory_of(data, config.jacobian, config.seed)
        names.append(fit(data, config, stages, trajectory=followed).identity)
    assert names[0] != names[1]
