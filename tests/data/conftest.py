import shutil

import numpy as np
import pytest
from nsd_tree import N_IMAGES, write_nsd, write_surface

from jne.data.arrays import Arrays


@pytest.fixture
def recorded(tmp_path):
    """A folder, features (50, 3, 6) and responses (50, 4) saved in it, and a source of them."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3, 6)), rng.standard_normal((50, 4))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)

    def source(**changes):
        settings = {"name": "a", "subject": "s", "root": tmp_path, "features": "x.npy"}
        return Arrays(**(settings | {"responses": "y.npy", "layer": 2} | changes))

    return tmp_path, x, y, source


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return write_nsd(tmp_path_factory.mktemp("nsd"))


@pytest.fixture(scope="session")
def surface(tmp_path_factory):
    """fsaverage betas, without a colour table."""
    root = write_surface(tmp_path_factory.mktemp("surface"))
    next(root.rglob("HCP_MMP1.mgz.ctab")).unlink()
    return root


@pytest.fixture
def fresh_tree(tree, tmp_path):
    """A tree that the test may damage."""
    return shutil.copytree(tree, tmp_path / "nsd", symlinks=True)


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """Features of NSD's images with the numbers in ids.npy, which lies beside them."""
    path = tmp_path_factory.mktemp("features") / "features.npy"
    np.save(path.with_name("ids.npy"), np.arange(N_IMAGES))
    np.save(path, np.random.default_rng(3).standard_normal((N_IMAGES, 5), dtype=np.float32))
    return path
