"""Prepared data as standardised batches."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from jne.data.datamodule import Batches, EncodingData
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.fitting.module import EncodingModule


def test_standardisation_uses_only_the_training_rows(recorded):
    folder, x, y, source = recorded
    prepared = prepare(source(), folder / "p")
    data = EncodingData(prepared, batch_size=8, seed=0)
    train = prepared.rows("train")
    expected = (x[:, 1] - x[train, 1].mean(axis=0)) / x[train, 1].std(axis=0)
    np.testing.assert_allclose(data.features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(data.split("train")[1].mean(dim=0), np.zeros(4), atol=1e-6)
    back = data.responses[:].numpy() * data.response_scale.numpy() + data.response_mean.numpy()
    np.testing.assert_allclose(back, y, rtol=1e-4, atol=1e-5)


def test_constant_and_missing_voxels_are_named_and_left_out(recorded):
    folder, _, y, source = recorded
    y[:, 1] = 3.0
    y[5, 2] = np.nan
    y[:, 3] = np.nan
    np.save(folder / "y.npy", y)
    data = EncodingData(prepare(source(), folder / "p"), batch_size=None, seed=0)
    assert data.voxel_status.tolist() == ["ok", "constant", "missing", "missing"]
    assert data.responses.shape == (50, 1)
    y[:, 0] = 1.0
    np.save(folder / "y.npy", y)
    with pytest.raises(InputError, match="no voxel can be trained on: of 4"):
        EncodingData(prepare(source(), folder / "p"), batch_size=None, seed=0)


def test_batches_are_every_row_once(recorded):
    folder, *_, source = recorded
    data = EncodingData(prepare(source(), folder / "p"), batch_size=7, seed=0)
    features, _ = data.split("train")
    rng = np.random.default_rng(0)
    rows = data.rows["train"]
    order = lambda: rng.permutation(len(rows))  # noqa: E731
    batches = list(Batches(data.features, data.responses, rows, 7, order=order))
    assert [len(batch.features) for batch in batches] == [7] * 5 + [5]
    seen = np.concatenate([batch.features.numpy() for batch in batches])
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(features.numpy(), axis=0))


def test_held_out_batches_are_the_split_in_order_and_whole(recorded, monkeypatch):
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    whole = EncodingData(prepared, batch_size=2, seed=0)
    monkeypatch.setattr("jne.data.datamodule._AT_ONCE", 4 * len(whole.kept) * 4)  # four rows
    parts = EncodingData(prepared, batch_size=8, seed=0)
    assert parts.n_parts == 2
    for data, size in ((whole, 2), (parts, 4)):
        for split, batches in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
            features, responses = data.split(split)
            found = list(batches)
            assert [len(batch.features) for batch in found] == [
                min(size, len(features) - start) for start in range(0, len(features), size)
            ]
            assert {batch.weight for batch in found} == {1.0}
            np.testing.assert_array_equal(torch.cat([b.features for b in found]), features)
            np.testing.assert_array_equal(torch.cat([b.responses for b in found]), responses)


def test_responses_on_disk_are_those_held_in_memory(recorded, monkeypatch):
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    for shuffle in (False, True):
        held = EncodingData(prepared, batch_size=None, seed=0, shuffle=shuffle)
        with monkeypatch.context() as patch:
            patch.setattr("jne.data.responses._IN_MEMORY", 0)
            read = EncodingData(prepared, batch_size=None, seed=0, shuffle=shuffle)
        for split in ("train", "val", "test"):
            np.testing.assert_array_equal(held.split(split)[1], read.split(split)[1])


@pytest.mark.parametrize("batch_size", [None, 23])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(recorded, monkeypatch, batch_size):
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    whole = EncodingData(prepared, batch_size=batch_size, seed=0)
    monkeypatch.setattr("jne.data.datamodule._AT_ONCE", 4 * len(whole.kept) * 7)  # seven rows
    parts = EncodingData(prepared, batch_size=batch_size, seed=0)
    assert parts.n_parts == -(-whole.batch_size // 7)
    weight = torch.zeros(whole.features.shape[1], len(whole.kept), requires_grad=True)
    rows = whole.rows["train"]
    for start in range(0, len(rows), whole.batch_size):
        batch = rows[start : start + whole.batch_size]
        loss = torch.square(whole.features[batch] @ weight - whole.responses[batch]).mean()
        (expected,) = torch.autograd.grad(loss, weight)
        batches = Batches(parts.features, parts.responses, batch, len(batch), parts.n_parts)
        found = torch.zeros_like(expected)
        for x, y, share in batches:
            part = torch.square(x @ weight - y).mean() * share / parts.n_parts  # as Lightning does
            found += torch.autograd.grad(part, weight)[0]
        torch.testing.assert_close(found, expected)


def test_shuffling_breaks_the_pairs_and_nothing_else(recorded):
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    data = EncodingData(prepared, batch_size=None, seed=0, shuffle=True)
    plain = EncodingData(prepared, batch_size=None, seed=0)
    np.testing.assert_array_equal(data.features, plain.features)
    raw = data.responses[:] * data.response_scale + data.response_mean
    np.testing.assert_allclose(
        np.sort(raw, axis=0), np.sort(prepared.responses, axis=0), rtol=1e-4, atol=1e-5
    )
    assert not np.allclose(raw, prepared.responses)


def test_training_in_parts_is_training_on_the_whole(recorded, monkeypatch):
    """Through Lightning, with an optimiser that does not forgive a wrong scale of the gradient."""
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    encoder = {"_target_": "jne.encoders.ResidualEncoder", "hidden_width": 6, "n_hidden": 2,
               "activation": "gelu", "placement": "both"}  # fmt: skip
    weights = []
    for at_once in (2**30, 4 * 6 * 5):
        monkeypatch.setattr("jne.data.datamodule._AT_ONCE", at_once)
        data = EncodingData(prepared, batch_size=24, seed=0)
        torch.manual_seed(0)
        optimizer = {"_target_": "torch.optim.SGD", "lr": 0.5}
        module = EncodingModule(data.features.shape[1], len(data.kept), encoder, optimizer)
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            accumulate_grad_batches=data.n_parts,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        weights.append(torch.cat([value.flatten() for value in module.encoder.parameters()]))
    assert data.n_parts > 1
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)
