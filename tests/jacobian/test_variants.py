"""A new variant of JNE is one row of VARIANTS."""

from pathlib import Path

import numpy as np
import pytest
from brute_force import autograd_jacobians, small_net, zscored

from jne import jacobian_deviation
from jne.jacobian import variant_column, variant_file
from jne.jacobian.variants import VARIANTS, Variant


def _linf(values, consume):
    return (values.abs_() if consume else values.abs()).amax(dim=-1)


@pytest.fixture
def linf(monkeypatch):
    """The maximum over d, of the Jacobians and of the z-scored ones."""
    monkeypatch.setitem(VARIANTS, "linf", Variant("JNE-Linf", _linf))
    monkeypatch.setitem(VARIANTS, "zscore_linf", Variant("JNE-zscore-Linf", _linf, zscored=True))


@pytest.fixture(scope="module")
def truth():
    jacobians = autograd_jacobians(*small_net())
    return {
        name: np.abs(values - values.mean(axis=0)).max(axis=2)
        for name, values in (("linf", jacobians), ("zscore_linf", zscored(jacobians)))
    }


@pytest.mark.usefixtures("linf")
@pytest.mark.parametrize(
    ("order", "name"),
    [
        ("centred", "linf"),
        ("reverse", "linf"),
        ("reverse", "zscore_linf"),
        ("streamed", "zscore_linf"),
        (None, "linf"),
        (None, "zscore_linf"),
    ],
)
def test_a_new_variant_is_one_row(truth, order, name):
    encoder, x = small_net()
    found = jacobian_deviation(encoder, x, variant=name, order=order)
    np.testing.assert_allclose(found, truth[name], rtol=1e-11)


@pytest.mark.usefixtures("linf")
def test_a_new_variant_beside_the_others(truth, tmp_path):
    encoder, x = small_net()
    path = tmp_path / "deviation.npy"
    names = ("linf", "l1", "zscore_linf")
    found = jacobian_deviation(encoder, x, variant=names, path=path)
    assert list(found) == list(names)
    for name, values in truth.items():
        np.testing.assert_allclose(np.load(variant_file(path, name)), values, rtol=1e-11)
    alone = jacobian_deviation(encoder, x, variant="l1")
    np.testing.assert_allclose(found["l1"], alone, rtol=1e-12)
    assert variant_file(Path("deviation.npy"), "linf") == Path("deviation_linf.npy")
    assert variant_column("jne", "linf") == "jne_linf"


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="variant=linf: choose from l1, l2"):
        jacobian_deviation(*small_net(), variant="linf")
