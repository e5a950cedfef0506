"""The directions along which Jacobians move, against NumPy's singular value decomposition."""

import numpy as np
import pandas as pd
import pytest
import torch
from brute_force import autograd_jacobians
from torch import nn

from jne import switching
from jne.encoders import ResidualEncoder, RidgeRegression
from jne.errors import InputError

K = 3


def draw(n, d, seed=1):
    return torch.randn(n, d, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def truth(a, k):
    """Of deviations (N, D): directions (D, k), loadings (N, k), shares (k,), the ratio."""
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    variance = s**2
    return vt[:k].T, u[:, :k] * s[:k], variance[:k] / variance.sum(), (
        variance.sum() ** 2 / (variance**2).sum()
    )  # fmt: skip


def cosines(a, b):
    """Of the principal angles between the spaces of directions (D, k)."""
    return np.linalg.svd(a.T @ b, compute_uv=False)


def check(result, v, a, k=K):
    directions, loadings, share, ratio = truth(a, k)
    sign = np.sign((directions * result.directions[v]).sum(axis=0))
    np.testing.assert_allclose(result.directions[v], directions * sign, atol=1e-7)
    np.testing.assert_allclose(result.share[v], share, rtol=1e-8)
    np.testing.assert_allclose(result.participation_ratio[v], ratio, rtol=1e-8)
    halves = [half - half.mean(axis=0) for half in (a[::2], a[1::2])]
    of_halves = [truth(half, k)[0] for half in halves]
    stability = [cosines(*(x[:, :j] for x in of_halves)).mean() for j in range(1, k + 1)]
    np.testing.assert_allclose(result.stability[v], stability, atol=1e-7)
    return loadings * sign


MODULES = {
    "more features than stimuli": (ResidualEncoder(30, 6, hidden_width=16), 24),
    "more stimuli than features": (ResidualEncoder(9, 6, hidden_width=16, linear_path=True), 40),
    "many voxels": (ResidualEncoder(9, 50, hidden_width=10, activation="gelu"), 40),
    "any module": (nn.Sequential(nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, 5)), 31),
}


@pytest.mark.parametrize("name", MODULES)
def test_voxels_are_numpys(name):
    module, n = MODULES[name]
    x = draw(n, module[0].in_features if isinstance(module, nn.Sequential) else x_size(module))
    deviation = centred(module.double(), x)
    chosen = np.array([4, 0, 1])
    result = switching(module, x, chosen, K, verbose=0)
    for v, output in enumerate(chosen):
        loadings = check(result, v, deviation[:, output])
        np.testing.assert_allclose(result.loadings[v], loadings, atol=1e-7)
        assert (result.loadings[v].max(axis=0) >= -result.loadings[v].min(axis=0)).all()


def x_size(module):
    return module.hidden[0].linear.in_features if hasattr(module.hidden[0], "linear") else (
        module.hidden[0].in_features
    )  # fmt: skip


def centred(module, x):
    jacobians = autograd_jacobians(module, x)
    return jacobians - jacobians.mean(axis=0)


@pytest.mark.parametrize("name", MODULES)
def test_regions_are_numpys_of_stacked_deviations(name):
    module, n = MODULES[name]
    x = draw(n, module[0].in_features if isinstance(module, nn.Sequential) else x_size(module))
    deviation = centred(module.double(), x)
    regions = {"V1": np.arange(deviation.shape[1] - 2), "V2": np.array([1, 0])}
    result = switching(module, x, regions, K, verbose=0)
    assert result.names == ["V1", "V2"]
    for v, members in enumerate(regions.values()):
        a = deviation[:, members]
        directions, _, share, ratio = truth(a.reshape(-1, a.shape[2]), K)
        sign = np.sign((directions * result.directions[v]).sum(axis=0))
        np.testing.assert_allclose(result.directions[v], directions * sign, atol=1e-7)
        np.testing.assert_allclose(result.share[v], share, rtol=1e-8)
        np.testing.assert_allclose(result.participation_ratio[v], ratio, rtol=1e-8)
        for k in range(K):
            u, s, _ = np.linalg.svd(a @ result.directions[v][:, k], full_matrices=False)
            expected = u[:, 0] * s[0]
            expected *= np.sign(expected @ result.loadings[v][:, k])
            np.testing.assert_allclose(result.loadings[v][:, k], expected, atol=1e-7)


def test_of_many_stimuli_and_features_the_leading_directions_are_numpys():
    torch.manual_seed(0)
    encoder, x = ResidualEncoder(200, 4, hidden_width=64), draw(300, 200)
    deviation = centred(encoder.double(), x)
    result = switching(encoder, x, k=4, verbose=0)
    single = switching(encoder.float(), x.float(), k=4, verbose=0)
    for v in range(4):
        directions, _, share, ratio = truth(deviation[:, v], 4)
        for part, tolerance in ((result, 1e-3), (single, 2e-3)):
            np.testing.assert_allclose(part.share[v], share, rtol=tolerance)
            np.testing.assert_allclose(part.participation_ratio[v], ratio, rtol=1e-4)
            assert cosines(directions[:, :2], part.directions[v][:, :2]).min() > 0.999

    region = switching(encoder.double(), x, {"all": np.arange(4)}, k=4, verbose=0)
    directions, _, share, ratio = truth(deviation.reshape(-1, 200), 4)
    np.testing.assert_allclose(region.share[0], share, rtol=1e-8)
    np.testing.assert_allclose(region.participation_ratio[0], ratio, rtol=1e-8)
    np.testing.assert_allclose(np.abs((region.directions[0] * directions).sum(axis=0)), 1)


def test_in_blocks_they_are_the_same():
    encoder, x = ResidualEncoder(40, 30, hidden_width=16), draw(50, 40).float()
    whole = switching(encoder, x, k=2, verbose=0)
    blocks = switching(encoder, x, k=2, max_memory_gb=0.0002, verbose=0)
    np.testing.assert_allclose(blocks.share, whole.share, rtol=1e-4)
    with pytest.raises(InputError, match="max_memory_gb=1e-07: must be at least"):
        switching(encoder, x, k=2, max_memory_gb=1e-7, verbose=0)


def test_of_regions_the_order_of_the_products_changes_nothing():
    """All stimuli at once, where there is room, or one after the other."""
    encoder, x = ResidualEncoder(40, 30, hidden_width=16).double(), draw(50, 40)
    regions = {"few": np.arange(3), "many": np.arange(30)}
    whole = switching(encoder, x, regions, 2, verbose=0)
    narrow = switching(encoder, x, regions, 2, max_memory_gb=1e-7, verbose=0)
    for name in ("directions", "loadings", "share", "participation_ratio", "stability"):
        np.testing.assert_allclose(getattr(narrow, name), getattr(whole, name), atol=1e-9)


def test_agreement_is_that_of_the_spaces_of_directions():
    x = draw(30, 9)
    first, other = (
        switching(ResidualEncoder(9, 4, hidden_width=8).double(), x, k=K, verbose=0)
        for _ in range(2)
    )
    expected = [
        [cosines(a[:, :j], b[:, :j]).mean() for j in range(1, K + 1)]
        for a, b in zip(first.directions, other.directions, strict=True)
    ]
    np.testing.assert_allclose(first.agreement(other), expected, atol=1e-9)
    np.testing.assert_allclose(first.agreement(first), 1)
    linear = switching(RidgeRegression(9, 4), x.float(), k=K, verbose=0)
    assert np.isnan(first.agreement(linear)).all()
    with pytest.raises(InputError, match=r"other: its directions must have one shape"):
        first.agreement(switching(RidgeRegression(9, 4), x.float(), k=2, verbose=0))


def test_one_gate_is_one_direction():
    """y = relu(w x): all Jacobians are 0 or w, which is the direction; it splits the stimuli."""
    encoder = ResidualEncoder(5, 1, hidden_width=1, n_hidden=1, bias=False, skip_first=False)
    w = torch.tensor([[3.0, 0, 4, 0, 0]])
    with torch.no_grad():
        encoder.hidden[0].weight.copy_(w)
        encoder.readout.weight.fill_(1)
    x = draw(20, 5).float()
    result = switching(encoder, x, k=1, verbose=0)
    np.testing.assert_allclose(np.abs(result.directions[0, :, 0]), [0.6, 0, 0.8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(result.share, 1, rtol=1e-5)
    np.testing.assert_allclose(result.participation_ratio, 1, rtol=1e-5)
    np.testing.assert_allclose(result.stability, 1, rtol=1e-5)
    is_open = (x @ w.T > 0).numpy().ravel()
    low, high = result.ends(3)[0, 0]
    assert len({*is_open[low]}) == len({*is_open[high]}) == 1
    assert is_open[low[0]] != is_open[high[0]]
    table = pd.DataFrame({"open": is_open, "name": ["a"] * 20, "constant": 1.0, "gap": np.nan})
    correlations = result.correlations(table)
    assert list(correlations) == ["open"]
    np.testing.assert_allclose(np.abs(correlations["open"]), [[1]], rtol=1e-5)


@pytest.mark.parametrize("voxels", [None, {"V1": np.arange(3)}])
def test_a_linear_encoder_switches_nowhere(voxels):
    result = switching(RidgeRegression(9, 3), draw(20, 9).float(), voxels, 2, verbose=0)
    assert not result.loadings.any()
    for values in (result.share, result.participation_ratio, result.stability):
        assert np.isnan(values).all()
    assert "Switching: " in repr(result)
    assert "Switching: " in result._repr_html_()


def test_input_is_checked():
    encoder, x = ResidualEncoder(9, 3, hidden_width=8), draw(20, 9).float()
    with pytest.raises(InputError, match="k=10: must be 1 to 9"):
        switching(encoder, x, k=10)
    with pytest.raises(InputError, match="X: 5 stimuli"):
        switching(encoder, x[:5], k=1)
    with pytest.raises(InputError, match="voxels: must be indices"):
        switching(encoder, x, np.array([3]), k=1)
