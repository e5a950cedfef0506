"""JNE and test R2 by epoch against brute force, and what must not change by looking at them."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY_COHORT, compose_train, contents, only_run, small_cells
from mlflow import MlflowClient
from pytorch_lightning import seed_everything
from sklearn.metrics import r2_score

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.fitting.config import FitConfig, TrainerConfig
from jne.fitting.fit import train_module
from jne.fitting.module import EncodingModule
from jne.measuring.config import JacobianConfig
from jne.measuring.trajectory import Trajectory, followed_voxels
from jne.results import Results
from jne.training.config import check_config

TRAINER = TrainerConfig(
    max_epochs=5, patience=5, batch_size=32, precision="32-true", accelerator="cpu",
    checkpoint_seconds=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    source = small_cells()
    return prepare(source, tmp_path_factory.mktemp("cells"))


def settings(trajectory, **other):
    return JacobianConfig(
        voxels="all", variants=["l1"], precision="float32", device="cpu", max_memory_gb=1.0,
        trajectory=trajectory, **other,
    )  # fmt: skip


def trained(prepared, folder, readout="ridge", on_epoch=None, max_epochs=5, trajectory=5):
    """The history of a training run, and its module."""
    seed_everything(0, verbose=False)
    data = EncodingData(prepared, batch_size=32, seed=0)
    encoder = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 16}
    optimizer = {"_target_": "torch.optim.Adam", "lr": 3e-3}
    module = EncodingModule(data.n_features, data.n_outputs, encoder, optimizer)
    followed = Trajectory(data, settings(trajectory), 0, on_epoch and on_epoch(module))
    folder.mkdir(exist_ok=True)
    trainer = TRAINER.model_copy(update={"max_epochs": max_epochs})
    config = FitConfig(
        encoder=encoder, optimizer=optimizer, readout=readout, trainer=trainer, seed=0
    )
    save_to = folder / "last.ckpt"
    history = train_module(module, data, config, save_to=save_to, trajectory=followed)
    return history, module, data


def by_jacrev(encoder, data):
    """R2 and JNE (V',) of the test stimuli, from all Jacobians at once (Gao et al. 2025, 2.4)."""
    x, y = data.split("test")
    encoder, x = deepcopy(encoder).double().eval(), x.double()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: encoder(row[None])[0]))(x)
    deviation = (jacobians - jacobians.mean(dim=0)).abs().sum(dim=2).detach().numpy()
    predictions = encoder(x).detach().numpy()
    return r2_score(y.numpy(), predictions, multioutput="raw_values"), deviation.std(axis=0)


@pytest.mark.parametrize("readout", ["ridge", "trained"])
def test_every_epoch_is_brute_force(prepared, tmp_path, readout):
    encoders = []
    history, module, data = trained(
        prepared,
        tmp_path,
        readout,
        lambda module: lambda _: encoders.append(deepcopy(module.encoder)),
    )
    table = history.trajectory
    assert list(table) == ["epoch", "stage", "voxel", "roi", "r2", "jne"]
    voxels = followed_voxels(data, 5, seed=0)
    training = table[table["stage"] == "training"]
    assert training["epoch"].tolist() == np.repeat(range(1, 6), 5).tolist()
    for epoch, encoder in enumerate([*encoders, module.encoder]):
        rows = table.iloc[5 * epoch : 5 * epoch + 5]
        r2, jne = by_jacrev(encoder, data)
        np.testing.assert_allclose(rows["r2"], r2[voxels], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows["jne"], jne[voxels], rtol=1e-4)
        names = data.prepared.voxels.iloc[data.kept[voxels]]
        assert rows["voxel"].tolist() == names["voxel"].tolist()
        assert rows["roi"].tolist() == names["roi"].tolist()
    assert rows["stage"].unique() == ["final"]
    assert rows["epoch"].unique() == [history.best_epoch]
    best = training[training["epoch"] == history.best_epoch]
    same = np.allclose(best[["r2", "jne"]], rows[["r2", "jne"]], rtol=1e-6)
    assert same == (readout == "trained")


def test_resumed_equals_uninterrupted(prepared, tmp_path, monkeypatch):
    """What a checkpoint holds is passed on again, and not measured again."""

    class Killed(BaseException):
        pass

    def kill(row):
        if row["epoch"] == 4:
            raise Killed

    whole = trained(prepared, tmp_path / "whole")[0].trajectory
    with pytest.raises(Killed):
        trained(prepared, tmp_path / "killed", on_epoch=lambda _: kill)
    epochs, measured = [], []
    measure = Trajectory.measure
    monkeypatch.setattr(Trajectory, "measure", lambda *a: measured.append(a) or measure(*a))
    note = lambda _: lambda row: epochs.append(row["epoch"])  # noqa: E731
    resumed, *_ = trained(prepared, tmp_path / "killed", on_epoch=note)
    assert epochs == [1, 2, 3, 4, 5]
    assert len(measured) < 6  # and the final weights
    pd.testing.assert_frame_equal(resumed.trajectory, whole, check_exact=True)
    measured.clear()
    over, *_ = trained(prepared, tmp_path / "killed", on_epoch=note)
    assert epochs[5:] == [1, 2, 3, 4, 5]
    assert len(measured) == 1
    pd.testing.assert_frame_equal(over.trajectory, whole, check_exact=True)


def test_a_checkpoint_with_other_voxels_is_followed_from_there(prepared, tmp_path):
    trained(prepared, tmp_path, max_epochs=2)
    table = trained(prepared, tmp_path, trajectory=3)[0].trajectory
    assert table["epoch"].tolist()[:-3] == np.repeat([3, 4, 5], 3).tolist()


@pytest.mark.runs
def test_looking_changes_nothing_else(run_train, finished_run, store):
    """Without it nothing is written; with it all other results are the same, byte for byte."""
    plain = only_run(finished_run)
    (followed,) = run_train("jacobian.trajectory=7", "trainer.max_epochs=6", figures=True)
    assert contents(plain) == contents(followed)
    assert not (plain / "trajectory.csv").exists()
    assert Results(plain).trajectory is None

    run = Results(followed)
    trajectory = run.trajectory
    assert trajectory["epoch"].tolist()[:-7] == np.repeat(run.epochs["epoch"], 7).tolist()
    final = trajectory[trajectory["stage"] == "final"].set_index("voxel")
    measured = run.voxels.set_index("voxel").loc[final.index]
    np.testing.assert_allclose(final["r2"], measured["r2"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(final["jne"], measured["jne"], rtol=1e-4)
    assert (final["roi"] == measured["roi"]).all()

    client, run_id = MlflowClient(store), run.status["mlflow_run_id"]
    for folder, name in (("figures", "trajectory.png"), ("tables", "trajectory.csv")):
        logged = {file.path for file in client.list_artifacts(run_id, folder)}
        assert f"{folder}/{name}" in logged
    curve = client.get_metric_history(run_id, "trajectory/jne")
    means = trajectory.query("stage == 'training'").groupby("epoch")["jne"].mean()
    assert [point.step for point in curve] == list(means.index)
    np.testing.assert_allclose([point.value for point in curve], means, rtol=1e-3)


@pytest.mark.runs
@pytest.mark.parametrize("encoder", ["linear", "ridge"])
def test_linear_encoders_have_jne_0_throughout(run_script, encoder):
    """And one that is solved for, not trained, has its final values alone."""
    epochs = "trainer.max_epochs=2"
    (folder,) = run_script(
        "train.py", *TINY_COHORT, epochs, f"encoder={encoder}", "jacobian.trajectory=V1"
    )
    trajectory = Results(folder).trajectory
    assert (trajectory["jne"] == 0).all()
    assert trajectory["roi"].unique() == ["V1"]
    assert ("training" in set(trajectory["stage"])) == (encoder == "linear")


@pytest.mark.runs
def test_runs_without_it_keep_their_identity(tmp_path):
    def identity(*overrides):
        return check_config(compose_train(tmp_path, *overrides))[0].identity()

    assert identity() == identity("jacobian.trajectory=null")
    assert (
        len({identity(), identity("jacobian.trajectory=9"), identity("jacobian.trajectory=8")}) == 3
    )


def with_rois(prepared, rois):
    """Data with these ROIs, and voxel 1 left out."""
    data = EncodingData(prepared, batch_size=None, seed=0)
    data.prepared.voxels["roi"] = rois
    data.kept = np.delete(data.kept, 1)
    return data


def test_voxels_are_spread_over_rois(prepared):
    rois = np.array(["V1"] * 6 + ["", "EBA"] + ["FFA-1"] * 4)
    data = with_rois(prepared, rois)
    for seed in range(5):
        names = rois[data.kept[followed_voxels(data, 7, seed)]].tolist()
        assert names == ["V1"] * 3 + ["EBA"] + ["FFA-1"] * 3
    assert len({tuple(followed_voxels(data, 7, seed)) for seed in range(5)}) > 1
    np.testing.assert_array_equal(followed_voxels(data, 7, 0), followed_voxels(data, 7, 0))
    everything = rois[data.kept[followed_voxels(data, 100, 0)]]
    assert (everything != "").sum() == len(everything) == 10
    assert rois[data.kept[followed_voxels(data, ["EBA", "V1"], 0)]].tolist() == ["V1"] * 5 + ["EBA"]
    assert len(followed_voxels(with_rois(prepared, ""), 4, 0)) == 4


def test_no_voxel_to_follow(prepared):
    data = with_rois(prepared, np.where(np.arange(12) == 1, "EBA", "V1"))
    with pytest.raises(InputError, match=r"jacobian.trajectory=\['EBA'\]: none of these voxels"):
        followed_voxels(data, ["EBA"], 0)


def test_jacobians_that_cannot_be_computed(prepared, tmp_path):
    data = EncodingData(prepared, batch_size=None, seed=0)
    followed = Trajectory(data, settings(5).model_copy(update={"max_memory_gb": 1e-6}), 0)
    encoder = EncodingModule(
        data.n_features, data.n_outputs,
        {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 16},
        {"_target_": "torch.optim.Adam"},
    ).encoder  # fmt: skip
    with pytest.raises(InputError, match=r"jacobian.max_memory_gb=1e-06: too small"):
        followed.measure(encoder)
