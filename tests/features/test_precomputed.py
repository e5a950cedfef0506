"""Features from a file."""

import numpy as np
import pytest
from helpers import deny

from jne.errors import InputError
from jne.features import Precomputed


def test_precomputed(tmp_path, monkeypatch):
    array = np.random.default_rng(0).normal(size=(6, 3, 4))
    np.save(tmp_path / "x.npy", array)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0}
    found = Precomputed(layer=2, **keys).of(None, np.array([4, 0]), 6)
    np.testing.assert_allclose(found, array[[4, 0], 2], rtol=1e-6)
    with pytest.raises(InputError, match="has 6 rows, but there are 7 images"):
        Precomputed(layer=2, **keys).of(None, np.arange(7), 7)
    with pytest.raises(InputError, match=r"features.layer=3 is out of range"):
        Precomputed(layer=3, **keys).of(None, np.arange(6), 6)
    deny(monkeypatch, "numpy.load", "x.npy")
    with pytest.raises(InputError, match=r"features.path: .*x.npy: it cannot be read .*Permission"):
        Precomputed(layer=2, **keys).of(None, np.arange(6), 6)
