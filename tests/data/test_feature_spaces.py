"""Feature spaces as named columns of one matrix, balanced, and kept with the data."""

import json

import numpy as np
import pytest
from space_arrays import WIDTHS, arrays_source, spaces_data, write_arrays

from jne.data.contents import contents_of
from jne.data.prepared import load, prepare
from jne.data.scaling import feature_scale
from jne.errors import InputError


@pytest.fixture
def files(tmp_path):
    return write_arrays(tmp_path)


def test_spaces_are_columns_of_one_matrix(tmp_path, files):
    prepared = prepare(arrays_source(tmp_path, features=files), tmp_path / "prepared")
    assert prepared.feature_spaces == {"narrow": slice(0, 5), "wide": slice(5, 25)}
    for name, columns in prepared.feature_spaces.items():
        np.testing.assert_array_equal(
            prepared.features[:, columns], np.load(tmp_path / files[name])
        )
    saved = json.loads((prepared.folder / "feature_spaces.json").read_text())
    assert list(saved.items()) == list(WIDTHS.items())


def test_one_space_is_as_it_was(tmp_path, files):
    """With a name or without: no file of spaces, and no balance."""
    named, plain = (
        prepare(arrays_source(tmp_path, features=given), tmp_path / "prepared")
        for given in ({"wide": files["wide"]}, files["wide"])
    )
    assert named.feature_spaces is plain.feature_spaces is None
    assert not (named.folder / "feature_spaces.json").exists()
    np.testing.assert_array_equal(named.features, plain.features)


def test_the_order_of_spaces_and_their_widths_tell_data_apart(tmp_path, files):
    one, other = (
        prepare(arrays_source(tmp_path, features=given), tmp_path / "prepared")
        for given in (files, dict(reversed(files.items())))
    )
    assert one.folder != other.folder
    assert list(other.feature_spaces) == ["wide", "narrow"]
    before = contents_of(one)["features"]
    (one.folder / "checks.json").unlink()
    (one.folder / "feature_spaces.json").write_text(json.dumps({"narrow": 6, "wide": 19}))
    assert contents_of(load(one.folder))["features"] != before


def test_layers_are_spaces(tmp_path, files):
    layers = np.random.default_rng(3).standard_normal((150, 4, 3)).astype(np.float32)
    np.save(tmp_path / "layers.npy", layers)
    source = arrays_source(tmp_path, features="layers.npy", layer=[2, 4])
    prepared = prepare(source, tmp_path / "prepared")
    assert prepared.feature_spaces == {"layer_2": slice(0, 3), "layer_4": slice(3, 6)}
    np.testing.assert_array_equal(prepared.features[:, 3:], layers[:, 3])
    source = arrays_source(tmp_path, features={"a": "layers.npy"}, layer=[2, 4])
    assert list(prepare(source, tmp_path / "prepared").feature_spaces) == ["a_layer_2", "a_layer_4"]


@pytest.mark.parametrize("scaling", ["each", "global"])
def test_spaces_have_the_same_total_variance(tmp_path, files, scaling):
    source = arrays_source(tmp_path, features=files, scale_features=scaling)
    data = spaces_data(tmp_path, source)
    variance = data.split("train")[0].double().var(dim=0, correction=0)
    for columns in data.feature_spaces.values():
        assert float(variance[columns].sum()) == pytest.approx(25 / 2, rel=1e-4)
    if scaling == "each":  # within a space all features stay alike
        assert float(variance[:5].std()) < 1e-4


def test_constant_columns_do_not_count_in_the_balance():
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    x[:, 5] = 1
    spaces = {"a": slice(0, 2), "b": slice(2, 6)}
    z = x / feature_scale(x, "each", spaces)
    total = [z[:, columns].var(axis=0).sum() for columns in spaces.values()]
    np.testing.assert_allclose(total, 5 / 2, rtol=1e-5)
    np.testing.assert_array_equal(feature_scale(x, "none", spaces), 1)
    x[:, :2] = 0
    with pytest.raises(InputError, match=r"^data.features: all features of the space a are const"):
        feature_scale(x, "each", spaces, "data.features")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"a b": "wide.npy"},
            "features: the name of a feature space must be one word, found 'a b'",
        ),
        ({}, "give either data.features or data.images"),
    ],
)
def test_wrong_spaces_are_refused(tmp_path, files, given, message):
    with pytest.raises(ValueError, match=message):
        arrays_source(tmp_path, features=given)


def test_a_bad_number_is_found_in_its_space(tmp_path, files):
    x = np.load(tmp_path / "wide.npy")
    x[7, 2] = np.nan
    np.save(tmp_path / "wide.npy", x)
    with pytest.raises(InputError, match="1 of 150 stimuli of the space wide, the first in row 7"):
        prepare(arrays_source(tmp_path, features=files), tmp_path / "prepared")
    np.save(tmp_path / "wide.npy", x[1:])
    with pytest.raises(InputError, match=r"data.features: spaces of .*narrow of 150, wide of 149"):
        prepare(arrays_source(tmp_path, features=files), tmp_path / "prepared")


@pytest.mark.parametrize("widths", [{"a": 5, "b": 21}, {"a": 25.0}, [5, 20], {"a": 25, "b": 0}])
def test_a_damaged_file_of_spaces_is_refused(tmp_path, files, widths):
    prepared = prepare(arrays_source(tmp_path, features=files), tmp_path / "prepared")
    (prepared.folder / "feature_spaces.json").write_text(json.dumps(widths))
    with pytest.raises(InputError, match="number of columns of each feature space, 25 in all"):
        load(prepared.folder).feature_spaces  # noqa: B018
