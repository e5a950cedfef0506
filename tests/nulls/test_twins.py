"""Linear twins against their definition, and `python train.py control=twins` end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import TINY, TINY_COHORT, contents, no_figures, only_run, run_quietly, small_cells
from mlflow import MlflowClient
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from jne import jacobian_deviation, jne
from jne.analysis.inference import knockoff_q, knockoff_w
from jne.data.datamodule import EncodingData
from jne.data.folds import cross_validation
from jne.data.prepared import prepare
from jne.fitting.baseline import baseline_columns
from jne.nulls.config import ControlConfig
from jne.nulls.twins import TwinParts, _order
from jne.results import Results
from jne.results.contents import twin_q
from jne.stages import Stages


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    source = small_cells(noise="correlated", shared_noise=0.6)
    return prepare(source, tmp_path_factory.mktemp("cells"))


@pytest.fixture
def data(prepared):
    return EncodingData(prepared, batch_size=None, seed=0)


def twins_of(data, path, seed=0, **control):
    control = ControlConfig(kind="twins", **control)
    return TwinParts(data, control, seed, Stages(path)).twins()


def raw(data, twins):
    """Before they were standardised, in the units of the data."""
    units = data.with_twins(twins)
    mean, scale = units.response_mean[data.n_trained :], units.response_scale[data.n_trained :]
    return twins.responses * scale.numpy() + mean.numpy()


def test_a_twin_is_its_definition(data, tmp_path):
    """By scikit-learn: scaled prediction plus permuted residuals, as predictable as the voxel."""
    twins = twins_of(data, tmp_path)
    x, y = data.features.double().numpy(), data.responses[:].double().numpy()
    rows, test = np.r_[data.rows["train"], data.rows["val"]], data.rows["test"]
    penalty = baseline_columns(["ridge"], data, Stages(tmp_path))["ridge_penalty"]
    folds = cross_validation(data)
    x = x - x[rows].mean(axis=0)

    def left_out(values, alpha):
        """Out-of-fold residuals of the training and validation stimuli."""
        errors = np.empty(len(rows))
        for outside, inside in folds:
            ridge = Ridge(alpha=alpha, fit_intercept=False)
            ridge.fit(x[rows[outside]], values[rows[outside]])
            errors[inside] = values[rows[inside]] - ridge.predict(x[rows[inside]])
        return errors

    order = _order(rows, test, [0, 0])
    assert sorted(order[: len(rows)]) == sorted(rows)
    assert sorted(order[len(rows) :]) == sorted(test)
    receivers = np.r_[rows, test]
    assert (order != receivers).mean() > 0.9
    scaled = 0
    for v, alpha in enumerate(penalty):
        real = y[:, v] - y[rows, v].mean()
        ridge = Ridge(alpha=alpha, fit_intercept=False).fit(x[rows], real[rows])
        fitted = ridge.predict(x)
        residuals = real - fitted
        residuals[rows] = left_out(real, alpha)
        noise = np.empty_like(real)
        noise[receivers] = residuals[order]
        unit = data.response_scale[v].item()
        twin = (raw(data, twins)[:, v] - data.response_mean[v].item()) / unit - y[rows, v].mean()
        c = fitted @ (twin - noise) / (fitted @ fitted)
        np.testing.assert_allclose(twin, c * fitted + noise, atol=1e-3)
        if abs(c - 1) > 1e-4:  # else there is no linear signal to be scaled
            scaled += 1
            assert 0.5 < c < 2
            shares = [
                np.square(left_out(z, alpha)).sum() / np.square(z[rows]).sum() for z in (twin, real)
            ]
            assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    assert scaled > 6
    train = twins.responses[data.rows["train"]]
    np.testing.assert_allclose(train.mean(axis=0), np.zeros(12), atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), np.ones(12), atol=1e-5)


def test_twins_depend_on_the_seed_alone(data, tmp_path, monkeypatch):
    first = twins_of(data, tmp_path, draws=2).responses
    for name, value in (("nulls.twins._VOXELS_AT_ONCE", 5), ("data.responses._IN_MEMORY", 0)):
        monkeypatch.setattr(f"jne.{name}", value)
    data = EncodingData(data.prepared, batch_size=None, seed=0)
    again = twins_of(data, tmp_path / "again", draws=2)
    np.testing.assert_allclose(again.responses, first, atol=1e-4)
    assert not np.allclose(first[:, :12], first[:, 12:], atol=0.1)  # another draw
    assert not np.allclose(twins_of(data, tmp_path, seed=1).responses, first[:, :12], atol=0.1)


def test_a_share_of_the_voxels_gets_the_same_twins(data, tmp_path):
    everyone = twins_of(data, tmp_path).responses
    some = twins_of(data, tmp_path, share=0.5)
    assert len(some.voxels) == len(set(some.voxels)) == 6
    np.testing.assert_allclose(some.responses, everyone[:, some.voxels], atol=1e-4)
    spread = some.per_draw(np.arange(6), 12)
    np.testing.assert_array_equal(spread[0, some.voxels], np.arange(6))
    assert np.isnan(spread).sum() == 6


def test_twins_follow_the_voxels_in_every_batch_and_block(data, tmp_path):
    real = data.responses[:]
    twins = twins_of(data, tmp_path, draws=2)
    data = data.with_twins(twins)
    both = torch.cat([real, torch.from_numpy(np.array(twins.responses))], dim=1)
    assert data.responses.shape == both.shape == (125, 36)
    assert (data.n_trained, data.n_outputs) == (12, 36)
    torch.testing.assert_close(data.split("val")[1], both[data.rows["val"]])
    rows = np.array([3, 1, 7])
    for block in (slice(0, 5), slice(8, 20), slice(14, 36), slice(0, 36)):
        torch.testing.assert_close(data.responses.block(rows, block), both[rows, block])
    (batch,) = data.val_dataloader()
    torch.testing.assert_close(batch.responses, both[data.rows["val"]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store, finished_run):
    """The folders of a plain run, and of one with two draws of twins."""
    output, plain = tmp_path_factory.mktemp("runs"), only_run(finished_run)
    with no_figures():
        twins = ("control=twins", "control.draws=2")
        (control,) = run_quietly(output, store, "train.py", *TINY_COHORT, *TINY, *twins)
    return plain, control


@pytest.mark.runs
def test_the_results_of_a_run_with_twins(runs, store):
    plain, control = map(Results, runs)
    voxels = control.voxels
    assert len(voxels) == len(plain.voxels)
    encoder = control.encoder()
    x = torch.tensor(np.array(control.array("features")))
    deviation = jacobian_deviation(encoder, x)
    assert deviation.shape == (20, 90)  # 30 voxels and two draws
    np.testing.assert_allclose(control.array("deviation"), deviation[:, :30], rtol=1e-5)
    expected = jne(deviation).reshape(3, 30)
    np.testing.assert_allclose(voxels["jne"], expected[0], rtol=1e-5)
    np.testing.assert_allclose(voxels["jne_twin"], expected[1:].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(voxels["jne_twin_2"], expected[2], rtol=1e-5)
    np.testing.assert_allclose(voxels["w"], voxels["jne"] - voxels["jne_twin"], atol=1e-12)
    q = knockoff_q(knockoff_w(expected[0], expected[1:]), n_twins=2)
    np.testing.assert_allclose(twin_q(voxels), q)
    assert control.summary["metrics"]["w/positive_share"] == (voxels["w"] > 0).mean()
    assert "jne_twin" not in plain.voxels
    assert not list(control.path.glob("*twins*"))
    y = control.array("responses")
    with torch.no_grad():
        r2 = r2_score(y, encoder(x)[:, :30], multioutput="raw_values")
    np.testing.assert_allclose(voxels["r2"], r2, rtol=1e-4, atol=1e-5)
    run = MlflowClient(store).get_run(control.status["mlflow_run_id"])
    assert run.data.params["control"] == "twins"
    assert run.data.metrics["w/mean"] == pytest.approx(voxels["w"].mean(), rel=1e-3)


def test_with_one_twin_q_is_that_of_w(run_train):
    (folder,) = run_train("control=twins", "control.share=0.5", "jacobian.voxels=[V1,V2]")
    (again,) = set(run_train("control=twins", "control.share=0.5", "jacobian.voxels=[V1,V2]")) - {
        folder
    }
    assert contents(folder) == contents(again)
    voxels = Results(folder).voxels
    np.testing.assert_array_equal(twin_q(voxels), knockoff_q(voxels["w"].to_numpy()))
    regions = pd.read_csv(folder / "rois.csv").set_index("roi")
    w = voxels.set_index("roi")["w"]
    assert regions.loc["all", "nonlinear"] == (knockoff_q(w.to_numpy()) <= 0.1).sum() / w.count()
    of_v1 = w["V1"].to_numpy()
    found = (knockoff_q(of_v1) <= 0.1).sum() / np.isfinite(of_v1).sum()
    assert regions.loc["V1", "nonlinear"] == found
    assert regions.loc["V4", "nonlinear"] == 0  # without a JNE
    assert voxels["r2_twin"].notna().sum() == 15
    asked_for = voxels["roi"].isin(["V1", "V2"])
    assert (voxels["jne"].notna() == asked_for).all()
    assert (voxels["w"].notna() == asked_for & voxels["r2_twin"].notna()).all()
    assert Results(folder).encoder()(torch.zeros(1, 64)).shape == (1, 45)


@pytest.mark.runs
@pytest.mark.parametrize("encoder", ["linear", "ridge"])
def test_the_w_of_a_linear_encoder_is_0(run_script, encoder):
    epochs = "trainer.max_epochs=1"
    (folder,) = run_script("train.py", *TINY_COHORT, "control=twins", f"encoder={encoder}", epochs)
    run = Results(folder)
    assert not run.voxels["w"].any()
    assert run.summary["metrics"]["w/nonlinear_at_q10"] == 0
