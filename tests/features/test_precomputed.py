"""Features from a file: which row belongs to which stimulus."""

import numpy as np
import pandas as pd
import pytest
from helpers import deny
from PIL import Image

from jne.errors import InputError
from jne.features import Precomputed
from jne.features.images import open_images


@pytest.fixture
def stored(tmp_path):
    """An array (6, 4), and features of it whose keys may be changed."""
    array = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0, "layer": None}
    return array, lambda **changes: Precomputed(**(keys | changes))


def test_precomputed(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(size=(6, 3, 4))
    np.save(tmp_path / "x.npy", array)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0}
    found = Precomputed(layer=2, **keys).extract(None, np.array([4, 0]), 6)
    np.testing.assert_allclose(found, array[[4, 0], 2], rtol=1e-6)
    with pytest.raises(InputError, match="has 6 rows, but there are 7 images"):
        Precomputed(layer=2, **keys).extract(None, np.arange(7), 7)
    with pytest.raises(InputError, match=r"features.layer=3: out of range"):
        Precomputed(layer=3, **keys).extract(None, np.arange(6), 6)
    deny(monkeypatch, "numpy.load", "x.npy")
    with pytest.raises(InputError, match=r"features.path: .*x.npy: it cannot be read .*Permission"):
        Precomputed(layer=2, **keys).extract(None, np.arange(6), 6)


@pytest.mark.parametrize("n", [5, 7])
def test_another_number_of_rows_than_images_is_refused(stored, n):
    """Also a longer array, of which the first rows were taken."""
    _, features = stored
    with pytest.raises(InputError, match=rf"has 6 rows, but there are {n} images; say by feat"):
        features().extract(None, np.arange(n), n)
    with pytest.raises(InputError, match=f"has 6 rows, but there are {n} images; features.ids=so"):
        features(ids="sorted").of_stimuli(np.arange(n), n_numbered=100)


@pytest.mark.parametrize("kind", ["csv", "npy", "float.npy"])
def test_rows_are_found_by_ids(stored, tmp_path, capsys, kind):
    array, features = stored
    ids = np.array([30, 10, 50, 20, 99, 40])
    path = tmp_path / f"ids.{kind}"
    if kind == "csv":
        pd.DataFrame({"split": "train", "stimulus": ids}).to_csv(path, index=False)
    else:
        np.save(path, ids.astype(np.float64 if "float" in kind else np.int32))
    chosen = features(ids=path)
    found = chosen.of_stimuli(np.array([10, 20, 30]), n_numbered=100)
    np.testing.assert_array_equal(found, array[[1, 3, 0]])
    assert f"rows by the ids in {path}" in capsys.readouterr().out
    assert chosen.input_files() == [tmp_path / "x.npy", path]


def test_rows_are_found_by_the_names_of_images(stored, tmp_path):
    array, features = stored
    (tmp_path / "pictures").mkdir()
    for name in ("b.png", "a.png", "c.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "pictures" / name)
    names = ["c.png", "x.png", "a.png", "y.png", "z.png", "b.png"]
    pd.DataFrame({"stimulus": names}).to_csv(tmp_path / "ids.csv", index=False)
    images = open_images(tmp_path / "pictures")
    found = features(ids=tmp_path / "ids.csv").extract(images, np.arange(3), 3)
    np.testing.assert_array_equal(found, array[[2, 5, 0]])
    with pytest.raises(InputError, match="has 6 rows, but there are 3 images"):
        features().extract(images, np.arange(3), 3)


def test_an_array_of_all_images_is_indexed_by_their_numbers(stored, capsys):
    array, features = stored
    found = features().of_stimuli(np.array([5, 0, 2]), n_numbered=6)
    np.testing.assert_array_equal(found, array[[5, 0, 2]])
    assert "row i is the image with the number i, of 6" in capsys.readouterr().out


def test_as_many_rows_as_images_could_be_another_subjects(stored, capsys):
    array, features = stored
    with pytest.raises(InputError, match=r"nothing says to which images.*features.ids=sorted"):
        features().of_stimuli(np.arange(10, 16), n_numbered=100)
    found = features(ids="sorted").of_stimuli(np.arange(10, 16), n_numbered=100)
    np.testing.assert_array_equal(found, array)
    assert "(features.ids=sorted)" in capsys.readouterr().out


BAD_IDS = {
    "too few": ([1, 2, 3], r"has 6 rows, but features.ids=.* has 3 ids"),
    "repeated": ([1, 2, 3, 4, 5, 2], "has several rows of the stimulus 2"),
    "from one": (
        [95, 96, 97, 98, 99, 100],
        "has the number 100, but the 100 images are numbered from 0",
    ),
    "lacking": ([1, 2, 3, 4, 5, 6], "lacks 1 of 2 stimuli, such as 9; numbers count from 0"),
    "fractions": ([1, 2, 3, 4, 5, 6.5], "must hold whole numbers"),
    "NaN": ([1, 2, 3, 4, 5, np.nan], "must hold whole numbers"),
    "two axes": (np.ones((6, 1)), r"must be one list of ids, found \(6, 1\)"),
}


@pytest.mark.parametrize("what", BAD_IDS)
def test_ids_that_do_not_fit_are_refused(stored, tmp_path, what):
    ids, message = BAD_IDS[what]
    np.save(tmp_path / "ids.npy", np.array(ids))
    with pytest.raises(InputError, match=message):
        stored[1](ids=tmp_path / "ids.npy").of_stimuli(np.array([2, 9]), n_numbered=100)


def test_a_table_of_ids_names_its_columns(stored, tmp_path):
    pd.DataFrame({"image": range(6), "split": ""}).to_csv(tmp_path / "ids.csv", index=False)
    with pytest.raises(InputError, match="no column `stimulus`; it has image, split"):
        stored[1](ids=tmp_path / "ids.csv").of_stimuli(np.arange(2), n_numbered=100)
    with pytest.raises(InputError, match=r"ids.tsv is neither a .csv nor a .npy file, nor `sorte"):
        stored[1](ids=tmp_path / "ids.tsv").of_stimuli(np.arange(2), n_numbered=100)
    pd.DataFrame({"stimulus": list("abcdef")}).to_csv(tmp_path / "ids.csv", index=False)
    with pytest.raises(InputError, match="must hold whole numbers"):
        stored[1](ids=tmp_path / "ids.csv").of_stimuli(np.arange(2), n_numbered=100)


def test_the_settings_without_ids_are_those_of_version_010(stored, tmp_path):
    """They name prepared folders of arrays with images."""
    _, features = stored
    assert set(features().model_dump(mode="json")) == {
        "name", "layer", "path", "key", "first_layer",
    }  # fmt: skip
    assert features(ids="sorted").model_dump(mode="json")["ids"] == "sorted"


def test_each_spelling_of_the_path_is_the_same(stored, tmp_path, monkeypatch):
    _, features = stored
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    for spelling in ("x.npy", "./x.npy", "~/x.npy", "link/x.npy"):
        assert features(path=spelling, ids=spelling) == features(ids=tmp_path / "x.npy"), spelling
