"""The features of NSD's and Algonauts' images, in the right rows or refused."""

import numpy as np
import pandas as pd
import pytest
from data_sources import refused, source
from nsd_tree import N_IMAGES, behaviour, write_algonauts

from jne.data.nsd.images import N_IMAGES as N_NSD
from jne.data.prepared import prepare

DATA = {"nsd": (), "algonauts": ("data.n_test=4",)}


@pytest.fixture(scope="module")
def roots(tree, tmp_path_factory):
    return {"nsd": tree, "algonauts": write_algonauts(tmp_path_factory.mktemp("algonauts"))}


def numbers(root, data: str) -> np.ndarray:
    """NSD's numbers of the subject's images, from 0, in the order of the stimuli."""
    if data == "nsd":
        table = behaviour(root)
        return np.unique(table.loc[table["SESSION"] != 3, "73KID"]) - 1
    names = sorted(path.stem for path in root.rglob("train-*.png"))
    return np.array([int(name.split("-")[-1]) for name in names])


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Features of all of NSD's images: the number of the image, and what was drawn for it."""
    path = tmp_path_factory.mktemp("everything") / "all.npy"
    drawn = np.random.default_rng(0).standard_normal(N_NSD)
    np.save(path, np.column_stack([np.arange(N_NSD), drawn]).astype(np.float32))
    return path


@pytest.mark.runs
@pytest.mark.parametrize("data", DATA)
def test_features_of_all_images_are_taken_by_number(roots, everything, tmp_path, data, capsys):
    root = roots[data]
    prepared = prepare(source(tmp_path, root, everything, *DATA[data], data=data), tmp_path)
    np.testing.assert_array_equal(prepared.features[:, 0], numbers(root, data))
    assert "row i is the image with the number i, of 73000" in capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.parametrize("data", DATA)
def test_features_with_ids_are_taken_by_them(roots, tmp_path, data, capsys):
    root, expected = roots[data], numbers(roots[data], data)
    ids = np.random.default_rng(1).permutation(N_IMAGES)
    pd.DataFrame({"stimulus": ids}).to_csv(tmp_path / "ids.csv", index=False)
    np.save(tmp_path / "x.npy", np.column_stack([ids, ids % 7]).astype(np.float32))
    settings = (*DATA[data], f"features.ids={tmp_path / 'ids.csv'}")
    prepared = prepare(
        source(tmp_path, root, tmp_path / "x.npy", *settings, data=data), tmp_path / "p"
    )
    np.testing.assert_array_equal(prepared.features[:, 0], expected)
    assert f"rows by the ids in {tmp_path / 'ids.csv'}" in capsys.readouterr().out


@pytest.mark.runs
@pytest.mark.parametrize("data", DATA)
def test_the_order_of_a_subject_must_be_asked_for(roots, tmp_path, data):
    """Another subject's file, with as many rows, would be taken without a word."""
    root, expected = roots[data], numbers(roots[data], data)
    np.save(tmp_path / "x.npy", np.column_stack([expected, expected]).astype(np.float32))
    sentence = refused(tmp_path, root, tmp_path / "x.npy", *DATA[data], data=data)
    assert f"x.npy has {len(expected)} rows, and nothing says to which images" in sentence
    assert "features.ids" in sentence
    settings = (*DATA[data], "features.ids=sorted")
    chosen = source(tmp_path, root, tmp_path / "x.npy", *settings, data=data)
    prepared = prepare(chosen, tmp_path / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], expected)


@pytest.mark.runs
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("n_rows", [160, 72_953])
def test_features_of_another_length_are_refused(roots, tmp_path, data, n_rows):
    np.save(tmp_path / "x.npy", np.ones((n_rows, 2), dtype=np.float32))
    path = tmp_path / "x.npy"
    sentence = refused(tmp_path, roots[data], path, *DATA[data], data=data)
    assert f"x.npy has {n_rows} rows" in sentence
    assert "give 73000 rows" in sentence
    settings = (*DATA[data], "features.ids=sorted")
    sentence = refused(tmp_path, roots[data], path, *settings, data=data)
    assert f"has {n_rows} rows, but there are {len(numbers(roots[data], data))} images" in sentence


@pytest.mark.runs
def test_algonauts_without_images_has_no_numbers(features, everything, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    for path in root.rglob("train-*.png"):
        path.unlink()
    folder = next(root.rglob("training_images"))
    folder.rmdir()
    assert "features.ids=sorted takes" in refused(
        tmp_path, root, everything, "data.n_test=4", data="algonauts"
    )
    np.save(tmp_path / "x.npy", np.arange(40, dtype=np.float32).reshape(20, 2))
    settings = ("data.n_test=4", "features.ids=sorted")
    chosen = source(tmp_path, root, tmp_path / "x.npy", *settings, data="algonauts")
    prepared = prepare(chosen, tmp_path / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], 2 * np.arange(20))


def test_algonauts_images_without_numbers_are_named(everything, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    path = next(root.rglob("train-0003_*.png"))
    path.rename(path.with_name("train-0003.png"))
    sentence = refused(tmp_path, root, everything, "data.n_test=4", data="algonauts")
    assert "the name of train-0003.png in" in sentence


def test_algonauts_stimuli_are_its_images_whatever_the_features(roots, features, tmp_path):
    prepared = prepare(
        source(tmp_path, roots["algonauts"], features, "data.n_test=4", data="algonauts"), tmp_path
    )
    names = sorted(path.name for path in roots["algonauts"].rglob("train-*.png"))
    assert list(prepared.stimuli["image"]) == names
    assert list(prepared.stimuli["stimulus"]) == names
