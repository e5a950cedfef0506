"""Scaling of features against scikit-learn, and when whitening is said."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from jne import Results
from jne.data.datamodule import StandardisedData
from jne.data.scaling import feature_scale, whitening


def photographs(n=500, d=40, seed=0):
    """Features with a falling spectrum, mixed."""
    rng = np.random.default_rng(seed)
    mixed = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = rng.standard_normal((n, d)) * 1 / np.arange(1, d + 1)
    return (x @ mixed).astype(np.float32)


def test_scales():
    x = photographs()
    np.testing.assert_allclose(feature_scale(x, "each"), StandardScaler().fit(x).scale_, rtol=1e-6)
    np.testing.assert_allclose(feature_scale(x, "global"), np.sqrt(x.var(axis=0).mean()), rtol=1e-6)
    np.testing.assert_array_equal(feature_scale(x, "none"), 1)
    x[:, 3] = 5  # constant columns do not count
    others = np.delete(x, 3, axis=1).var(axis=0)
    np.testing.assert_allclose(feature_scale(x, "global"), np.sqrt(others.mean()), rtol=1e-6)


@pytest.mark.parametrize("scaling", ["each", "global", "none"])
def test_data_are_centred_and_scaled_by_the_training_stimuli(scaling):
    x = photographs() + 7
    rows = {"train": np.arange(300), "val": np.arange(300, 400), "test": np.arange(400, 500)}
    data = StandardisedData(x, x, rows, batch_size=None, seed=0, scale_features=scaling)
    exact = x.astype(np.float64)
    expected = (exact - exact[:300].mean(axis=0)) / feature_scale(x[:300], scaling)
    np.testing.assert_allclose(data.features, expected, atol=1e-4)  # of float32 around 7


def test_principal_components_are_said_to_be_whitened():
    x = photographs()
    components = PCA().fit_transform(x)
    assert "data.scale_features=global" in whitening(components[:400])
    assert "40 times" in whitening(components) or "times that" in whitening(components)
    for others in (x, StandardScaler().fit_transform(components), components[:, :5], x[:, :1]):
        assert whitening(others) == ""
    rng = np.random.default_rng(0)
    for seed in range(20):  # correlated features of very different units
        scaled = photographs(seed=seed) * 10 ** rng.uniform(-2, 2, 40)
        assert whitening(scaled) == ""


@pytest.mark.runs
def test_a_run_says_so_once_and_keeps_their_sizes(run_train, tmp_path, capsys):
    x = PCA().fit_transform(photographs(150, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x[:, :3] + np.random.default_rng(0).standard_normal((150, 3)))
    data = ("data=arrays", f"data.root={tmp_path}", "data.features=x.npy", "data.responses=y.npy")
    run_train(*data)
    assert " ".join(capsys.readouterr().out.split()).count("data.scale_features=global") == 1
    (folder,) = run_train(*data, "data.scale_features=global")
    assert "whiten" not in capsys.readouterr().out
    features = Results(folder).array("features")
    size = features.std(axis=0)
    assert size.max() > 5 * size.min()
