"""An Algonauts tree against a plain reading of the same files."""

import numpy as np
import pytest
from data_sources import refused, source
from helpers import compose_train, deny
from nsd_tree import SUBJECT, write_algonauts

from jne.data.prepared import prepare
from jne.errors import InputError
from jne.training.config import check_config


def test_algonauts_as_a_plain_reading_and_never_unpickled(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    prepared = prepare(
        source(tmp_path, root, features, "data.n_test=4", data="algonauts"), tmp_path
    )
    folder = root / SUBJECT
    row = 0
    names = {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"}
    for side, name in (("lh", "left"), ("rh", "right")):
        values = np.load(folder / f"training_split/training_fmri/{side}_training_fmri.npy")
        everything = np.load(folder / f"roi_masks/{side}.all-vertices_fsaverage_space.npy")
        visual = np.load(folder / f"roi_masks/{side}.prf-visualrois_challenge_space.npy")
        for column, vertex in enumerate(np.where(everything)[0]):
            np.testing.assert_array_equal(prepared.responses[:, row], values[:, column])
            voxel = prepared.voxels.iloc[row]
            assert (voxel["hemisphere"], voxel["vertex"]) == (name, vertex)
            assert voxel["prf-visualrois"] == names.get(visual[column], "")
            row += 1
    assert row == len(prepared.voxels)
    assert dict(prepared.stimuli["split"].value_counts()) == {"train": 12, "val": 4, "test": 4}
    assert not (root / "unpickled").exists()


def test_algonauts_with_one_image_missing(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    next((root / SUBJECT).rglob("train-0003_*.png")).unlink()
    settings = ["features=clip_vit_b32", "features.pretrained=random"]
    composed = compose_train(tmp_path, "data=algonauts", f"data.root={root}", *settings)
    with pytest.raises(InputError, match="has 19 images, but there are responses to 20"):
        prepare(check_config(composed)[1], tmp_path / "prepared")


def test_a_folder_that_is_not_an_algonauts_tree(features, tmp_path):
    sentence = refused(tmp_path, tmp_path, features, data="algonauts")
    assert "not an Algonauts 2023 tree with subj01" in sentence


def test_a_small_test_set_names_the_key_that_algonauts_has(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    sentence = refused(tmp_path, root, features, "data.n_test=2", data="algonauts")
    assert sentence == "data: 2 test stimuli, but JNE needs at least 3; change data.n_test"


def test_algonauts_without_any_region(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")
    sentence = refused(tmp_path, root, features, "data.voxels=[]", data="algonauts")
    assert sentence == "data.voxels=[]: selects no voxels"


@pytest.mark.runs
@pytest.mark.parametrize("file", ["rh_training_fmri.npy", "lh.floc-faces_challenge_space.npy"])
def test_unreadable_files_of_algonauts_are_named(features, tmp_path, monkeypatch, file):
    root = write_algonauts(tmp_path / "algonauts")
    deny(monkeypatch, "numpy.load", file)
    sentence = refused(tmp_path, root, features, data="algonauts")
    assert sentence.startswith("data.root: ")
    assert f"{file}: it cannot be read" in sentence
