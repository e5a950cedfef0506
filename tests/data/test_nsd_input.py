"""What is refused of an NSD tree."""

import h5py
import numpy as np
import pytest
from data_sources import refused
from helpers import compose_train, deny
from nsd_tree import (
    GRID,
    RUNS,
    behaviour,
    save_mgh,
    save_nifti,
    write_nsd,
    write_surface,
    write_volume_session,
)

from jne.data.nifti import read_values
from jne.data.prepared import prepare
from jne.errors import InputError
from jne.training.config import check_config


def test_a_folder_that_is_not_an_nsd_tree(features, tmp_path):
    assert "not an NSD tree with subj01: no" in refused(tmp_path, tmp_path, features)


@pytest.mark.runs
def test_a_subject_without_betas(tree, features, tmp_path):
    sentence = refused(tmp_path, tree, features, "data.betas=betas_assumehrf")
    assert "no betas of subj01" in sentence
    assert "data.betas" in sentence


@pytest.mark.runs
def test_a_session_that_is_cut_short(fresh_tree, features, tmp_path):
    path = next(fresh_tree.rglob("betas_session02.hdf5"))
    path.write_bytes(path.read_bytes()[:5000])
    assert "betas_session02.hdf5 cannot be read" in refused(tmp_path, fresh_tree, features)


@pytest.mark.runs
def test_a_nifti_session_that_is_cut_short(features, tmp_path):
    root = write_nsd(tmp_path / "nsd", "nii.gz")
    path = next(root.rglob("betas_session02.nii.gz"))
    path.write_bytes(path.read_bytes()[:2000])
    assert "betas_session02.nii.gz cannot be read" in refused(tmp_path, root, features)


@pytest.mark.runs
@pytest.mark.parametrize("shape", [(len(RUNS) - 1, *GRID), (len(RUNS), 5, 5, 4)])
def test_a_session_of_another_shape(fresh_tree, features, tmp_path, shape):
    folder = next(fresh_tree.rglob("betas_session02.hdf5")).parent
    write_volume_session(folder, 2, np.zeros(shape, dtype=np.int16), "hdf5")
    assert "has shape" in refused(tmp_path, fresh_tree, features)


@pytest.mark.runs
def test_a_session_without_behaviour(fresh_tree, features, tmp_path):
    folder = next(fresh_tree.rglob("betas_session02.hdf5")).parent
    write_volume_session(folder, 7, np.zeros((len(RUNS), *GRID), dtype=np.int16), "hdf5")
    assert "has no trials of session 7" in refused(tmp_path, fresh_tree, features)


@pytest.mark.runs
def test_behaviour_without_a_column(fresh_tree, features, tmp_path):
    path = next(fresh_tree.rglob("responses.tsv"))
    behaviour(fresh_tree).drop(columns="73KID").to_csv(path, sep="\t", index=False)
    assert "has no column 73KID" in refused(tmp_path, fresh_tree, features)


@pytest.mark.runs
def test_fewer_images_than_the_ids_require(fresh_tree, tmp_path):
    with h5py.File(next(fresh_tree.rglob("nsd_stimuli.hdf5")), "w") as file:
        file["imgBrick"] = np.zeros((9, 20, 20, 3), dtype=np.uint8)
    np.save(tmp_path / "few.npy", np.zeros((9, 5), dtype=np.float32))
    assert "has 9 rows" in refused(tmp_path, fresh_tree, tmp_path / "few.npy")
    settings = ["features=clip_vit_b32", "features.pretrained=random", "data.n_val=0.25"]
    composed = compose_train(tmp_path, "data=nsd", f"data.root={fresh_tree}", *settings)
    with pytest.raises(InputError, match=r"nsd_stimuli.hdf5 holds 9 images"):
        prepare(check_config(composed)[1], tmp_path / "prepared")


@pytest.mark.runs
def test_an_roi_on_another_grid(fresh_tree, features, tmp_path):
    path = next(fresh_tree.rglob("MTL.nii.gz"))
    save_nifti(path.with_name("MTL.nii.gz"), np.zeros((3, 3, 3)))
    assert "MTL.nii.gz has shape (3, 3, 3), expected (6, 5, 4)" in refused(
        tmp_path, fresh_tree, features
    )


@pytest.mark.runs
def test_an_unknown_region(tree, features, tmp_path):
    sentence = refused(tmp_path, tree, features, "data.voxels=[V1,V9]")
    assert "data.voxels: unknown region 'V9'" in sentence
    assert "floc-faces" in sentence


def test_no_features_chosen(tree, tmp_path):
    composed = compose_train(tmp_path, "data=nsd", f"data.root={tree}")
    with pytest.raises(InputError, match="choose features=clip_vit_b32"):
        prepare(check_config(composed)[1], tmp_path / "prepared")


@pytest.mark.runs
def test_too_many_validation_images(tree, features, tmp_path):
    assert "data.n_val=17" in refused(tmp_path, tree, features, "data.n_val=17")


def test_a_disk_that_is_too_small(tree, features, tmp_path, monkeypatch):
    free = lambda _: type("Usage", (), {"free": 10})()  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", free)
    assert "GB are free" in refused(tmp_path, tree, features)


def test_too_few_shared_images_for_a_test(fresh_tree, features, tmp_path):
    path = next(fresh_tree.rglob("responses.tsv"))
    table = behaviour(fresh_tree)
    shared = np.unique(table.loc[table["10KID"] <= 1000, "10KID"])
    table["10KID"] += 1000 * table["10KID"].isin(shared[2:])
    table.to_csv(path, sep="\t", index=False)
    sentence = refused(tmp_path, fresh_tree, features)
    assert "the test stimuli are the shared images of the sessions that are there" in sentence
    assert "which are 2, but JNE needs at least 3" in sentence
    assert "n_test" not in sentence


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("pandas.read_csv", "responses.tsv"),
        ("h5py.File", "betas_session02.hdf5"),
        ("pathlib.Path.open", "brainmask.nii.gz"),
        ("pathlib.Path.open", "floc-faces.nii.gz"),
        ("pathlib.Path.open", "ncsnr.nii.gz"),
        ("pathlib.Path.read_text", "Kastner2015.mgz.ctab"),
        ("pathlib.Path.exists", "responses.tsv"),
    ],
)
def test_unreadable_files_are_named_with_the_root(
    tree, features, tmp_path, monkeypatch, function, file
):
    deny(monkeypatch, function, file)
    sentence = refused(tmp_path, tree, features)
    assert sentence.startswith("data.root: ")
    assert sentence.endswith(f"{file} cannot be read (Permission denied)")


@pytest.mark.runs
def test_an_unreadable_surface_session_is_named(features, tmp_path, monkeypatch):
    root = write_surface(tmp_path / "nsd")
    deny(monkeypatch, "pathlib.Path.open", "rh.betas_session04.mgh")
    sentence = refused(tmp_path, root, features, "data.space=fsaverage")
    assert sentence.endswith("rh.betas_session04.mgh cannot be read (Permission denied)")


@pytest.mark.runs
def test_a_map_that_is_no_image_is_named(fresh_tree, features, tmp_path):
    next(fresh_tree.rglob("MTL.nii.gz")).write_bytes(b"no image")
    sentence = refused(tmp_path, fresh_tree, features)
    assert sentence.startswith("data.root: ")
    assert "MTL.nii.gz cannot be read" in sentence


@pytest.mark.runs
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
def test_a_map_that_is_cut_short_is_named(fresh_tree, features, tmp_path, share):
    path = next(fresh_tree.rglob("MTL.nii.gz"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    sentence = refused(tmp_path, fresh_tree, features)
    assert sentence.startswith("data.root: ")
    assert "MTL.nii.gz cannot be read" in sentence


@pytest.mark.runs
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in nibabel
def test_damaged_images_are_never_a_traceback(tmp_path):
    """Cut short anywhere, or with wrong bytes in the header."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1, 8, (6, 5, 4))
    save_nifti(tmp_path / "a.nii.gz", volume.astype(np.float64))
    save_nifti(tmp_path / "a.nii", volume.astype(np.float64))
    save_mgh(tmp_path / "a.mgz", volume)
    save_mgh(tmp_path / "a.mgh", volume.astype(np.float32))
    sentences = []
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for trial in range(60):
            damaged = bytearray(content[: rng.integers(len(content))] if trial % 2 else content)
            for position in rng.integers(0, max(1, min(len(damaged), 400)), 3 * (trial % 2 == 0)):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                read_values(path)
            except InputError as error:
                sentences.append(str(error))
    assert len(sentences) > 120
    assert all(" cannot be read (" in sentence for sentence in sentences)


@pytest.mark.runs
def test_regions_without_voxels(fresh_tree, features, tmp_path):
    for path in fresh_tree.rglob("*floc-bodies.nii.gz"):
        save_nifti(path, np.zeros(GRID))
    sentence = refused(tmp_path, fresh_tree, features, "data.voxels=EBA")
    assert sentence == "data.voxels=['EBA']: selects no voxels"


def test_a_wrong_key_of_the_features_is_named_in_their_section(tree, tmp_path):
    settings = ["features=clip_vit_b32", "features.dtype=float8"]
    composed = compose_train(tmp_path, "data=nsd", f"data.root={tree}", *settings)
    with pytest.raises(InputError, match=r"^features.dtype=float8: input should be 'float16'"):
        check_config(composed)
