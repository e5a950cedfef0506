"""Evidence per feature space against statsmodels, and of models whose nonlinearity is known."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from torch import nn

import jne
from jne.analysis.evidence_spaces import space_evidence_of
from jne.errors import InputError

N, V = 90, 5
SPACES = {"words": slice(0, 3), "edges": slice(3, 6)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    linear, ridge, least = rng.standard_normal((3, N, V))
    components = 0.5 * rng.standard_normal((3, N, V))
    components[1] += 0.5 * components[0]  # collinear
    y = linear + components[0] + 0.7 * components[2] + rng.standard_normal((N, V))
    return y, linear + components.sum(axis=0), list(components), [ridge, least]


def test_components_are_regressed_on_together(arrays):
    y, f, components, linear = arrays
    result = space_evidence_of(*arrays, SPACES, V)
    assert result.components == ("words", "edges", "interaction")
    for v in range(V):
        x = [array[:, v] for array in (*components, *linear, f - sum(components))]
        whole = sm.OLS(y[:, v], sm.add_constant(np.column_stack(x))).fit(cov_type="HC3")
        np.testing.assert_allclose(result.slope[v], whole.params[1:4], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(result.slope_error[v], whole.bse[1:4], rtol=1e-3)
        p = stats.t.sf(whole.tvalues[1:4], N - 7)
        np.testing.assert_allclose(result.p[v], p, rtol=2e-2, atol=1e-6)
    for k in range(3):
        np.testing.assert_allclose(
            result.p_fdr[:, k], stats.false_discovery_control(result.p[:, k])
        )


def test_a_voxel_goes_to_the_component_that_explains_most_alone(arrays):
    result = space_evidence_of(*arrays, SPACES, V)
    p = np.array([[0.01, 0.5, 0.001], [0.2, 0.3, 0.4], [np.nan] * 3, [0.02, np.nan, 0.2]])
    r2 = np.array([[0.1, 0.2, 0.3], [0.9, 0.9, 0.9], [0.0] * 3, [0.5, 0.0, 0.2]])
    assert stats.false_discovery_control([0.003, 0.6, 1, 0.06]) == pytest.approx(
        [0.012, 0.8, 1, 0.12]
    )
    planted = result._replace(p=p, r2=r2)
    assert list(planted.assigned()) == ["interaction", "linear", "linear", "linear"]
    assert list(planted.assigned(0.15)) == ["interaction", "linear", "linear", "words"]
    assert "5 voxels" in repr(result)
    assert "share of words" in result._repr_html_()


class Planted(nn.Module):
    """Voxels linear, nonlinear in words, in edges, and in a product of both."""

    def forward(self, x):
        u, v = x[:, 0], x[:, 3]
        linear = x @ torch.linspace(-1, 1, 6, dtype=x.dtype)
        parts = (0 * u, u.square() - 1, v.abs() - 0.8, u * v)
        return torch.stack([linear + part for part in parts], dim=1)


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((1400, 6))
    signal = Planted()(torch.from_numpy(X)).numpy()
    y = signal + 1.5 * rng.standard_normal(signal.shape)
    return X[:600], X[600:], y[:600], y[600:]


def test_planted_voxels_are_given_to_their_space(planted):
    train, test, y_train, y_test = planted
    weights = np.linalg.lstsq(train, y_train, rcond=None)[0]
    result = jne.space_evidence(
        Planted(), train, test, y_test, ridge=test @ weights, spaces=SPACES, y_train=y_train
    )
    assert list(result.assigned()) == ["linear", "words", "edges", "interaction"]
    np.testing.assert_allclose(np.diag(result.slope[1:]), 1, atol=0.2)
    assert np.isnan(result.z[0]).all()
    np.testing.assert_array_equal(result.r2[0], 0)


def test_input_is_checked(planted):
    train, test, _, y_test = planted
    for spaces in ({"all": slice(0, 6)}, {"a": slice(0, 2), "b": slice(3, 6)}):
        with pytest.raises(InputError, match="spaces: "):
            jne.space_evidence(Planted(), train, test, y_test, ridge=y_test, spaces=spaces)
