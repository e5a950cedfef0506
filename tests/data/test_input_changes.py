"""When data are prepared again: if a file that is read has changed, not for another spelling."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from data_sources import source
from nsd_tree import BETAS, GRID, SUBJECT, save_nifti, write_algonauts, write_nsd, write_surface

from jne.data.algonauts import Algonauts
from jne.data.nsd import NSD
from jne.data.prepared import prepare
from jne.errors import InputError

BRAINMASK = "data.voxels=brainmask"
FUNC = Path("nsddata/ppdata", SUBJECT, "func1pt8mm")
NCSNR = Path("nsddata_betas/ppdata", SUBJECT, "func1pt8mm", BETAS, "ncsnr.nii.gz")
COLOURS = Path("nsddata/freesurfer", SUBJECT, "label")


def relabel(path: Path) -> None:
    """Another labelling of the same shape, with voxels of label 1."""
    labels = np.zeros(GRID)
    labels[1:3] = 1
    save_nifti(path, labels)


def write_colours(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"0 Unknown\n1 {name}\n2 other\n")


CHANGES = {
    "a set arrives": lambda root: relabel(root / FUNC / "roi" / "streams.nii.gz"),
    "a set is drawn again": lambda root: relabel(root / FUNC / "roi" / "nsdgeneral.nii.gz"),
    "hemispheres arrive": lambda root: [
        relabel(root / FUNC / "roi" / f"{side}.thalamus.nii.gz") for side in ("lh", "rh")
    ],
    "the mask changes": lambda root: relabel(root / FUNC / "brainmask.nii.gz"),
    "ncsnr changes": lambda root: save_nifti(root / NCSNR, np.ones(GRID, dtype=np.float32)),
    "names arrive": lambda root: write_colours(root / COLOURS / "MTL.mgz.ctab", "hippocampus"),
    "names change": lambda root: write_colours(
        root / COLOURS.parent.parent / "fsaverage" / "label" / "Kastner2015.mgz.ctab", "V1x"
    ),
}


@pytest.mark.runs
def test_whatever_changes_in_an_nsd_tree_is_prepared_again(features, tmp_path):
    root = write_nsd(tmp_path / "nsd")
    folders = {prepare(source(tmp_path, root, features, BRAINMASK), tmp_path / "p").folder}
    before = None
    for what, change in CHANGES.items():
        change(root)
        prepared = prepare(source(tmp_path, root, features, BRAINMASK), tmp_path / "p")
        assert prepared.folder not in folders, what
        folders.add(prepared.folder)
        assert before is None or not prepared.voxels.equals(before), what
        before = prepared.voxels
    assert {"streams", "thalamus"} <= set(before)
    assert len(before) == 2 * GRID[1] * GRID[2], "the new mask"
    assert set(before["ncsnr"]) == {1}
    assert "hippocampus" in set(before["MTL"])
    assert "V1x" in set(before["Kastner2015"])


@pytest.mark.runs
def test_a_map_that_is_not_read_prepares_nothing_again(features, tmp_path):
    root = write_nsd(tmp_path / "nsd")
    settings = (BRAINMASK, "data.noise_ceiling=repeats")
    first = source(tmp_path, root, features, *settings).input_files()
    CHANGES["ncsnr changes"](root)
    assert source(tmp_path, root, features, *settings).input_files() == first
    assert not any(path.name == "ncsnr.nii.gz" for path in first)


@pytest.mark.runs
def test_inputs_of_a_surface(features, tmp_path):
    root = write_surface(tmp_path / "nsd")
    files = source(tmp_path, root, features, "data.space=fsaverage").input_files()
    names = {path.name for path in files}
    for side in ("lh", "rh"):
        expected = ("ncsnr.mgh", "nsdgeneral.mgz", "HCP_MMP1.mgz", "betas_session04.mgh")
        assert {f"{side}.{name}" for name in expected} <= names
    assert {"HCP_MMP1.mgz.ctab", "responses.tsv"} <= names


@pytest.mark.runs
def test_algonauts_masks_that_arrive_or_change_are_read(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")

    def prepared():
        settings = ("data.n_test=4", "data.voxels=null")
        return prepare(
            source(tmp_path, root, features, *settings, data="algonauts"), tmp_path / "p"
        )

    first = prepared()
    masks = root / SUBJECT / "roi_masks"
    for side, n_vertices in (("lh", 12), ("rh", 9)):
        np.save(masks / f"{side}.floc-bodies_challenge_space.npy", np.ones(n_vertices, np.int64))
    second = prepared()
    assert "floc-bodies" not in first.voxels
    assert set(second.voxels["floc-bodies"]) == {"EBA"}
    path = masks / "lh.all-vertices_fsaverage_space.npy"
    np.save(path, np.roll(np.load(path), 1))
    third = prepared()
    left = (third.voxels["hemisphere"] == "left").to_numpy()
    assert (third.voxels["vertex"][left] != second.voxels["vertex"][left]).all()


def spellings(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    """The same folder by its absolute path and otherwise; changes the working and home folders."""
    patch.chdir(root.parent)
    patch.setenv("HOME", str(root.parent))
    (root.parent / "link").symlink_to(root)
    relative = os.path.join("..", root.parent.name, root.name)
    return [f"{root}/", root.name, relative, str(root.parent / "link"), f"'~/{root.name}'"]


@pytest.mark.runs
@pytest.mark.parametrize("data", ["nsd", "algonauts"])
def test_each_spelling_of_a_root_is_the_same_folder(features, tmp_path, monkeypatch, data):
    write = {"nsd": write_nsd, "algonauts": write_algonauts}[data]
    root = write(tmp_path / "tree")
    settings = ["data.n_test=4"] if data == "algonauts" else []
    first = prepare(source(tmp_path, root, features, *settings, data=data), tmp_path / "p")
    kind = {"nsd": NSD, "algonauts": Algonauts}[data]
    monkeypatch.setattr(kind, "write", lambda *_: pytest.fail("prepared again"))
    for spelling in spellings(root, monkeypatch):
        chosen = source(tmp_path, spelling, features, *settings, data=data)
        assert prepare(chosen, tmp_path / "p").folder == first.folder, spelling


def test_each_spelling_of_a_root_of_arrays(recorded, tmp_path, monkeypatch):
    folder, *_, source_of = recorded
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    (tmp_path / "link").symlink_to(folder)
    first = prepare(source_of(), tmp_path / "p").folder
    for spelling in (".", f"{folder}/", "link", f"~/{folder.name}", f"../{folder.name}"):
        assert prepare(source_of(root=spelling), tmp_path / "p").folder == first, spelling
    by_home = source_of(features=f"~/{folder.name}/x.npy")
    assert by_home.features == folder / "x.npy"


def test_the_names_of_prepared_arrays_stay(recorded, tmp_path):
    """For an absolute root; another name would prepare them again."""
    folder, *_, source_of = recorded
    inputs = [folder / "x.npy", folder / "y.npy"]
    provenance = {
        "format": 2,
        "source": "jne.data.arrays.Arrays",
        "settings": {
            "name": "a",
            "subject": "s",
            "root": str(folder),
            "features": "x.npy",
            "image_path": None,
            "image_features": {"name": "own", "layer": None},
            "responses": "y.npy",
            "features_key": None,
            "responses_key": None,
            "layer": 2,
            "first_layer": 1,
            "transpose_features": False,
            "transpose_responses": False,
            "voxels": None,
            "roi_column": "roi",
            "stimuli": None,
            "split": "random",
            "n_val": 0.1,
            "n_test": 0.1,
            "split_seed": 0,
        },
        "inputs": [
            {
                "file": str(path),
                "bytes": path.stat().st_size,
                "modified_ns": path.stat().st_mtime_ns,
            }
            for path in inputs
        ],
    }
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    assert prepare(source_of(), tmp_path / "p").folder.name == f"a-s-{digest[:12]}"


def test_a_home_that_does_not_exist_is_named(features, tmp_path):
    with pytest.raises(InputError, match=r"data.root=~nobody-at-all/x: there is no home folder"):
        source(tmp_path, "'~nobody-at-all/x'", features)
