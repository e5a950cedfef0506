"""Users' own arrays as an external test set, against a plain computation."""

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import CONSTANT, N_FEATURES, N_VOXELS, evaluate_config, write_run

from jne.errors import InputError
from jne.evaluation.external_test import external_test

N = 14


@pytest.fixture
def run(tmp_path):
    own = {"_target_": "jne.features.OwnFeatures", "name": "own", "layer": None}
    return write_run(tmp_path / "run", features_config=own)


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(5)
    np.save(tmp_path / "x.npy", rng.standard_normal((N, N_FEATURES), dtype=np.float32))
    repeats = rng.standard_normal((N, N_VOXELS, 1)) + rng.standard_normal((N, N_VOXELS, 3))
    np.save(tmp_path / "y.npy", repeats)
    kinds = ["a", "b"] * (N // 2)
    table = pd.DataFrame({"stimulus": range(100, 100 + N), "category": kinds})
    table.to_csv(tmp_path / "stimuli.csv", index=False)
    return tmp_path


def config(arrays, *more):
    files = ("test.features=x.npy", "test.responses=y.npy", "test.stimuli=stimuli.csv")
    return evaluate_config(arrays, "test=arrays", f"test.root={arrays}", *files, *more)


def test_scores_are_those_of_the_stored_encoder(run, arrays):
    result = external_test(run, config(arrays), lambda _: None)
    saved = torch.load(run.path / "encoder.pt", weights_only=True)
    x = (np.load(arrays / "x.npy") - saved["feature_mean"].numpy()) / saved["feature_scale"].numpy()
    with torch.no_grad():
        predicted = run.encoder()(torch.tensor(x, dtype=torch.float32)).numpy()
    measured = np.delete(np.load(arrays / "y.npy").mean(axis=2), CONSTANT, axis=1)
    r = [np.corrcoef(*pair)[0, 1] for pair in zip(measured.T, predicted.T, strict=True)]
    trained = np.delete(np.arange(N_VOXELS), CONSTANT)
    np.testing.assert_allclose(result.columns["r_ood"][trained], r, atol=1e-5)
    assert np.isnan(result.columns["r_ood"][CONSTANT])
    assert np.isfinite(result.columns["noise_ceiling_ood"]).all()
    assert set(result.stimuli["split"]) == {"test"}
    assert list(result.stimuli["category"]) == ["a", "b"] * (N // 2)


def test_responses_without_repeats_have_no_ceiling(run, arrays):
    np.save(arrays / "y.npy", np.load(arrays / "y.npy")[:, :, 0])
    assert "noise_ceiling_ood" not in external_test(run, config(arrays), lambda _: None).columns


@pytest.mark.parametrize(
    ("shape", "more", "expected"),
    [
        ((N, N_VOXELS + 1), [], f"test.responses: y.npy has {N_VOXELS + 1} voxels, but the run"),
        ((N - 1, N_VOXELS), [], f"test.features: {N} stimuli, but data.responses has {N - 1}"),
        ((N, N_VOXELS), ["test.features=no.npy"], "test.features: no such file"),
        ((N, N_VOXELS), ["features=precomputed", "features.path=x"], "features=precomputed: the"),
    ],
)
def test_what_is_refused(run, arrays, shape, more, expected):
    np.save(arrays / "y.npy", np.random.default_rng(0).standard_normal(shape))
    with pytest.raises(InputError) as error:
        external_test(run, config(arrays, *more), lambda _: None)
    assert str(error.value).startswith(expected)
