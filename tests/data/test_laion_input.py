"""What is refused of a LAION-fMRI tree, in one sentence, and what is said."""

import json
import re
import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from laion_tree import (
    AFFINE,
    GRID,
    NAMES,
    OOD,
    SESSIONS,
    SHARED,
    anatomical,
    betas_file,
    embedding_file,
    map_file,
    roi_file,
    save,
    trials_file,
    unique,
    write_embedding,
    write_laion,
    write_split,
)
from test_laion import source

from jne.cli import register_resolvers
from jne.data.prepared import prepare
from jne.errors import InputError

pytestmark = pytest.mark.runs
ME = "sub-01"
KEYS = {
    *("data.root", "data.split", "data.splits", "data.mask", "data.noise_ceiling", "data.voxels"),
    *("data.roi", "data.n_val", "data", "subject", "features", "features.path", "images", "output"),
}
TIMM = ("features=timm", "features.model=test_vit", "features.pretrained=false")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    register_resolvers()
    return write_laion(tmp_path_factory.mktemp("laion"))


@pytest.fixture
def root(whole, tmp_path):
    """A tree that the test may damage."""
    return shutil.copytree(whole, tmp_path / "laion")


def refused(tmp_path, root, *more):
    with pytest.raises(InputError) as error:
        prepare(source(tmp_path, root, *more), tmp_path / "prepared")
    assert not [path for path in (tmp_path / "prepared").glob("*") if path.name[0] != "."]
    sentence = str(error.value)
    assert "\n" not in sentence
    assert re.split("[:=]", sentence)[0] in KEYS
    return sentence


def edit_trials(change, session=1):
    def edit(root):
        path = trials_file(root, ME, session)
        table = pd.read_csv(path, sep="\t", dtype=str)
        change(table).to_csv(path, sep="\t", index=False)

    return edit


def relabel(name):
    def change(table):
        table.loc[3, "label"] = name
        return table

    return edit_trials(change)


def edit_embedding(change):
    def edit(root):
        with h5py.File(embedding_file(root), "r+") as file:
            change(file)

    return edit


def replaced(name, values):
    def change(file):
        del file[name]
        if values is not None:
            file[name] = values

    return edit_embedding(change)


def invalid(file):
    ids = [name.decode() for name in file["image_ids"]]
    file["valid"][ids.index(SHARED[0])] = False


def not_finite(file):
    ids = [name.decode() for name in file["image_ids"]]
    file["embedding"][ids.index(SHARED[0]), 2] = np.nan


def elsewhere(file):
    path = file.filename.replace(".h5", "_other.h5")
    with h5py.File(path, "w") as other:
        other["embedding"] = file["embedding"][()]
    del file["embedding"]
    file["embedding"] = h5py.ExternalLink(path, "embedding")


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def some_betas(shape, affine=AFFINE):
    return lambda root: save(betas_file(root, ME, 1), np.ones(shape, np.float32), affine)


def edit_split(**changes):
    def edit(root):
        path = root / "splits" / ME / "tau.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, **changes}))

    return edit


def variant(train, test):
    return [{"variant_id": 0, "train_ids": train, "test_ids": test}]


def ceiling(values):
    return lambda root: save(map_file(root, ME, "desc-Noiseceiling12rep"), np.float32(values))


def old_layout(root):
    shutil.rmtree(root / "derivatives" / "glmsingle-tedana")
    (root / "derivatives" / "atlases").mkdir()


def moved(value):
    affine = AFFINE.copy()
    affine[0, 3] += value
    return affine


N1 = sum(SESSIONS[1])
ANY = np.random.default_rng(0).uniform(0, 1, GRID)
DAMAGES = {
    "betas without trials": (lambda r: trials_file(r, ME, 2).unlink(), "its trials are not"),
    "no betas": (lambda r: shutil.rmtree(r / "derivatives" / "glmsingle-tedana" / ME),
                 "no single-trial betas of sub-01"),
    "old layout": (old_layout, "derivatives/atlases in it is of an older layout"),
    "cut short": (lambda r: cut(betas_file(r, ME, 2)), "statmap.nii.gz cannot be read"),
    "cut in its header": (lambda r: cut(betas_file(r, ME, 1), 0.001), "cannot be read"),
    "no gzip": (lambda r: betas_file(r, ME, 1).write_bytes(b"x" * 999), "cannot be read"),
    "a volume less": (some_betas((*GRID, N1 - 1)), f"expected {(*GRID, N1)}"),
    "one volume": (some_betas(GRID), f"expected {(*GRID, N1)}"),
    "betas of another grid": (some_betas((7, 5, 4, N1)), f"expected {(*GRID, N1)}"),
    "betas at another place": (some_betas((*GRID, N1), moved(1)), "another affine"),
    "a blank": (relabel("blank"), "names the image 'blank', in another form"),
    "no label": (relabel(""), "names the image '', in another form"),
    "of another person": (relabel(unique("sub-03")[0]), "which sub-03 alone saw, not sub-01"),
    "of nobody": (relabel("unique_THINGS_axe_p09.jpg"), "which nobody alone saw"),
    "a label without embedding": (relabel("shared_4rep_NSD_special1000_77.jpg"),
                                  ""),  # in no split: left out and said
    "another order": (edit_trials(lambda t: t.iloc[::-1]), "in the order of the betas"),
    "another session": (edit_trials(lambda t: t.assign(session="ses-02")), "a trial of 'ses-02'"),
    "no run": (edit_trials(lambda t: t.assign(run="n/a")), "with the numbers of runs"),
    "no column": (edit_trials(lambda t: t.drop(columns="label")), "has no column label"),
    "a mask of another shape": (
        lambda r: save(roi_file(r, ME, "face", "OFA"), np.ones((6, 5, 5), np.uint8)),
        "label-OFA_mask.nii.gz has shape (6, 5, 5), expected (6, 5, 4)"),
    "a mask at another place": (
        lambda r: save(roi_file(r, ME, "face", "OFA"), np.ones(GRID, np.uint8), moved(0.5)),
        "label-OFA_mask.nii.gz has another affine"),
    "one ROI twice": (
        lambda r: save(roi_file(r, ME, "face", "FFA1"), np.ones(GRID, np.uint8)),
        "are one ROI; keep one"),
    "no brain mask": (lambda r: anatomical(r, ME, "desc-brain_mask").unlink(),
                      "data.mask=anatomical: needs"),
    "a brain mask of four axes": (
        lambda r: save(anatomical(r, ME, "desc-brain_mask"), np.ones((*GRID, 2), np.uint8)),
        "expected three axes"),
    "ceilings that are shares": (ceiling(ANY), "must hold percent of the variance, from 0 to 100"),
    "ceilings above 100": (ceiling(200 * ANY), "its largest value is 19"),
    "ceilings of another grid": (ceiling(np.ones((3, 3, 3))), "expected (6, 5, 4)"),
    "no ceilings": (lambda r: map_file(r, ME, "desc-Noiseceiling12rep").unlink(),
                    "data.noise_ceiling=12rep: needs"),
    "no embedding of an image": (
        lambda r: write_embedding(embedding_file(r), np.random.default_rng(0), 4,
                                  [name for name in NAMES if name != SHARED[3]]),
        f"lacks 1 of 12 images, such as {SHARED[3]}"),
    "an embedding that is not valid": (edit_embedding(invalid),
                                       f"marks as not valid 1 of 12 images, such as {SHARED[0]}"),
    "an embedding that is NaN": (edit_embedding(not_finite), "NaN or infinite values in 1 of 12"),
    "an image twice": (
        replaced("image_ids", np.array([*NAMES[:-1], NAMES[0]], dtype=object)), "has two rows of"),
    "ids that are numbers": (replaced("image_ids", np.arange(len(NAMES))), "must have text as"),
    "too few ids": (replaced("image_ids", np.array(NAMES[1:], dtype=object)), "of shape (23,)"),
    "no valid": (replaced("valid", None), "must have valid of shape (23,)"),
    "no embedding": (replaced("embedding", None), "features.path=embedding: choose one dataset of"),
    "embeddings in another file": (edit_embedding(elsewhere), "choose one dataset of"),
    "embeddings cut short": (lambda r: cut(embedding_file(r)), "cannot be read"),
    "no embeddings": (lambda r: embedding_file(r).unlink(), "no such file"),
    "a split of both parts": (edit_split(variants=variant(SHARED, SHARED[:1])),
                              "has 1 images in both parts"),
    "a split of another person": (edit_split(variants=variant(unique("sub-03"), SHARED)),
                                  "which sub-01 did not see"),
    "a split of other names": (edit_split(variants=variant(["a.jpg"], SHARED)), "'a.jpg'"),
    "a split that names one twice": (edit_split(variants=variant(SHARED, [NAMES[0]] * 2)),
                                     "names an image twice in test_ids"),
    "a split without images": (edit_split(variants=variant([], SHARED)),
                               "must hold the names of images as train_ids"),
    "a split of two variants": (edit_split(variants=2 * variant(["a"], ["b"])), "hold one variant"),
    "a split that is no JSON": (lambda r: (r / "splits" / ME / "tau.json").write_text("{"),
                                "tau.json cannot be read"),
    "a split of two test images": (edit_split(variants=variant(SHARED, unique(ME)[:2])),
                                   "2 test stimuli, but JNE needs at least 3; change data.split"),
    "a split of too few images": (edit_split(variants=variant(SHARED[:2], list(OOD))),
                                  "of the 2 train images of tau that were seen this leaves none"),
    "no splits of the person": (lambda r: shutil.rmtree(r / "splits" / ME), "no folder"),
}  # fmt: skip


@pytest.mark.parametrize("damage", [name for name, (_, said) in DAMAGES.items() if said])
def test_another_layout_is_refused_in_one_sentence(root, tmp_path, damage):
    edit, expected = DAMAGES[damage]
    edit(root)
    assert expected in refused(tmp_path, root)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["subject=s2"], "subject=subj02: LAION-fMRI has the subjects s1, s3, s5, s6, s7"),
        (["subject=s5"], "no single-trial betas of sub-05"),
        (["data.split=tao"], "data.split=tao: "),
        (["data.splits=null"], "data.splits: the authors' package is not installed"),
        (["data.voxels=[V9]"], "unknown region 'V9'"),
        (["data.voxels=[face/V1d]"], "face has the labels FFA1, FFA2, OFA"),
        (["data.roi=streams"], "data.roi=streams: there are the sets body, face, laion, place"),
        (["data.n_val=9"], "data.n_val=9: of the 9 train images of tau"),
    ],
)
def test_keys_that_do_not_fit(whole, tmp_path, settings, expected):
    assert expected in refused(tmp_path, whole, *settings)


def test_a_session_that_was_not_downloaded(root, tmp_path, capsys):
    """Its trials are not counted; images that only it showed are said."""
    betas_file(root, ME, 2).unlink()
    path = trials_file(root, ME, 1)
    lost = SHARED[4]
    table = pd.read_csv(path, sep="\t", dtype=str).replace({lost: SHARED[2]})
    table.to_csv(path, sep="\t", index=False)
    prepared = prepare(source(tmp_path, root, "data.split=cluster_k5_0"), tmp_path / "prepared")
    printed = " ".join(capsys.readouterr().out.split())
    assert "sessions 1 of 30" in printed
    n_absent = 12 - len(prepared.stimuli)
    assert n_absent >= 1
    assert f"{n_absent} of its images have no trial in the sessions that are there" in printed
    assert prepared.stimuli["n_repeats"].sum() <= N1


def test_an_image_that_is_in_no_split_needs_no_embedding(root, tmp_path, capsys):
    DAMAGES["a label without embedding"][0](root)
    prepare(source(tmp_path, root), tmp_path / "prepared")
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 images that were seen are in neither part, and left out" in printed


def test_a_session_of_nan_leaves_its_trials_out(root, tmp_path, capsys):
    betas = nib.load(betas_file(root, ME, 1))
    save(betas_file(root, ME, 1), np.full(betas.shape, np.nan, np.float32), betas.affine)
    prepared = prepare(source(tmp_path, root), tmp_path / "prepared")
    n = len(prepared.voxels)
    assert f"{n} of {n} voxels are constant, NaN or infinite" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (prepared.voxels["n_invalid_sessions"] >= 1).all()


def test_an_absent_image_of_a_person_is_said_and_a_missing_category_is_no_error(
    root, tmp_path, capsys
):
    train = [*SHARED, *unique(ME), "unique_LAION_new_cluster_1_i1_p01.jpg"]
    write_split(root / "splits", ME, "tau", train, list(OOD))
    shutil.rmtree(roi_file(root, ME, "place", "PPA").parent)
    prepare(source(tmp_path, root), tmp_path / "prepared")
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 of its images have no trial" in printed
    assert "without place there is no PPA, RSC, OPA" in printed


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda r: (r / "stimuli/task-images_stimuli.h5").unlink(), "have a data use agreement"),
        (lambda r: edit_images(r, lambda f: f.__delitem__("images")), "no dataset `images`"),
        (lambda r: edit_images(r, numbers), "no dataset `images` of encoded images"),
        (lambda r: edit_images(r, shorter), "has 3 images, but task-images_metadata.csv names"),
        (lambda r: edit_images(r, damaged), "cannot be read (not an image)"),
        (lambda r: edit_names(r, lambda t: t.rename(columns={"image_name": "file"})),
         "has no column image_name"),
        (lambda r: edit_names(r, lambda t: t.replace({SHARED[0]: "x.jpg"})), f"'{SHARED[0]}'"),
    ],
)  # fmt: skip
def test_images_of_another_layout(root, tmp_path, edit, expected):
    edit(root)
    assert expected in refused(tmp_path, root, *TIMM)


def edit_images(root, change):
    with h5py.File(root / "stimuli" / "task-images_stimuli.h5", "r+") as file:
        change(file)


def numbers(file):
    del file["images"]
    file["images"] = np.zeros((len(NAMES), 4, 4, 3), np.uint8)


def shorter(file):
    del file["images"]
    file.create_dataset("images", (3,), h5py.vlen_dtype(np.uint8))


def damaged(file):
    for row in range(len(NAMES)):
        file["images"][row] = np.arange(9, dtype=np.uint8)


def edit_names(root, change):
    path = root / "stimuli" / "task-images_metadata.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def test_a_disk_that_is_too_small(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "GB are free" in refused(tmp_path, whole)
