"""An external test set: a trained encoder on NSD-synthetic, against a plain computation."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_run import evaluate_config, write_run
from helpers import ROOT, no_figures, run_quietly

sys.path.insert(0, str(Path(ROOT) / "tests" / "data"))
from data_sources import overrides
from nsd_synthetic_tree import INVALID, N_IMAGES, write_nsd_synthetic
from nsd_tree import N_IMAGES as N_NSD
from nsd_tree import write_nsd

from jne.data.prepared import load
from jne.errors import InputError
from jne.evaluation.external_test import external_test
from jne.evaluation.sections.out_of_distribution import OutOfDistribution
from jne.results import Results

DIM = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory, store):
    """A small NSD tree with NSD-synthetic, an encoder trained on it, and features of both."""
    folder = tmp_path_factory.mktemp("ood")
    root, features = write_nsd_synthetic(write_nsd(folder / "nsd")), folder / "features.npy"
    rng = np.random.default_rng(3)
    np.save(features, rng.standard_normal((N_NSD, DIM), dtype=np.float32))
    np.save(folder / "ids.npy", np.arange(N_NSD))
    np.save(folder / "synthetic.npy", rng.standard_normal((N_IMAGES, DIM), dtype=np.float32))
    chosen = overrides(root, features, "data.voxels=brainmask")
    training = ("encoder.hidden_width=8", "trainer.max_epochs=3", "stats.n_bootstrap=20")
    with no_figures():
        (run,) = run_quietly(folder / "out", store, "train.py", *chosen, *training)
    return folder, run


def test_overrides(folder, *more):
    features = ("features=precomputed", f"features.path={folder / 'synthetic.npy'}")
    return ("test=nsd_synthetic", f"test.root={folder / 'nsd'}", *features, *more)


test_overrides.__test__ = False


@pytest.mark.runs
def test_scores_and_jne_are_those_of_the_stored_encoder(trained):
    folder, path = trained
    run = Results(path)
    config = evaluate_config(folder / "report", *test_overrides(folder))
    columns = external_test(run, config, lambda _: None).columns
    (prepared,) = (folder / "report" / "prepared").glob("nsd_synthetic*")
    second, voxels = load(prepared), run.voxels
    assert list(second.voxels["voxel"]) == list(voxels["voxel"])
    ok = np.flatnonzero(voxels["status"] == "ok")
    saved = torch.load(path / "encoder.pt", weights_only=True)
    x = (np.load(folder / "synthetic.npy") - saved["feature_mean"].numpy()) / saved[
        "feature_scale"
    ].numpy()
    encoder = run.encoder()
    y = (second.responses[:, ok] - saved["response_mean"].numpy()) / saved["response_scale"].numpy()
    with torch.no_grad():
        predicted = encoder(torch.tensor(x, dtype=torch.float32)).numpy()
    jacobian = (
        torch.func.vmap(torch.func.jacrev(lambda one: encoder(one[None])[0]))(
            torch.tensor(x, dtype=torch.float32)
        )
        .detach()
        .numpy()
    )  # (N, V', D)
    deviation = np.abs(jacobian - jacobian.mean(axis=0)).sum(axis=2)
    for column, voxel in enumerate(ok):
        target, fitted = y[:, column], predicted[:, column]
        if not np.isfinite(target).all():
            assert np.isnan(columns["r2_ood"][voxel])
        else:
            r2 = 1 - np.mean((target - fitted) ** 2) / target.var()
            assert columns["r2_ood"][voxel] == pytest.approx(r2, abs=1e-4)
            r = np.corrcoef(target, fitted)[0, 1]
            assert columns["r_ood"][voxel] == pytest.approx(r, abs=1e-4)
        assert columns["jne_ood"][voxel] == pytest.approx(deviation[:, column].std(), rel=1e-3)
        assert columns["mean_deviation_ood"][voxel] == pytest.approx(
            deviation[:, column].mean(), rel=1e-3
        )
    left_out = np.setdiff1d(np.arange(len(voxels)), ok)
    assert len(left_out)
    assert np.isnan(columns["jne_ood"][left_out]).all()
    invalid = (voxels[["i", "j", "k"]] == list(INVALID)).all(axis=1).to_numpy()
    assert np.isnan(columns["r2_ood"][invalid]).all()


@pytest.mark.runs
def test_the_report_shows_both_sets_side_by_side(trained, store):
    folder, path = trained
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jne.evaluation.sections.SECTIONS", (OutOfDistribution(),))
        (report,) = run_quietly(
            folder / "out", store, "evaluate.py", f"runs={path}", "voxels=all", "variants=[l1]",
            "selectivity.n_permutations=99", "stats.n_bootstrap=20", *test_overrides(folder),
        )  # fmt: skip
    table = pd.read_csv(report / "tables" / "out_of_distribution.csv")
    voxels = pd.read_csv(report / "tables" / "voxels.csv")
    whole = table[table["roi"] == "all"].iloc[0]
    assert whole["r2_ood"] == pytest.approx(voxels.loc[voxels["analysed"], "r2_ood"].mean())
    both = voxels.loc[voxels["analysed"], ["jne", "jne_ood"]].dropna()
    assert whole["r_jne"] == pytest.approx(np.corrcoef(both.T)[0, 1])
    assert whole["rho_jne"] == pytest.approx(both.corr("spearman").iloc[0, 1])
    kinds = pd.read_csv(report / "tables" / "out_of_distribution_by_kind.csv")
    kinds = kinds[kinds["roi"] == "all"].set_index("kind")
    (prepared,) = (folder / "out" / "prepared").glob("nsd_synthetic*")
    expected = load(prepared).stimuli["category"].value_counts().to_dict()
    expected |= {"in distribution": len(Results(path).stimuli), "out of distribution": N_IMAGES}
    assert kinds["n_stimuli"].to_dict() == {k: n for k, n in expected.items() if n >= 3}
    assert len(kinds) > 3
    assert kinds["r"]["out of distribution"] == pytest.approx(whole["r_ood"], abs=1e-5)
    assert kinds["jne"]["out of distribution"] == pytest.approx(whole["jne_ood"], rel=1e-4)
    assert kinds["jne"]["in distribution"] == pytest.approx(whole["jne"], rel=1e-4)
    assert (kinds["r_low"] <= kinds["r_high"]).all()
    page = (report / "report.html").read_text()
    assert "Out of distribution by kind" in page
    assert (report / "figures" / "subj01_out_of_distribution.png").exists()
    assert (report / "figures" / "subj01_out_of_distribution_by_kind.png").exists()
    metrics = json.loads((report / "summary.json").read_text())["metrics"]
    assert metrics["ood_r_jne/subj01"] == pytest.approx(whole["r_jne"])
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(run, folder, *more):
    chosen = more if "features=clip_vit_b32" in more else test_overrides(folder, *more)
    config = evaluate_config(folder / "report", *chosen)
    with pytest.raises(InputError) as error:
        external_test(run, config, lambda _: None)
    return str(error.value)


@pytest.mark.runs
def test_what_is_refused(trained, tmp_path):
    folder, path = trained
    run = Results(path)
    other = write_run(tmp_path / "run")
    expected = "to which this external test set does not belong; choose runs on other data"
    assert expected in refused(other, folder)
    root = ("test=nsd_synthetic", f"test.root={folder / 'nsd'}")
    sentence = refused(run, folder, *root, "features=clip_vit_b32")
    assert sentence.startswith("features=clip_vit_b32: the encoder of subj01 in ")
    assert sentence.endswith("was trained on precomputed; choose these")
    sentence = refused(run, folder, "features.layer=3")
    assert sentence.startswith("features.layer=3: the encoder of subj01 in ")
    assert sentence.endswith("was trained on features.layer=None")
    sentence = refused(run, folder, f"test.root={tmp_path}")
    assert sentence.startswith(f"test.root={tmp_path}: no NSD-synthetic of subj01")
    np.save(tmp_path / "wide.npy", np.zeros((N_IMAGES, DIM + 1), dtype=np.float32))
    sentence = refused(run, folder, f"features.path={tmp_path / 'wide.npy'}")
    assert "6 features of the external test set, but the encoder in" in sentence
    run.config["data"]["feature_zscore"] = "run"
    assert "train with data.feature_zscore=train" in refused(run, folder)
