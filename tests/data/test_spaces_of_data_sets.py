"""Two feature spaces of each data set: the matrix is what it has with each of them alone."""

import numpy as np
import pytest
from helpers import compose_train
from laion_tree import write_laion
from mosaic_tree import write_features, write_mosaic
from nsd_tree import write_algonauts

from jne.data.prepared import prepare
from jne.errors import InputError
from jne.training.config import check_config


@pytest.fixture
def check(tmp_path):
    def prepared(*overrides):
        source = check_config(compose_train(tmp_path, *overrides))[1]
        return prepare(source, tmp_path / "prepared")

    def compare(data, first, second):
        """Overrides of the data, and of the features of each space below its key."""
        (one, *keys), (other, *more) = first, second
        name = other if other != one else f"{other}_2"
        settings = [f"features.spaces.{one}.{key}" for key in keys]
        settings += [f"features.spaces.{name}.{key}" for key in more]
        both = prepared(*data, f"features={one}+{other}", *settings)
        assert list(both.feature_spaces) == [one, name]
        alone = [
            prepared(*data, f"features={choice}", *(f"features.{key}" for key in given))
            for choice, *given in (first, second)
        ]
        for columns, single in zip(both.feature_spaces.values(), alone, strict=True):
            np.testing.assert_array_equal(both.features[:, columns], single.features)
            np.testing.assert_array_equal(both.responses, single.responses)

    return compare


def doubled(features):
    """Other features of the same stimuli, wider, beside them."""
    array = np.load(features)
    path = features.with_name(f"doubled_{features.name}")
    np.save(path, np.concatenate([array, 2 * array], axis=1))
    return path


@pytest.mark.parametrize("zscore", ["train", "run"])
def test_nsd(tree, features, check, zscore):
    data = ("data=nsd", f"data.root={tree}", "data.n_val=0.25", f"data.feature_zscore={zscore}")
    ids = f"ids={features.with_name('ids.npy')}"
    first, second = (("precomputed", f"path={path}", ids) for path in (features, doubled(features)))
    check(data, first, second)


def test_an_error_names_the_space(tree, features, check):
    data = ("data=nsd", f"data.root={tree}", "data.n_val=0.25")
    given = ("precomputed", f"path={features}")
    wrong = ("precomputed", f"path={features}", "layer=3")
    with pytest.raises(InputError, match=r"^features.spaces.precomputed_2.layer=3: needs features"):
        check(data, (*given, f"ids={features.with_name('ids.npy')}"),
              (*wrong, f"ids={features.with_name('ids.npy')}"))  # fmt: skip


def test_algonauts(features, tmp_path, check):
    root = write_algonauts(tmp_path)
    data = ("data=algonauts", f"data.root={root}", "data.n_val=0.2", "data.n_test=4")
    ids = f"ids={features.with_name('ids.npy')}"
    first, second = (("precomputed", f"path={path}", ids) for path in (features, doubled(features)))
    check(data, first, second)


def test_mosaic(tmp_path, check):
    write_mosaic(tmp_path, "GOD")
    path = tmp_path / "features" / "GOD.npy"
    write_features(path, "GOD")
    data = ("data=mosaic", f"data.root={tmp_path}", "data.dataset=GOD", "data.n_val=3")
    ids = f"ids={path.with_suffix('.csv')}"
    first, second = (("precomputed", f"path={p}", ids) for p in (path, doubled(path)))
    check(data, first, second)


def test_laion_with_its_own_embeddings_and_an_array(tmp_path, check):
    root = write_laion(tmp_path)
    data = ("data=laion", f"data.root={root}", f"data.splits={root / 'splits'}", "data.n_val=2",
            "data.voxels=brainmask")  # fmt: skip
    check(data, ("laion_clip",), ("laion_dinov2",))
