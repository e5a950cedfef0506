"""`python train.py data.folds=3`: every stimulus is tested by an encoder that has not seen it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score

from jne import Results, jacobian_deviation, jne
from jne.data.prepared import load
from jne.encoders.raw import RawEncoder
from jne.errors import InputError
from jne.utils.tensors import load_tensors

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A folder with features (150, 8) and responses of 6 voxels, of which one is constant."""
    folder, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    x = rng.normal(3, 2, (150, 8)).astype(np.float32)
    y = x @ rng.normal(size=(8, 6)) + np.abs(x[:, :1] - 3) * 4 + rng.normal(size=(150, 6))
    y[:, 2] = 7
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", (500 + 20 * y).astype(np.float32))
    film = np.repeat(np.arange(30), 5)
    table = {"stimulus": np.arange(150), "film": film, "day": np.array(["a", "b"])[film % 2]}
    pd.DataFrame(table).to_csv(folder / "s.csv", index=False)
    return folder


def overrides(folder, *more):
    return (
        "data=arrays", f"data.root={folder}", "data.features=x.npy", "data.responses=y.npy",
        "data.stimuli=s.csv", "data.folds=3", *more,
    )  # fmt: skip


def test_each_stimulus_is_tested_by_the_encoder_that_did_not_see_it(run_train, arrays):
    (folder,) = run_train(*overrides(arrays, "evidence.keep=true"), figures=True)
    run = Results(folder)
    prepared = load(type(folder)(run.status["prepared"]))
    assert run.n_folds == 3
    fold = run.stimuli["fold"].to_numpy()
    assert np.bincount(fold).tolist() == [0, 50, 50, 50]
    kept = (run.voxels["status"] == "ok").to_numpy()
    assert run.voxels["status"].tolist() == ["ok", "ok", "constant", "ok", "ok", "ok"]
    x, y = prepared.measured("feature"), prepared.measured("response")
    expected, deviation, squares = np.empty(y.shape), np.empty((150, 5)), np.empty((150, 5))
    for k in (1, 2, 3):
        saved = load_tensors(folder / f"encoder_fold_{k}.pt")
        raw, rows = RawEncoder(run.encoder(fold=k), saved, kept), fold == k
        expected[rows] = raw.predict(x[rows].astype(np.float64))
        # It was standardised by other stimuli than those
        seen = x[~rows]
        assert np.abs(saved["feature_mean"].numpy() - seen.mean(axis=0)).max() < 0.5
        inside = raw.standardised(torch.from_numpy(x[rows]))
        both = jacobian_deviation(run.encoder(fold=k), inside, variant=["l1", "l2"])
        deviation[rows], squares[rows] = both["l1"], both["l2"] ** 2
    scale, mean = y[:, kept].std(axis=0), y[:, kept].mean(axis=0)
    units = (expected[:, kept] - mean) / scale
    np.testing.assert_allclose(run.array("predictions")[:, kept], units, atol=1e-4)
    np.testing.assert_allclose(
        run.voxels["r2"][kept],
        r2_score(y[:, kept], expected[:, kept], multioutput="raw_values"),
        atol=1e-5,
    )
    np.testing.assert_allclose(run.array("deviation")[:, kept], deviation, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(run.voxels["jne"][kept], jne(deviation), rtol=1e-4)
    rms = np.sqrt(squares.mean(axis=0))
    np.testing.assert_allclose(run.voxels["rms_deviation"][kept], rms, rtol=1e-4, atol=1e-6)
    assert run.voxels["nonlinear_z"][kept].notna().all()
    assert set(run.epochs["fold"]) == {1, 2, 3}
    assert np.load(folder / "evidence.npy").shape == (150, 6)
    np.testing.assert_allclose(
        run.predict(x[:4].astype(np.float64))[:, kept],
        np.mean(
            [
                RawEncoder(
                    run.encoder(fold=k), load_tensors(folder / f"encoder_fold_{k}.pt"), kept
                ).predict(x[:4].astype(np.float64))
                for k in (1, 2, 3)
            ],
            axis=0,
        )[:, kept],
    )
    for bad in (None, 0, 4):
        with pytest.raises(InputError, match="fold"):
            run.encoder(fold=bad)


def test_folds_keep_groups_whole(run_train, arrays):
    (folder,) = run_train(*overrides(arrays, "data.groups=film", "data.purge=1"))
    stimuli = Results(folder).stimuli
    assert (stimuli.groupby("film")["fold"].nunique() == 1).all()
    assert stimuli["fold"].nunique() == 3


def test_folds_of_a_column(run_train, arrays):
    (folder,) = run_train(*overrides(arrays, "data.folds=day"))
    run = Results(folder)
    assert run.n_folds == 2
    assert (run.stimuli["day"] == np.array(["", "a", "b"])[run.stimuli["fold"]]).all()


def test_shards_of_folds_are_the_whole(run_train, arrays):
    (whole,) = run_train(*overrides(arrays))
    parts = run_train("-m", *overrides(arrays, "jacobian.shard=2/2,1/2", "sweep=shards"))
    (part,) = {path for path in parts if (path / "voxels.csv").exists()}
    for name in ("voxels.csv", "deviation.npy", "gain.npy", "predictions.npy", "encoder_fold_2.pt"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


def test_pure_noise_is_not_predicted(run_train, arrays, tmp_path):
    """Nor what is nonlinear in it found, by what other folds have seen of a fold's responses."""
    rng = np.random.default_rng(1)
    for name in ("x.npy", "s.csv"):
        (tmp_path / name).write_bytes((arrays / name).read_bytes())
    np.save(tmp_path / "y.npy", rng.standard_normal((150, 200)).astype(np.float32))
    (folder,) = run_train(*overrides(tmp_path))
    voxels = Results(folder).voxels
    assert voxels["r2"].mean() < 0
    assert (voxels["nonlinear_p"] < 0.05).mean() < 0.1
    assert json.loads((folder / "summary.json").read_text())["metrics"]["r2/mean"] < 0


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("jacobian.trajectory=3", r"jacobian\.trajectory"),
        ("tracking.log_model=true", r"tracking\.log_model"),
    ],
)
def test_what_is_of_one_encoder_is_refused(run_train, arrays, override, key):
    with pytest.raises(SystemExit, match=rf"{key}=.*set data\.folds=1"):
        run_train(*overrides(arrays, override))
