"""A stranger's checkpoint is continued, or refused in one sentence with the key `checkpoint`."""

import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from bombs import nested, odd_tensors, packed, repeated, within, write_torch
from helpers import small_cells

from jne.data.datamodule import EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.fitting.config import FitConfig, TrainerConfig
from jne.fitting.fit import train_module
from jne.fitting.module import EncodingModule
from jne.measuring.config import JacobianConfig
from jne.measuring.trajectory import Trajectory

TRAINER = TrainerConfig(
    max_epochs=3, patience=5, batch_size=None, precision="32-true", accelerator="cpu",
    checkpoint_seconds=0,
)  # fmt: skip
ADAM = {"_target_": "torch.optim.Adam", "lr": 3e-3, "fused": True}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    source = small_cells(voxels_per_cell=2, n_train=40, n_val=10, n_test=10)
    return prepare(source, tmp_path_factory.mktemp("cells"))


def train(prepared, max_epochs=4, optimizer=ADAM, **settings):
    """The curves and the encoder of a training run of four epochs."""
    torch.manual_seed(0)
    data = EncodingData(prepared, batch_size=None, seed=0)
    encoder = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 4, "n_hidden": 1}
    module = EncodingModule(data.n_features, data.n_outputs, encoder, optimizer)
    jacobian = JacobianConfig(
        voxels="all", variants=["l1"], precision="float32", device="cpu", max_memory_gb=1.0,
        trajectory=2,
    )  # fmt: skip
    followed = Trajectory(data, jacobian, 0)
    trainer = TRAINER.model_copy(update={"max_epochs": max_epochs})
    config = FitConfig(
        encoder=encoder, optimizer=optimizer, readout="trained", trainer=trainer, seed=0
    )
    history = train_module(module, data, config, trajectory=followed, **settings)
    return history, module


@pytest.fixture(scope="module")
def saved(prepared, tmp_path_factory):
    """The content of a checkpoint after two epochs."""
    path = tmp_path_factory.mktemp("saved") / "last.ckpt"
    train(prepared, 2, save_to=path)
    return torch.load(path, weights_only=True)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where in nested dicts and lists a value is; of a list, the first two."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list | tuple):
        for key in range(min(len(value), 2)):
            yield from places(value[key], (*path, key))


def changed(content: Any, path: tuple, value: Any) -> Any:
    """A copy with another value at a place, or without that place: value `...`."""
    content = deepcopy(content)
    at = content
    for key in path[:-1]:
        if isinstance(at[key], tuple):
            at[key] = list(at[key])
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return content


def outcome(prepared, path, **settings) -> str:
    """`accepted`, or the sentence of the refusal."""
    try:
        with within(60):
            train(prepared, checkpoint=path, **settings)
            return "accepted"
    except InputError as error:
        refusal = error
    assert refusal.key == "checkpoint", refusal
    assert len(str(refusal).splitlines()) == 1
    return str(refusal)


def test_a_whole_checkpoint_is_continued(prepared, saved, tmp_path):
    """As the run without an interruption, bit for bit; also where it was over."""
    whole, expected = train(prepared)
    torch.save(saved, tmp_path / "x.ckpt")
    history, module = train(prepared, checkpoint=tmp_path / "x.ckpt")
    assert history.epochs.equals(whole.epochs)
    assert history.trajectory.equals(whole.trajectory)
    for name, value in expected.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name
    again, _ = train(prepared, 2, checkpoint=tmp_path / "x.ckpt")
    assert again.epochs.equals(whole.epochs[:2])


ODD = (None, "x", -5, 10**12, 1.5, [], {}, [[1]], torch.zeros(3), True, ...)
CHECKED = [
    ("callbacks",), ("callbacks", "EpochCurves"), ("callbacks", "EpochCurves", "rows"),
    ("callbacks", "EpochCurves", "rows", 0), ("callbacks", "EpochCurves", "rows", 1, "val/loss"),
    ("callbacks", "EpochCurves", "rows", 0, "epoch"), ("callbacks", "BestWeights", "weights"),
    ("callbacks", "BestWeights", "epoch"), ("callbacks", "BestWeights", "loss"),
    ("callbacks", "BestWeights", "weights", "hidden.0.weight"),
    ("callbacks", "Trajectory", "epochs"), ("callbacks", "Trajectory", "values"),
    ("callbacks", "Trajectory", "epochs", 0), ("loops",), ("loops", "fit_loop"),
    ("loops", "fit_loop", "epoch_progress"), ("loops", "fit_loop", "epoch_progress", "current"),
    ("loops", "fit_loop", "epoch_progress", "current", "processed"),
    ("loops", "fit_loop", "epoch_loop.batch_progress", "current", "ready"),
    ("optimizer_states",), ("optimizer_states", 0), ("optimizer_states", 0, "state"),
    ("optimizer_states", 0, "state", 0), ("optimizer_states", 0, "state", 0, "exp_avg"),
    ("optimizer_states", 0, "param_groups"), ("optimizer_states", 0, "param_groups", 0, "params"),
    ("optimizer_states", 0, "param_groups", 0, "lr"), ("state_dict",), ("epoch",), ("global_step",),
    ("state_dict", "encoder.hidden.0.weight"), ("lr_schedulers",), ("pytorch-lightning_version",),
]  # fmt: skip
"""Places whose values continuing depends on."""


def test_every_place_is_named_as_it_is(saved):
    assert set(CHECKED) <= set(places(saved))


@pytest.mark.runs
def test_an_odd_value_anywhere_gives_one_sentence(prepared, saved, tmp_path):
    """Of each place two values, in turn; all of them in the slow test below."""
    refused = 0
    for number, path in enumerate(CHECKED):
        for value in (ODD[number % len(ODD)], ODD[(5 * number + 3) % len(ODD)]):
            torch.save(changed(saved, path, value), tmp_path / "x.ckpt")
            refused += outcome(prepared, tmp_path / "x.ckpt") != "accepted"
    assert refused > len(CHECKED)  # some values are as good: an empty list for no scheduler


@pytest.mark.slow
@pytest.mark.parametrize("over", [False, True])
def test_every_odd_value_in_every_place(prepared, saved, tmp_path, over):
    content = changed(saved, ("callbacks", "LastCheckpoint", "over"), over)
    for path in places(content["callbacks"] if over else content):
        path = ("callbacks", *path) if over else path
        for value in ODD:
            torch.save(changed(content, path, value), tmp_path / "x.ckpt")
            outcome(prepared, tmp_path / "x.ckpt")


@pytest.mark.runs
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch's kinds
def test_odd_tensors_and_nests_give_one_sentence(prepared, saved, tmp_path):
    path = tmp_path / "x.ckpt"
    weights, state = ("callbacks", "BestWeights", "weights"), ("optimizer_states", 0, "state", 0)
    for what, change in odd_tensors():
        for place, name in ((weights, "hidden.0.weight"), (state, "exp_avg")):
            torch.save(changed(saved, (*place, name), change(torch.zeros(4, 64))), path)
            assert "must hold plain values" in outcome(prepared, path), what
    for what, content in (("deep", nested(5000)), ("often", repeated()), ("long", [0] * 1_500_000)):
        write_torch(path, changed(saved, ("callbacks", "other"), content))
        assert "x.ckpt" in outcome(prepared, path), what
    packed(path, bytes(2**24))
    assert "not a readable file" in outcome(prepared, path)


def test_the_state_of_another_optimiser_is_not_written_through(prepared, saved, tmp_path):
    """The fused optimisers of torch look at no size; one that is too small is memory of others."""
    for shape in ((3,), (4, 63), (400, 800), (64, 4)):
        place = ("optimizer_states", 0, "state", 0, "exp_avg")
        torch.save(changed(saved, place, torch.zeros(shape)), tmp_path / "x.ckpt")
        assert "its optimiser is of other weights" in outcome(prepared, tmp_path / "x.ckpt")
    sgd = {"_target_": "torch.optim.SGD", "lr": 1e-3, "momentum": 0.9}
    torch.save(saved, tmp_path / "x.ckpt")
    assert "cannot be continued" in outcome(prepared, tmp_path / "x.ckpt", optimizer=sgd)


def test_a_checkpoint_that_is_no_file_is_not_waited_for(prepared, tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    for name in ("pipe.ckpt", "zero.ckpt"):
        assert "no regular file" in outcome(prepared, tmp_path / name)
