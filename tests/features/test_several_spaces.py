"""Several kinds of features, or several layers, as feature spaces."""

import numpy as np
import pytest

from jne.errors import InputError
from jne.features import FeatureSpaces, LaionEmbedding, OwnFeatures, Precomputed

ROWS = np.array([4, 0])


@pytest.fixture
def stored(tmp_path):
    """An array (6, 3, 4), and features of it whose keys may be changed."""
    array = np.random.default_rng(0).normal(size=(6, 3, 4))
    np.save(tmp_path / "x.npy", array)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0, "layer": 0}
    return array, lambda **changes: Precomputed(**(keys | changes))


def read(space):
    return space.extract(None, ROWS, 6)


def test_each_layer_is_a_space(stored):
    array, features = stored
    spaces = features(layer=[2, 0]).each(read)
    assert list(spaces) == ["layer_2", "layer_0"]
    np.testing.assert_array_equal(spaces["layer_2"], array[ROWS, 2])
    np.testing.assert_array_equal(features(layer=1).each(read), array[ROWS, 1])


def test_spaces_side_by_side(stored):
    array, features = stored
    both = FeatureSpaces(
        name="a+b", layer=None, spaces={"a": features(layer=[0, 1]), "b": features(layer=2)}
    )
    spaces = both.each(read)
    assert list(spaces) == ["a_layer_0", "a_layer_1", "b"]
    np.testing.assert_array_equal(spaces["b"], array[ROWS, 2])
    assert both.are(Precomputed)
    assert not both.are(LaionEmbedding)
    assert len(both.input_files()) == 2


def test_an_error_names_the_key_of_its_space(stored):
    _, features = stored
    both = FeatureSpaces(name="a+b", layer=None, spaces={"a": features(), "b": features(layer=3)})
    with pytest.raises(InputError, match=r"^features.spaces.b.layer=3: out of range"):
        both.each(read)


def test_wrong_spaces_are_refused(stored):
    _, features = stored
    for layers in ([], [1, 1]):
        with pytest.raises(ValueError, match="must name different layers"):
            features(layer=layers)
    with pytest.raises(ValueError, match="must be features of images"):
        FeatureSpaces(
            name="n", layer=None, spaces={"a": OwnFeatures(name="own", layer=None), "b": features()}
        )


def test_a_source_that_knows_one_space_refuses_several(stored):
    _, features = stored
    with pytest.raises(InputError, match=r"^features.layer=\[0, 1\]: these data take one layer"):
        read(features(layer=[0, 1]))
    with pytest.raises(InputError, match="these data take one feature space"):
        read(FeatureSpaces(name="n", layer=None, spaces={"a": features(), "b": features()}))
