"""Users' arrays: what is read, and what is refused."""

import h5py
import numpy as np
import pandas as pd
import pytest
from helpers import deny

from jne.analysis.repeats import repeats_of
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.features import Precomputed


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


def test_the_repeats_that_exist_are_averaged(recorded):
    folder, _, y, source = recorded
    rng = np.random.default_rng(1)
    repeats = y[:, :, None] + 0.1 * rng.standard_normal((50, 4, 5))
    repeats[rng.random(repeats.shape) < 0.3] = np.nan
    np.save(folder / "y.npy", repeats.transpose(1, 0, 2))
    data = prepare(source(transpose_responses=True), folder / "p")
    np.testing.assert_allclose(data.responses, np.nanmean(repeats, axis=2), rtol=1e-5)
    assert (data.voxels["noise_ceiling"] > 0.95).all()
    np.testing.assert_allclose(data.repeats.noise, repeats_of(repeats).noise, rtol=1e-6)


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
        (None, {"features": "nowhere.npy"}, "^data.features: no such file: .*nowhere.npy"),
        (None, {"layer": 4}, "data.layer=4: out of range: .* has layers 1 to 3"),
        (None, {"layer": 0}, "data.layer=0: out of range"),
        (None, {"layer": None}, "choose one of its layers with data.layer"),
        (
            None,
            {"n_test": 2},
            "^data: 2 test stimuli, but JNE needs at least 3; change data.n_test or data.split$",
        ),
        (None, {"n_test": 45, "n_val": 5}, "leave none to train on"),
        (None, {"split": "fixed"}, "needs a column `split` in data.stimuli"),
        (_object_array, {}, "never unpickled"),
        (_nan_feature, {}, "data.features: NaN or infinite values in 1 of 50 .* row 7"),
        (_transposed, {}, "set data.transpose_responses=true"),
        (_short, {}, "data.features: 50 stimuli, but data.responses has 49"),
        (_cut, {}, "data.features: .*x.npy: it cannot be read"),
        (_twice, {"stimuli": "s.csv"}, "stimulus 1 has several rows; give repeats"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(recorded, spoil, changes, message):
    folder, _, _, source = recorded
    if spoil is not None:
        spoil(folder)
    with pytest.raises(InputError, match=message):
        prepare(source(**changes), folder / "p")
    assert not (folder / "p").exists() or not list((folder / "p").iterdir())


@pytest.mark.parametrize(
    ("function", "file", "message"),
    [
        ("numpy.load", "x.npy", "data.features: .*x.npy: it cannot be read .*Permission denied"),
        ("numpy.load", "y.npy", "data.responses: .*y.npy: it cannot be read .*Permission denied"),
        ("h5py.File", "y.h5", "data.responses: .*y.h5: it cannot be read .*Permission denied"),
        ("pathlib.Path.open", "s.csv", "data.stimuli: .*s.csv cannot be read .Permission denied"),
        ("pathlib.Path.open", "v.csv", "data.voxels: .*v.csv cannot be read .Permission denied"),
        ("pathlib.Path.exists", "x.npy", "data: .*x.npy cannot be read .Permission denied"),
        (
            "os.scandir",
            "pictures",
            "images: .*pictures cannot be read .Permission",
        ),
    ],
)
def test_unreadable_files_are_named_with_their_keys(recorded, monkeypatch, function, file, message):
    folder, _, y, source = recorded
    with h5py.File(folder / "y.h5", "w") as archive:
        archive["y"] = y
    pd.DataFrame({"stimulus": range(50)}).to_csv(folder / "s.csv")
    pd.DataFrame({"roi": ["V1"] * 4}).to_csv(folder / "v.csv")
    (folder / "pictures").mkdir()
    changes = {"stimuli": "s.csv", "voxels": "v.csv"}
    if file == "y.h5":
        changes["responses"] = "y.h5"
    if file == "pictures":
        monkeypatch.chdir(folder)
        keys = {"name": "x", "layer": None, "path": "x.npy", "key": None, "first_layer": 1}
        changes |= {"features": None, "layer": None, "images": "pictures"}
        changes["image_features"] = Precomputed(**keys)
    deny(monkeypatch, function, file)
    with pytest.raises(InputError, match=message):
        prepare(source(**changes), folder / "p")


def test_a_damaged_npz_is_refused(recorded):
    folder, *_, source = recorded
    (folder / "x.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match=r"data.features: .*x.npz: it cannot be read"):
        prepare(source(features="x.npz"), folder / "p")
