"""train.py end to end, on a cohort that trains in a second."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers import ROOT, TINY, TINY_COHORT, only_run
from mlflow import MlflowClient
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from jne import jacobian_deviation, jne
from jne.data.prepared import load
from jne.errors import InputError
from jne.results import Results


@pytest.fixture(scope="module")
def finished(finished_run):
    """The folder of a run."""
    return only_run(finished_run)


def test_the_record_is_what_the_saved_encoder_gives(finished, store):
    """Every table and array, computed again from the saved weights and the prepared data."""
    results = Results(finished)
    prepared = load(Path(results.status["prepared"]))
    saved = torch.load(finished / "encoder.pt", weights_only=True)
    test = prepared.rows("test")
    x = (torch.tensor(prepared.features[test]) - saved["feature_mean"]) / saved["feature_scale"]
    y = (torch.tensor(prepared.responses[test]) - saved["response_mean"]) / saved["response_scale"]
    encoder = results.encoder()
    with torch.no_grad():
        yhat = encoder(x)
    np.testing.assert_allclose(results.array("predictions"), yhat, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        results.voxels["r2"],
        r2_score(y.numpy(), yhat.numpy(), multioutput="raw_values"),
        rtol=1e-4,
        atol=1e-5,
    )
    s = jacobian_deviation(encoder, x)
    np.testing.assert_allclose(results.array("deviation"), s, rtol=1e-5)
    np.testing.assert_allclose(results.voxels["jne"], jne(s), rtol=1e-3)
    np.testing.assert_allclose(
        results.array("jne_ss").mean(axis=0), results.voxels["jne"] ** 2, rtol=1e-4
    )
    assert results.stimuli["stimulus"].tolist() == prepared.stimuli["stimulus"][test].tolist()
    assert results.summary["metrics"]["jne/V1"] == pytest.approx(
        results.voxels.query("roi == 'V1'")["jne"].mean()
    )

    run = MlflowClient(store).get_run(results.status["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    for name, value in results.summary["metrics"].items():
        assert run.data.metrics[name] == pytest.approx(value, rel=1e-3), name
    assert run.data.params["subject"] == "subj01"
    assert run.data.params["activation"] == "relu"
    curve = MlflowClient(store).get_metric_history(run.info.run_id, "val/loss")
    assert [point.step for point in curve] == list(results.epochs["epoch"]) == [*range(1, 7)]
    client = MlflowClient(store)
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "figures")}
    names = ("overview", "training", "r2", "jne_by_roi", "jne_ss")
    assert logged == {f"figures/{name}.png" for name in names}


@pytest.mark.runs
def test_the_weights_kept_are_the_best_epochs(run_train):
    (folder,) = run_train(
        "readout=trained", "trainer.max_epochs=60", "trainer.patience=8", "optimizer.lr=3e-3"
    )
    results = Results(folder)
    losses = results.epochs["val/loss"]
    best = results.summary["metrics"]["train/best_epoch"]
    assert losses.idxmin() + 1 == best
    assert len(losses) == best + 8  # patience
    prepared = load(Path(results.status["prepared"]))
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    val = prepared.rows("val")
    x = (torch.tensor(prepared.features[val]) - saved["feature_mean"]) / saved["feature_scale"]
    y = (torch.tensor(prepared.responses[val]) - saved["response_mean"]) / saved["response_scale"]
    with torch.no_grad():
        loss = torch.nn.functional.mse_loss(results.encoder()(x), y)
    assert loss == pytest.approx(losses.min(), rel=1e-5)


@pytest.mark.runs
def test_the_same_seed_gives_the_same_bytes(finished, run_train):
    (again,) = run_train("trainer.max_epochs=6", figures=True)
    left_out = ("status.json", "train.log", "config.yaml")  # times, and where it is written
    for path in sorted(finished.rglob("*")):
        if path.is_file() and path.name not in left_out:
            assert path.read_bytes() == (again / path.relative_to(finished)).read_bytes(), path.name


@pytest.mark.runs
def test_constant_and_missing_voxels_are_kept_as_nan(run_train, tmp_path):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((60, 6))
    y[:, 1], y[:, 4] = 2.5, np.nan
    np.save(tmp_path / "x.npy", rng.standard_normal((60, 5)))
    np.save(tmp_path / "y.npy", y)
    arrays = (f"data.root={tmp_path}", "data.features=x.npy", "data.responses=y.npy")
    (folder,) = run_train("data=arrays", *arrays)
    results = Results(folder)
    assert results.summary["voxels"] == {
        "all": 6,
        "scored": 4,
        "measured": 4,
        "constant": 1,
        "missing": 1,
    }
    assert results.voxels["status"].tolist() == ["ok", "constant", "ok", "ok", "missing", "ok"]
    left_out = np.isnan(results.array("deviation")).all(axis=0)
    assert left_out.tolist() == [False, True, False, False, True, False]
    assert results.voxels["r2"].isna().tolist() == left_out.tolist()


@pytest.mark.slow
def test_a_resumed_run_ends_like_an_uninterrupted_one(run_train, tmp_path):
    """Stopped after 3 of 6 epochs and continued: the same curves, weights and JNE, bit for bit."""
    (whole,) = run_train("trainer.max_epochs=6")
    from jne.fitting.callbacks import LastCheckpoint

    saved = tmp_path / "kept.ckpt"
    original = LastCheckpoint.on_train_epoch_end

    def keep(self, trainer, module):
        original(self, trainer, module)
        trainer.save_checkpoint(saved)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", keep)
        (half,) = set(run_train("trainer.max_epochs=3")) - {whole}
    (resumed,) = set(run_train("trainer.max_epochs=6", f"checkpoint={saved}")) - {whole, half}
    for name in ("epochs.csv", "voxels.csv", "deviation.npy"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


# --- failures: one sentence, and a status that is true ------------------------------------------


@pytest.mark.runs
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.max_epoch=3"], r"trainer.max_epoch: there is no such key; .* max_epochs\?"),
        (["encodr.bias=false"], r"encodr: there is no such key; did you mean encoder\?"),
        (["+trainer.max_epoch=3"], r"trainer.max_epoch: there is no such key; .* max_epochs\?"),
        (["+data.n_trian=3"], r"data.n_trian: there is no such key; did you mean n_train\?"),
        (["+data.extra=3"], "data.extra: there is no such key$"),
        (["activation=relu,gelu"], r"activation=relu,gelu: there are several values; -m makes a"),
        (["trainer.patience=0"], "trainer.patience=0: input should be greater than"),
        (["seed=-1"], "seed=-1: input should be greater than"),
        (["data.noise_ceiling=2"], "data.noise_ceiling=2"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["+optimizer.rate=1"], "optimizer: .*rate"),
        (["encoder.n_hidden=0"], "encoder.n_hidden=0: must be at least 1"),
        (["encoder.activation=sine"], "encoder.activation=sine: choose one of"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: input should be a number"),
        (["optimizer.weight_decay=true"], "optimizer.weight_decay=true: input should be a number"),
        (["activation=rleu"], r"activation=rleu: there is no such choice; .* relu\? \(gelu, relu"),
        (["encoder=cubic"], r"encoder=cubic: there is no such choice \(ridge, kernel, linear, "),
        (["control=shufle"], r"control=shufle: there is no such choice; did you mean shuffle\?"),
        (["tracking.uri=./mlruns"], "tracking.uri=./mlruns: .*use sqlite"),
        (["jacobian.voxels=[V1,V9]"], "jacobian.voxels: unknown ROI 'V9'; this data has V1, V2"),
        (["jacobian.trajectory=[V9]"], "jacobian.trajectory: unknown ROI 'V9'; this data has V1"),
        (["jacobian.trajectory=0"], "jacobian.trajectory=0: input should be a number of voxels"),
        (["jacobian.trajectory=[V1,3]"], "jacobian.trajectory=.*: input should be a number of"),
        (["checkpoint=nowhere.ckpt"], "no such file: nowhere.ckpt"),
    ],
)
def test_bad_config_is_one_sentence(run_train, tmp_path, capsys, overrides, message):
    with pytest.raises(SystemExit) as stopped:
        run_train(*overrides)
    assert "\n" not in str(stopped.value)
    assert "search path" not in str(stopped.value)
    assert "Error executing" not in capsys.readouterr().err
    assert pd.Series([str(stopped.value)]).str.contains(message).all(), stopped.value
    for status in tmp_path.glob("runs/*/status.json"):
        assert json.loads(status.read_text())["status"] == "FAILED"
    assert not list(tmp_path.rglob("*.tmp"))


def test_bad_config_leaves_no_folder_and_no_data(run_train, tmp_path):
    with pytest.raises(SystemExit):
        run_train("trainer.patience=0")
    assert not list(tmp_path.rglob("*"))


def test_a_failed_run_says_so_everywhere(run_train, tmp_path, store):
    with pytest.raises(SystemExit, match="unknown ROI"):
        run_train("jacobian.voxels=[V9]")
    (folder,) = (tmp_path / "runs").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "FAILED"
    assert "unknown ROI" in status["error"]
    run = MlflowClient(store).get_run(status["mlflow_run_id"])
    assert run.info.status == "FAILED"
    assert "unknown ROI" in run.data.tags["error"]
    with pytest.raises(Exception, match="FAILED, not FINISHED"):
        Results(folder)


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["draw_run", "summarise"])
def test_a_failure_in_the_last_steps_is_a_failure(run_train, tmp_path, store, monkeypatch, stage):
    import jne.training.figures
    import jne.training.run

    def fail(*_, **__):
        raise OSError("no space left on device")

    target = jne.training.figures if stage == "draw_run" else jne.training.run
    monkeypatch.setattr(target, stage, fail)
    with pytest.raises(OSError, match="no space left"):
        run_train(figures=True)
    (folder,) = (tmp_path / "runs").iterdir()
    status = json.loads((folder / "status.json").read_text())
    assert status["status"] == "FAILED"
    assert MlflowClient(store).get_run(status["mlflow_run_id"]).info.status == "FAILED"


@pytest.mark.runs
def test_a_damaged_or_foreign_checkpoint_is_refused(run_train, tmp_path):
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(SystemExit, match="not a readable file of weights"):
        run_train(f"checkpoint={damaged}")
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {"encoder.readout.weight": torch.zeros(2, 2)}}, foreign)
    with pytest.raises(SystemExit, match="holds another encoder"):
        run_train(f"checkpoint={foreign}")


def test_an_output_that_cannot_be_written(run_train, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match="output: cannot write to"):
        run_train(f"output={tmp_path / 'file' / 'below'}")


@pytest.mark.slow  # a process of its own: ten seconds of imports
def test_sigterm_is_recorded_and_does_not_exit_zero(tmp_path, store):
    command = [sys.executable, "train.py", f"output={tmp_path}", f"tracking.uri={store}"]
    command += [*TINY_COHORT, *TINY, "trainer.max_epochs=100000", "trainer.patience=100000"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    status = {}
    while not status.get("prepared") and time.monotonic() < deadline:
        time.sleep(0.2)
        for path in tmp_path.glob("runs/*/status.json"):
            status = json.loads(path.read_text())
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 143, output
    assert json.loads(path.read_text())["status"] == "KILLED"
    run = MlflowClient(store).get_run(status["mlflow_run_id"])
    assert run.info.status == "KILLED"


# --- the truth --------------------------------------------------------------------------


@pytest.mark.runs
def test_what_is_odd_about_the_rows_is_said_once_and_kept(run_train, tmp_path, capsys):
    """Rows in the order of a recording, split at random."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6))
    for i in range(1, 200):
        x[i] += 2 * x[i - 1] / 2.2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", x[:, :3] + rng.standard_normal((200, 3)))
    arrays = (f"data.root={tmp_path}", "data.features=x.npy", "data.responses=y.npy")
    (folder,) = run_train("data=arrays", *arrays, "baseline=[]")
    (sentence,) = json.loads((folder / "summary.json").read_text())["data_warnings"]
    assert sentence.startswith("stimuli resemble the one before")
    assert " ".join(capsys.readouterr().out.split()).count(sentence) == 1


def test_a_run_of_rows_that_are_not_odd_has_no_such_key(finished):
    assert set(Results(finished).summary) == {"metrics", "voxels"}


@pytest.mark.slow
def test_jne_follows_the_planted_nonlinearity(run_train):
    """The default cohort and encoder: Spearman r of alpha and JNE over voxels at least 0.9."""
    defaults = yaml.safe_load((Path(ROOT) / "conf/data/synthetic.yaml").read_text())
    sizes = ("n_features", "n_train", "n_val", "n_test", "voxels_per_roi")
    restored = [f"data.{key}={defaults[key]}" for key in sizes]
    (folder,) = run_train(*restored, "encoder.hidden_width=1024", "trainer.max_epochs=512")
    voxels = Results(folder).voxels
    assert spearmanr(voxels["alpha"], voxels["jne"])[0] > 0.9
    by_roi = voxels.groupby("roi")["jne"].mean()
    assert by_roi["V1"] < by_roi[["V2", "V3", "V4"]].mean() < by_roi[["FFA-1", "FFA-2"]].mean()


def test_sqlite_is_whole(store):
    path = store.removeprefix("sqlite:///")
    assert sqlite3.connect(path).execute("pragma integrity_check").fetchone() == ("ok",)


class TwoLayers(torch.nn.Sequential):
    """An encoder of the user's own."""

    def __init__(self, n_features, n_voxels, width):
        super().__init__(
            torch.nn.Linear(n_features, width), torch.nn.Tanh(), torch.nn.Linear(width, n_voxels)
        )


@pytest.mark.runs
def test_an_encoder_of_ones_own(run_train):
    """Against its own closed form: J = W2 diag(1 - tanh^2(a)) W1."""
    own = "{_target_: tests.training.test_train.TwoLayers, label: mine, width: 16}"
    (folder,) = run_train("~encoder", f"+encoder={own}", "trainer.max_epochs=2")
    results = Results(folder)
    prepared = load(Path(results.status["prepared"]))
    saved = torch.load(folder / "encoder.pt", weights_only=True)
    x = torch.tensor(prepared.features[prepared.rows("test")])
    x = (x - saved["feature_mean"]) / saved["feature_scale"]
    with pytest.raises(InputError, match=r"names 'tests.training.test_train.TwoLayers'.*trust="):
        results.encoder()
    first, _, second = results.encoder(trust=["tests."])
    with torch.no_grad():
        slopes = 1 - torch.tanh(first(x)) ** 2
        jacobians = second.weight @ (slopes[:, :, None] * first.weight)
        difference = jacobians - jacobians.mean(dim=0)
    deviation, rms = results.array("deviation"), results.voxels["rms_deviation"]
    np.testing.assert_allclose(deviation, difference.abs().sum(dim=2), rtol=1e-3)
    expected = difference.square().sum(dim=2).mean(dim=0).sqrt()
    np.testing.assert_allclose(rms, expected, rtol=1e-3)
    assert folder.name.endswith("subj01_mine_s0")


def test_chosen_voxels_and_variants_are_measured(run_train):
    (folder,) = run_train(
        "jacobian.voxels=[V1,FFA-2]", "jacobian.variants=[l1,l2,zscore_l1,zscore_l2]"
    )
    results = Results(folder)
    measured = results.voxels["jne"].notna()
    assert measured.tolist() == results.voxels["roi"].isin(["V1", "FFA-2"]).tolist()
    assert measured.sum() == 6
    for variant in ("l2", "zscore_l1", "zscore_l2"):
        np.testing.assert_allclose(
            results.voxels[f"jne_{variant}"], jne(results.array(f"deviation_{variant}")), rtol=1e-6
        )


@pytest.mark.runs
def test_without_jne_a_run_has_the_rms_deviation_of_one_with_it(run_train):
    (whole,) = run_train()
    (folder,) = set(run_train("jacobian.voxels=none", figures=True)) - {whole}
    found, expected = Results(folder), Results(whole)
    of_jacobians = ("jne", "mean_deviation", "gain_change", "shape_change", "jne_ss_p95")
    for name in expected.voxels:
        if name in of_jacobians or name.startswith("jne_calibrated"):
            assert found.voxels[name].isna().all()
        else:
            pd.testing.assert_series_equal(found.voxels[name], expected.voxels[name])
    assert found.voxels["rms_deviation"].notna().all()
    assert list(found.voxels) == list(expected.voxels)
    absent = {f"{name}.npy" for name in ("deviation", "gain", "jne_ss")}
    files = [{path.name for path in of_run.iterdir()} for of_run in (whole, folder)]
    assert files[0] - files[1] - {"train.log"} == absent
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        "training", "r2", "rms_deviation_by_roi",
    }  # fmt: skip
    with pytest.raises(InputError, match="there is no such array, but features"):
        found.array("jne_ss")


@pytest.mark.slow
def test_significant_voxels_alone_are_measured(run_train):
    (folder,) = run_train(
        "jacobian.voxels=significant",
        "data.n_train=1000",
        "data.n_test=60",
        "trainer.max_epochs=40",
        "optimizer.lr=3e-3",
    )
    voxels = Results(folder).voxels
    assert voxels["jne"].notna().tolist() == (voxels["p_fdr"] < 0.05).tolist()
    assert 0 < voxels["jne"].count() < len(voxels)
