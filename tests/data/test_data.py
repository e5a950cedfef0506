"""Sources: what the synthetic cohort promises, what arrays read, and what is refused."""

import h5py
import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from jne.data.arrays import Arrays
from jne.data.datamodule import Batches, EncodingData
from jne.data.prepared import load, prepare
from jne.data.synthetic import CATEGORIES, Synthetic
from jne.errors import InputError
from jne.roi import ROIS
from jne.training.module import EncodingModule
from jne.utils.tables import read_table, write_table

SMALL = {
    "name": "synthetic",
    "seed": 0,
    "n_features": 80,
    "n_train": 1500,
    "n_val": 20,
    "n_test": 40,
    "voxels_per_roi": 4,
    "n_repeats": 3,
    "noise_ceiling": 0.7,
}


def synthetic(root, subject="subj01", **changes):
    return prepare(Synthetic(subject=subject, **(SMALL | changes)), root)


# --- synthetic ---------------------------------------------------------------------------------


def test_alpha_is_the_share_that_no_linear_fit_reaches(tmp_path):
    """Without noise, 1 - R2 of a linear regression on many stimuli is the planted alpha."""
    data = synthetic(tmp_path, n_train=6000, noise_ceiling=0.949, n_repeats=2, voxels_per_roi=6)
    x = np.column_stack([np.ones(len(data.features)), data.features]).astype(np.float64)
    y = np.asarray(data.responses[:], dtype=np.float64)
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    degrees = len(y) - x.shape[1]
    unexplained = (residual**2).sum(axis=0) / degrees / y.var(axis=0)
    ceiling = data.voxels["noise_ceiling"].to_numpy()
    alpha = (unexplained - (1 - ceiling)) / ceiling
    np.testing.assert_allclose(alpha, data.voxels["alpha"], atol=0.06)
    assert np.corrcoef(alpha, data.voxels["alpha"])[0, 1] > 0.99


def test_noise_ceiling_lies_around_the_planted_one(tmp_path):
    ceiling = synthetic(tmp_path, voxels_per_roi=30).voxels["noise_ceiling"]
    assert ceiling.mean() == pytest.approx(0.7, abs=0.02)
    assert ceiling.between(0.6, 0.8).all()


def test_subjects_share_the_test_stimuli_and_differ_elsewhere(tmp_path):
    one, two = synthetic(tmp_path), synthetic(tmp_path, "subj02")
    test = one.rows("test")
    np.testing.assert_array_equal(one.features[test], two.features[test])
    assert not np.allclose(one.features[:20], two.features[:20])
    assert not np.allclose(one.responses[test], two.responses[test])
    assert one.stimuli["stimulus"][test].tolist() == two.stimuli["stimulus"][test].tolist()


def test_the_cohort_has_the_papers_shape(tmp_path):
    data = synthetic(tmp_path)
    assert data.features.shape == (1560, 80)
    assert list(dict.fromkeys(data.voxels["roi"])) == list(ROIS)
    assert set(data.stimuli["category"]) == set(CATEGORIES)
    means = data.voxels.groupby("roi", sort=False)["alpha"].mean()
    assert means["V1"] == 0
    assert means.idxmax() == "FFA-2"
    spectrum = np.linalg.svd(data.features - data.features.mean(axis=0), compute_uv=False)
    assert spectrum[0] > 3 * spectrum[-1]


# --- the prepared folder -----------------------------------------------------------------------


def test_it_is_written_once_and_again_when_its_settings_change(tmp_path, monkeypatch):
    first = synthetic(tmp_path)
    monkeypatch.setattr(Synthetic, "write", lambda *_: pytest.fail("written again"))
    assert synthetic(tmp_path).folder == first.folder
    monkeypatch.undo()
    assert synthetic(tmp_path, seed=1).folder != first.folder
    assert isinstance(first.features, np.memmap)


def test_a_source_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def half(self, folder):
        (folder / "features.npy").write_bytes(b"half")
        raise InputError("data: stopped")

    monkeypatch.setattr(Synthetic, "write", half)
    with pytest.raises(InputError):
        synthetic(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_provenance_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no provenance\.json"):
        load(tmp_path)


# --- arrays ------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """Features (50, 3, 6) and responses (50, 4), saved; and a maker of sources on them."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3, 6)), rng.standard_normal((50, 4))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)

    def source(**changes):
        settings = {"name": "a", "subject": "s", "root": tmp_path, "features": "x.npy"}
        return Arrays(**(settings | {"responses": "y.npy", "layer": 2} | changes))

    return tmp_path, x, y, source


def test_layers_count_from_the_arrays_first(recorded):
    folder, x, y, source = recorded
    data = prepare(source(), folder / "p")
    np.testing.assert_allclose(data.features, x[:, 1], rtol=1e-6)
    np.testing.assert_allclose(data.responses, y, rtol=1e-6)
    with_embedding = prepare(source(first_layer=0), folder / "p")
    np.testing.assert_allclose(with_embedding.features, x[:, 2], rtol=1e-6)


def test_npz_hdf5_and_transposed_arrays_give_the_same(recorded):
    folder, x, y, source = recorded
    np.savez(folder / "x.npz", layer2=x[:, 1].T, other=x)
    with h5py.File(folder / "y.h5", "w") as file:
        file["group/betas"] = y.T
    data = prepare(
        source(
            features="x.npz",
            features_key="layer2",
            layer=None,
            transpose_features=True,
            responses="y.h5",
            transpose_responses=True,
        ),
        folder / "p",
    )
    np.testing.assert_allclose(data.features, x[:, 1], rtol=1e-6)
    np.testing.assert_allclose(data.responses, y, rtol=1e-6)


def test_repeats_are_averaged_over_those_there(recorded):
    folder, _, y, source = recorded
    rng = np.random.default_rng(1)
    repeats = y[:, :, None] + 0.1 * rng.standard_normal((50, 4, 5))
    repeats[rng.random(repeats.shape) < 0.3] = np.nan
    np.save(folder / "y.npy", repeats.transpose(1, 0, 2))
    data = prepare(source(transpose_responses=True), folder / "p")
    np.testing.assert_allclose(data.responses, np.nanmean(repeats, axis=2), rtol=1e-5)
    assert (data.voxels["noise_ceiling"] > 0.95).all()


def test_tables_and_a_fixed_split(recorded):
    folder, _, _, source = recorded
    split = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    pd.DataFrame({"stimulus": range(100, 150), "split": split}).to_csv(folder / "s.csv")
    pd.DataFrame({"area": ["V1", "V1", "V2", None], "depth": range(4)}).to_csv(folder / "v.csv")
    data = prepare(
        source(stimuli="s.csv", split="fixed", voxels="v.csv", roi_column="area"), folder / "p"
    )
    assert data.stimuli["split"].tolist() == split
    assert data.voxels["roi"].tolist() == ["V1", "V1", "V2", ""]
    assert data.voxels["depth"].tolist() == [0, 1, 2, 3]


def test_a_changed_input_file_is_prepared_again(recorded):
    folder, x, _, source = recorded
    first = prepare(source(), folder / "p")
    np.save(folder / "x.npy", x + 1)
    second = prepare(source(), folder / "p")
    assert first.folder != second.folder
    np.testing.assert_allclose(second.features, x[:, 1] + 1, rtol=1e-6)


def _object_array(folder):
    np.save(folder / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _nan_feature(folder):
    x = np.load(folder / "x.npy")
    x[7, 1, 0] = np.inf
    np.save(folder / "x.npy", x)


def _transposed(folder):
    np.save(folder / "y.npy", np.load(folder / "y.npy").T)


def _short(folder):
    np.save(folder / "y.npy", np.load(folder / "y.npy")[:49])


def _cut(folder):
    (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:200])


def _twice(folder):
    pd.DataFrame({"stimulus": [1] * 50}).to_csv(folder / "s.csv")


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"features": "nowhere.npy"}, "no such file: .*nowhere.npy"),
        (None, {"layer": 4}, "data.layer=4 is out of range: .* has layers 1 to 3"),
        (None, {"layer": 0}, "data.layer=0 is out of range"),
        (None, {"layer": None}, "choose one of its layers with data.layer"),
        (None, {"n_test": 2}, "2 test stimuli, but JNE needs at least 3; change data.n_test"),
        (None, {"n_test": 45, "n_val": 5}, "leave none to train on"),
        (None, {"split": "fixed"}, "needs a column `split` in data.stimuli"),
        (_object_array, {}, "never unpickled"),
        (_nan_feature, {}, "data.features: NaN or infinite values in 1 of 50 .* row 7"),
        (_transposed, {}, "set data.transpose_responses=true"),
        (_short, {}, "data.features has 50 stimuli but data.responses has 49"),
        (_cut, {}, "data.features: .*x.npy: it cannot be read"),
        (_twice, {"stimuli": "s.csv"}, "stimulus 1 has several rows; give repeats"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(recorded, spoil, changes, message):
    folder, _, _, source = recorded
    if spoil is not None:
        spoil(folder)
    with pytest.raises(InputError, match=message):
        prepare(source(**changes), folder / "p")
    assert not (folder / "p").exists() or not list((folder / "p").iterdir())


# --- the data module ---------------------------------------------------------------------------


def test_standardisation_knows_the_training_rows_only(recorded):
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


def test_responses_on_disk_are_those_held_in_memory(recorded, monkeypatch):
    folder, *_, source = recorded
    prepared = prepare(source(), folder / "p")
    for shuffle in (False, True):
        held = EncodingData(prepared, batch_size=None, seed=0, shuffle=shuffle)
        with monkeypatch.context() as patch:
            patch.setattr("jne.data.datamodule._IN_MEMORY", 0)
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
        own = rows[start : start + whole.batch_size]
        loss = torch.square(whole.features[own] @ weight - whole.responses[own]).mean()
        (expected,) = torch.autograd.grad(loss, weight)
        batches = Batches(parts.features, parts.responses, own, len(own), parts.n_parts)
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


def test_a_column_of_empty_text_stays_text(tmp_path):
    write_table(tmp_path / "voxels.csv", pd.DataFrame({"voxel": [0, 1], "roi": "", "r2": np.nan}))
    table = read_table(tmp_path / "voxels.csv")
    assert list(table["roi"]) == ["", ""]
    assert table["r2"].isna().all()


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
