"""An NSD tree against a slow, plain reading of the same files."""

import os
import signal
import subprocess
import sys

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from data_sources import overrides, source
from helpers import ROOT
from nsd_tree import (
    AFFINE,
    BETAS,
    CONSTANT,
    CONSTANT_RUN,
    GRID,
    INVALID_IN_2,
    N_FSAVERAGE,
    SATURATED,
    SESSIONS,
    SUBJECT,
    behaviour,
    write_algonauts,
    write_nsd,
    write_surface,
)
from sklearn.model_selection import train_test_split

from jne.analysis.repeats import repeats_of
from jne.data import regions
from jne.data.nsd.labels import label_names
from jne.data.prepared import prepare

TRAINING = ("encoder.hidden_width=8", "trainer.max_epochs=2", "stats.n_bootstrap=20")


def volume(root, session) -> np.ndarray:
    """(X, Y, Z, n_trials) percent signal change."""
    folder = root / "nsddata_betas" / "ppdata" / SUBJECT / "func1pt8mm" / BETAS
    with h5py.File(folder / f"betas_session{session:02d}.hdf5") as file:
        return file["betas"][()].T / 300


def plain_means(root, voxel, zscore="run"):
    """The mean of a voxel over each image's valid trials, their number, and their values, by id.

    The ids count from 0. One trial at a time.
    """
    table, trials = behaviour(root), {}
    for session in SESSIONS:
        values = volume(root, session)[voxel]
        shown = table[table["SESSION"] == session]
        groups = shown["RUN"].to_numpy() if zscore == "run" else np.zeros(len(shown))
        for t in range(len(values)):
            same = values[groups == groups[t]]
            if same.std() == 0:
                continue
            z = values[t] if zscore == "none" else (values[t] - same.mean()) / same.std()
            trials.setdefault(int(shown["73KID"].iloc[t]) - 1, []).append(z)
    return {image: (np.mean(values), len(values), values) for image, values in trials.items()}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("session", "none")]


@pytest.mark.parametrize("zscore", ["run", *SLOW])
def test_every_value_is_that_of_a_plain_reading(tree, features, tmp_path, zscore):
    settings = ("data.voxels=brainmask", f"data.zscore={zscore}")
    prepared = prepare(source(tmp_path, tree, features, *settings), tmp_path)
    table = behaviour(tree)
    table = table[table["SESSION"].isin(SESSIONS)]
    ids = np.unique(table["73KID"]) - 1
    assert list(prepared.stimuli["stimulus"]) == list(ids)
    np.testing.assert_array_equal(prepared.features, np.load(features)[ids])
    for row, voxel in enumerate(prepared.voxels.itertuples()):
        means = plain_means(tree, (voxel.i, voxel.j, voxel.k), zscore)
        expected = [means[image][0] if image in means else np.nan for image in ids]
        np.testing.assert_allclose(prepared.responses[:, row], expected, rtol=2e-5, atol=2e-5)
    inside = nib.load(tree / "nsddata/ppdata" / SUBJECT / "func1pt8mm/brainmask.nii.gz")
    assert len(prepared.voxels) == (inside.get_fdata() > 0).sum()


def test_shared_images_are_the_test_and_the_rest_is_split_with_the_seed(tree, features, tmp_path):
    prepared = prepare(source(tmp_path, tree, features, "data.n_val=4"), tmp_path)
    stimuli, table = prepared.stimuli, behaviour(tree)
    shared = set(table.loc[table["10KID"] <= 1000, "73KID"] - 1)
    test = stimuli.loc[stimuli["split"] == "test", "stimulus"]
    assert set(test) == shared & set(stimuli["stimulus"])
    others = stimuli.loc[stimuli["split"] != "test", "stimulus"].to_numpy()
    train, val = train_test_split(others, test_size=4, random_state=0)
    assert set(stimuli.loc[stimuli["split"] == "val", "stimulus"]) == set(val)
    assert set(stimuli.loc[stimuli["split"] == "train", "stimulus"]) == set(train)


def test_the_voxel_table_has_positions_regions_and_invalid_sessions(tree, features, tmp_path):
    prepared = prepare(source(tmp_path, tree, features, "data.voxels=brainmask"), tmp_path)
    voxels = prepared.voxels.set_index(["i", "j", "k"])
    roi = tree / "nsddata/ppdata" / SUBJECT / "func1pt8mm/roi"
    visual = nib.load(roi / "prf-visualrois.nii.gz").get_fdata()
    faces = nib.load(roi / "floc-faces.nii.gz").get_fdata()
    kastner = nib.load(roi / "Kastner2015.nii.gz").get_fdata()
    paper = {1: "V1", 2: "V1", 3: "V2", 4: "V2", 5: "V3", 6: "V3", 7: "V4"}
    for position, row in voxels.iterrows():
        if visual[position] > 0:
            assert row["roi"] == paper[visual[position]]
        elif faces[position] in (2, 3):
            assert row["roi"] == f"FFA-{int(faces[position]) - 1}"
        else:
            assert row["roi"] in ("", "PPA", "OPA", "RSC", "EBA")
        expected = {1: "V1v", 2: "V1d", 3: "V2v"}.get(kastner[position], "")
        assert row["Kastner2015"] == expected  # names without the tabs of the colour table
    assert {"prf-visualrois", "floc-faces", "nsdgeneral", "MTL"} <= set(voxels)
    assert "lh.nsdgeneral" not in voxels
    assert voxels.loc[CONSTANT, "n_invalid_sessions"] == len(SESSIONS)
    assert voxels.loc[INVALID_IN_2, "n_invalid_sessions"] == 1
    assert voxels.loc[CONSTANT_RUN, "n_invalid_sessions"] == 0
    invalid_runs = {CONSTANT: 9, INVALID_IN_2: 3, CONSTANT_RUN: 1}
    for position, n in invalid_runs.items():
        assert voxels.loc[position, "n_invalid_runs"] == n
    assert voxels["n_invalid_runs"].sum() == sum(invalid_runs.values())
    assert voxels.loc[SATURATED, "n_saturated_trials"] == 2 * len(SESSIONS)
    assert voxels["n_saturated_trials"].sum() == 2 * len(SESSIONS)
    assert prepared.space["shape"] == list(GRID)
    np.testing.assert_allclose(prepared.space["affine"], AFFINE, rtol=1e-6)  # a float32 header


@pytest.mark.runs
def test_noise_ceilings(tree, features, tmp_path):
    """NSD's formula for images with different numbers of repeats, from its map or computed."""
    given = prepare(source(tmp_path, tree, features, "data.voxels=brainmask"), tmp_path)
    settings = ("data.voxels=brainmask", "data.noise_ceiling=repeats")
    computed = prepare(source(tmp_path, tree, features, *settings), tmp_path)
    betas = tree / "nsddata_betas/ppdata" / SUBJECT / "func1pt8mm" / BETAS
    ncsnr = nib.load(betas / "ncsnr.nii.gz").get_fdata()
    test, n_compared = set(given.stimuli.loc[given.stimuli["split"] == "test", "stimulus"]), 0
    for row, voxel in enumerate(given.voxels.itertuples()):
        position = (voxel.i, voxel.j, voxel.k)
        np.testing.assert_equal(voxel.ncsnr, ncsnr[position])
        means = plain_means(tree, position)
        if not test <= set(means) or np.isnan(ncsnr[position]):
            assert np.isnan(voxel.noise_ceiling)
            continue
        inverse = np.mean([1 / means[image][1] for image in test])
        squared = ncsnr[position] ** 2
        assert voxel.noise_ceiling == pytest.approx(squared / (squared + inverse), rel=1e-6)
        trials = [values for _, _, values in means.values()]
        free = sum(len(values) - 1 for values in trials)
        noise = sum(np.sum((values - np.mean(values)) ** 2) for values in trials) / free
        total = np.var(np.concatenate(trials), ddof=1)
        expected = np.sqrt(max(total - noise, 0) / noise)
        assert computed.voxels["ncsnr"][row] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        if voxel.n_invalid_runs == 0:
            ids = given.stimuli["stimulus"]
            padded = np.full((len(ids), 1, 3), np.nan)
            for number, image in enumerate(ids):
                padded[number, 0, : means[image][1]] = means[image][2]
            expected = repeats_of(padded).noise[:, 0]
            np.testing.assert_allclose(given.repeats.noise[:, row], expected, rtol=1e-3, atol=1e-4)
            n_compared += 1
    assert n_compared > len(given.voxels) / 2


@pytest.mark.runs
@pytest.mark.parametrize("zscore", ["run", *SLOW])
def test_the_noise_ceiling_as_nsd_computes_it(tree, features, tmp_path, zscore):
    """One image at a time: three trials, z-scored within sessions with n - 1."""
    settings = ("data.voxels=brainmask", "data.noise_ceiling=repeats_as_nsd")
    prepared = prepare(
        source(tmp_path, tree, features, *settings, f"data.zscore={zscore}"), tmp_path
    )
    table = behaviour(tree)
    for row, voxel in enumerate(prepared.voxels.itertuples()):
        trials = {}
        for session in SESSIONS:
            values = volume(tree, session)[voxel.i, voxel.j, voxel.k]
            if values.std() == 0:
                continue
            z = (values - values.mean()) / values.std(ddof=1)
            for image, value in zip(
                table.loc[table["SESSION"] == session, "73KID"], z, strict=True
            ):
                trials.setdefault(image, []).append(value)
        variances = [np.var(values, ddof=1) for values in trials.values() if len(values) == 3]
        found = prepared.voxels["ncsnr"][row]
        if not variances:
            assert np.isnan(found)
            continue
        noise = np.mean(variances)
        expected = np.sqrt(max(0, 1 - noise) / noise)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert prepared.voxels["ncsnr"].notna().sum() > 90


@pytest.mark.runs
def test_nifti_and_old_mat_betas_give_the_same_bytes(tree, features, tmp_path):
    first = prepare(source(tmp_path, tree, features), tmp_path / "a")
    for suffix in ("nii.gz", "mat"):
        other = write_nsd(tmp_path / suffix, suffix)
        found = prepare(source(tmp_path, other, features), tmp_path / "b")
        np.testing.assert_array_equal(first.responses, found.responses)


@pytest.mark.runs
def test_regions_choose_voxels(tree, features, tmp_path):
    everything = prepare(source(tmp_path, tree, features, "data.voxels=brainmask"), tmp_path)
    chosen = prepare(source(tmp_path, tree, features, "data.voxels=[V1,floc-faces]"), tmp_path)
    table = everything.voxels
    expected = table[(table["roi"] == "V1") | (table["floc-faces"] != "")]
    assert list(chosen.voxels["voxel"]) == list(expected["voxel"])
    rows = expected.index.to_numpy()
    np.testing.assert_array_equal(chosen.responses, everything.responses[:, rows])


def test_features_standardised_within_runs_as_the_authors_did(tree, features, tmp_path):
    prepared = prepare(source(tmp_path, tree, features, "data.feature_zscore=run"), tmp_path)
    table, array = behaviour(tree), np.load(features).astype(np.float64)
    table = table[table["SESSION"].isin(SESSIONS)]
    collected = {}
    for _, run in table.groupby(["SESSION", "RUN"]):
        values = array[run["73KID"] - 1]
        z = (values - values.mean(0)) / values.std(0)
        for image, row in zip(run["73KID"] - 1, z, strict=True):
            collected.setdefault(image, []).append(row)
    expected = [np.mean(collected[image], axis=0) for image in prepared.stimuli["stimulus"]]
    np.testing.assert_allclose(prepared.features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.runs
def test_surface_betas_are_percent_already_and_may_be_nan(features, tmp_path):
    root = write_surface(tmp_path / "nsd")
    settings = ("data.space=fsaverage", "data.voxels=[nsdgeneral]")
    prepared = prepare(source(tmp_path, root, features, *settings), tmp_path)
    voxels, table = prepared.voxels, behaviour(root)
    assert set(voxels["mesh"]) == {"fsaverage"}, "not fsaverage5, wherever the vertices are"
    assert list(voxels["vertex"]) == [*range(40), *range(N_FSAVERAGE - 5, N_FSAVERAGE)] * 2
    assert list(voxels["hemisphere"]) == ["left"] * 45 + ["right"] * 45
    assert voxels["HCP_MMP1"][1] == "V1"
    assert voxels["HCP_MMP1"][3] == "3"
    betas = root / "nsddata_betas/ppdata" / SUBJECT / "fsaverage" / BETAS
    for row in (0, 11, 14, 60, 89):
        side = voxels["hemisphere"][row][0] + "h"
        collected = {}
        for session in (1, 4):
            path = betas / f"{side}.betas_session{session:02d}.mgh"
            values = nib.load(path).get_fdata()[voxels["vertex"][row], 0, 0]
            shown = table[table["SESSION"] == session]
            for _, run in shown.groupby("RUN"):
                trials = values[shown.index.get_indexer(run.index)]
                z = (trials - trials.mean()) / trials.std()
                for image, value in zip(run["73KID"] - 1, z, strict=True):
                    if np.isfinite(values).all():
                        collected.setdefault(image, []).append(value)
        expected = [np.mean(collected.get(i, [np.nan])) for i in prepared.stimuli["stimulus"]]
        np.testing.assert_allclose(prepared.responses[:, row], expected, rtol=1e-4, atol=1e-5)
        ncsnr = nib.load(betas / f"{side}.ncsnr.mgh").get_fdata()
        assert voxels["ncsnr"][row] == ncsnr[voxels["vertex"][row], 0, 0]
    assert voxels["n_invalid_sessions"].sum() == 4  # two vertices of each hemisphere


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "data")]
from data_sources import source
from jne.cli import register_resolvers
from jne.data.prepared import prepare
register_resolvers()
moment = int(sys.argv[5])
replace, count = os.replace, 0
def dying(*names):
    global count
    count += 1
    if count == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
    if count == -moment:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
out = Path(sys.argv[4])
prepare(source(out, sys.argv[2], Path(sys.argv[3]), sys.argv[6]), out / "prepared")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise_ceiling", "more"), [("ncsnr", ()), ("repeats_as_nsd", (3, -2, 2, -3, 1, -4))]
)
def test_a_kill_at_any_moment_loses_one_session_at_most(
    tree, features, tmp_path, noise_ceiling, more
):
    """SIGKILL before or after one of the renames, again and again, into the same folder."""
    setting = f"data.noise_ceiling={noise_ceiling}"
    whole = prepare(source(tmp_path, tree, features, setting), tmp_path / "whole")
    out = tmp_path / "killed"
    out.mkdir()
    tests = os.path.join(ROOT, "tests")
    for moment in (1, 2, -2, -1, 2, 3, 1, -3, *more):
        command = [sys.executable, "-c", KILLED, tests, tree, features, out, str(moment), setting]
        died = subprocess.run(command, capture_output=True, text=True, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert not [p for p in (out / "prepared").iterdir() if p.name[0] != "."]
    found = prepare(source(out, tree, features, setting), out / "prepared")
    for name in ("responses.npy", "features.npy", "voxels.csv", "stimuli.csv"):
        assert (found.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert {p.name for p in found.folder.iterdir()} == {p.name for p in whole.folder.iterdir()}


def test_the_label_tables():
    """As released: the numbers from 1, in this order."""
    faces = label_names("floc-faces", [])
    assert faces == {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"}
    named = regions.named(np.array([-1.0, 0.0, 2.0, 9.0]), faces)
    assert list(named) == ["", "", "FFA-1", "9"]


# --- the whole program ---


@pytest.mark.runs
def test_train_on_both_trees(tree, features, tmp_path, run_script):
    (folder,) = run_script("train.py", *overrides(tree, features, *TRAINING))
    voxels = pd.read_csv(folder / "voxels.csv")
    assert {"i", "j", "k", "nsdgeneral", "noise_ceiling", "r2", "jne"} <= set(voxels)
    assert (folder / "space.json").exists()
    root = write_algonauts(tmp_path / "algonauts", 40)
    settings = overrides(root, features, *TRAINING, data="algonauts")
    (folder,) = run_script("train.py", *settings)
    assert np.isfinite(pd.read_csv(folder / "voxels.csv")["jne"]).all()
