"""A LAION-fMRI tree against a slow, plain reading of the same files."""

import json
import os
import re

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import compose_train
from laion_tree import (
    AFFINE,
    BRAIN_EDGE,
    CONSTANT,
    GRID,
    INFINITE_IN_1,
    NAMES,
    NAN_IN_1,
    OOD,
    SESSIONS,
    SHARED,
    SHORT_IMAGE,
    ZERO_IN_2,
    anatomical,
    betas_file,
    embedding_file,
    encoded,
    map_file,
    roi_file,
    trials_file,
    unique,
    write_laion,
)

from jne.analysis.noise_ceiling import noise_ceiling_snr
from jne.analysis.repeats import repeats_of
from jne.cli import register_resolvers
from jne.data.averaging import by_session
from jne.data.laion import LaionFMRI
from jne.data.laion.grid import Session
from jne.data.laion.images import LaionImages
from jne.data.prepared import prepare
from jne.training.config import check_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    register_resolvers()
    return write_laion(tmp_path_factory.mktemp("laion"))


def overrides(root, *more):
    return [
        *("data=laion", f"data.root={root}", "data.splits=splits", "data.n_val=2"),
        *("data.voxels=brainmask", "features=laion_clip", *more),
    ]


def source(output, root, *more):
    return check_config(compose_train(output, *overrides(root, *more)))[1]


def plain_reading(root, person="sub-01"):
    """The valid z-scored trials (n,) of each image at each voxel: {label: {voxel: [...]}}."""
    trials: dict[str, dict[tuple, list[float]]] = {}
    for session in SESSIONS:
        betas = nib.load(betas_file(root, person, session)).get_fdata()
        labels = pd.read_csv(trials_file(root, person, session), sep="\t")["label"]
        for voxel in np.ndindex(GRID):
            values = betas[voxel]
            if not np.isfinite(values).all() or np.ptp(values) < 1e-3:
                continue
            z = (values - values.mean()) / values.std()
            for label, value in zip(labels, z, strict=True):
                trials.setdefault(label, {}).setdefault(voxel, []).append(value)
    return trials


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    return prepare(source(output, root), output)


def places(prepared):
    return list(prepared.voxels[["i", "j", "k"]].itertuples(index=False, name=None))


def test_every_value_is_that_of_a_plain_reading(root, prepared):
    trials = plain_reading(root)
    for row, name in enumerate(prepared.stimuli["stimulus"]):
        expected = [np.mean(trials[name].get(place, np.nan)) for place in places(prepared)]
        np.testing.assert_allclose(prepared.responses[row], expected, rtol=1e-5, atol=2e-6)
    n = {name: len(trials[name][(1, 0, 0)]) for name in prepared.stimuli["stimulus"]}
    assert dict(zip(prepared.stimuli["stimulus"], prepared.stimuli["n_repeats"], strict=True)) == n
    assert n[SHORT_IMAGE] == 11


def test_features_are_those_of_the_image_whatever_the_order_of_rows(root, prepared):
    with h5py.File(embedding_file(root)) as file:
        ids = [name.decode() for name in file["image_ids"]]
        values = file["embedding"][()]
    rows = [ids.index(name) for name in prepared.stimuli["stimulus"]]
    assert rows != sorted(rows)
    np.testing.assert_array_equal(prepared.features, values[rows].astype(np.float32))


def test_the_official_split_and_validation_from_its_train_images(root, prepared):
    variant = json.loads((root / "splits/sub-01/tau.json").read_text())["variants"][0]
    parts = prepared.stimuli.groupby("split")["stimulus"].agg(set)
    assert parts["test"] == set(variant["test_ids"])
    assert parts["train"] | parts["val"] == set(variant["train_ids"])
    assert len(parts["val"]) == 2
    assert not parts["test"] & (parts["train"] | parts["val"])


def test_ceilings_are_percent_of_other_repeats_than_those_scored(root, prepared):
    stored = nib.load(map_file(root, "sub-01", "desc-Noiseceiling12rep")).get_fdata()
    trials = plain_reading(root)
    test = prepared.stimuli.loc[prepared.stimuli["split"] == "test", "stimulus"]
    for place, ceiling in zip(places(prepared), prepared.voxels["noise_ceiling"], strict=True):
        counts = [len(trials[name].get(place, [])) for name in test]
        if 0 in counts or np.isnan(stored[place]):
            assert np.isnan(ceiling)
            continue
        s = stored[place] / (100 - stored[place]) / 12
        assert ceiling == pytest.approx(s / (s + np.mean(1 / np.array(counts))))


@pytest.mark.runs
def test_a_ceiling_of_thirty_percent_of_twelve_is_twelve_and_a_half_of_four(root, tmp_path):
    """The example in the description of the data set: all test images have four repeats."""
    prepared = prepare(source(tmp_path, root, "data.split=ood"), tmp_path)
    stored = nib.load(map_file(root, "sub-01", "desc-Noiseceiling12rep")).get_fdata()
    s = np.array([stored[place] for place in places(prepared)]) / 100
    expected = (s / (1 - s) / 12) / (s / (1 - s) / 12 + 1 / 4)
    valid = prepared.voxels["n_invalid_sessions"] == 0
    np.testing.assert_allclose(prepared.voxels["noise_ceiling"][valid], expected[valid])
    test = prepared.stimuli[prepared.stimuli["split"] == "test"]
    assert dict(zip(test["stimulus"], test["category"], strict=True)) == OOD


@pytest.mark.runs
def test_ceilings_and_noise_from_the_repeats(root, tmp_path):
    prepared = prepare(source(tmp_path, root, "data.noise_ceiling=repeats"), tmp_path)
    trials = plain_reading(root)
    repeats = np.full((len(prepared.stimuli), len(prepared.voxels), 12), np.nan)
    for row, name in enumerate(prepared.stimuli["stimulus"]):
        for column, place in enumerate(places(prepared)):
            values = trials[name].get(place, [])
            repeats[row, column, : len(values)] = values
    np.testing.assert_allclose(prepared.voxels["ncsnr"], noise_ceiling_snr(repeats), rtol=1e-3)
    whole = np.flatnonzero(prepared.voxels["n_invalid_sessions"] == 0)
    expected = repeats_of(repeats[:, whole])
    np.testing.assert_allclose(prepared.repeats.noise[:, whole], expected.noise, rtol=2e-3)
    np.testing.assert_array_equal(prepared.repeats.block, expected.block)


def test_nan_infinite_and_constant_values_leave_out_a_session_of_a_voxel(prepared, capsys):
    invalid = prepared.voxels.set_index(["i", "j", "k"])["n_invalid_sessions"]
    for place in (NAN_IN_1, INFINITE_IN_1, ZERO_IN_2):
        assert invalid[place] == 1
    assert invalid[CONSTANT] == 2
    assert invalid.sum() == 5
    column = places(prepared).index(CONSTANT)
    assert np.isnan(prepared.responses[:, column]).all()


def test_masks_by_either_rule(root, prepared, tmp_path):
    by_r2 = prepare(source(tmp_path, root, "data.mask=rsquare"), tmp_path)
    assert set(places(by_r2)) - set(places(prepared)) == {BRAIN_EDGE}
    assert not set(places(prepared)) - set(places(by_r2))


def test_voxels_have_places_on_the_t1w_image_and_regions(root, prepared):
    assert prepared.space["shape"] == list(GRID)
    np.testing.assert_allclose(prepared.space["affine"], AFFINE, rtol=1e-6)
    t1w = nib.load(anatomical(root, "sub-01", "T1w"))
    np.testing.assert_array_equal(prepared.space["affine"], t1w.affine)
    assert list(prepared.voxels["voxel"]) == [
        np.ravel_multi_index(place, GRID) for place in places(prepared)
    ]
    paper = {"V1d": "V1", "V1v": "V1", "V2d": "V2", "V2v": "V2", "V3d": "V3", "V3v": "V3",
             "hV4": "V4", "FFA-1": "FFA-1", "FFA2": "FFA-2", "OPA": "OPA", "PPA": "PPA",
             "MPA": "RSC", "EBA": "EBA"}  # fmt: skip
    category = {**dict.fromkeys(("FFA-1", "FFA2"), "face"), "EBA": "body",
                **dict.fromkeys(("OPA", "PPA", "MPA"), "place")}  # fmt: skip
    masks = {
        label: nib.load(roi_file(root, "sub-01", category.get(label, "retinotopy"), label))
        for label in paper
    }
    masks = {label: image.get_fdata() > 0 for label, image in masks.items()}
    for place, roi in zip(places(prepared), prepared.voxels["roi"], strict=True):
        claims = [paper[label] for label in paper if masks[label][place]]
        assert roi == (claims[0] if claims else "")
    ventral = nib.load(roi_file(root, "sub-01", "laion", "laion-ventral")).get_fdata() > 0
    of_voxel = [ventral[place] for place in places(prepared)]
    np.testing.assert_array_equal(prepared.voxels["laion"] == "laionventral", of_voxel)


@pytest.mark.runs
@pytest.mark.parametrize(
    ("regions", "masks"),
    [
        ("laiongeneral", [("laion", "laiongeneral")]),  # all of it, also what is laionventral
        ("laion/laion-ventral", [("laion", "laion-ventral")]),
        ("face/FFA1", [("face", "FFA-1")]),
        ("place", [("place", name) for name in ("MPA", "OPA", "PPA")]),
        ("V1", [("retinotopy", "V1d"), ("retinotopy", "V1v")]),  # the paper's
        ("V3A", [("retinotopy", "V3A")]),
    ],
)
def test_regions_by_name(root, tmp_path, regions, masks):
    prepared = prepare(source(tmp_path, root, f"data.voxels=[{regions}]"), tmp_path)
    brain = nib.load(anatomical(root, "sub-01", "desc-brain_mask")).get_fdata() > 0
    union = np.any([nib.load(roi_file(root, "sub-01", *m)).get_fdata() > 0 for m in masks], axis=0)
    assert places(prepared) == [tuple(place) for place in np.argwhere(union & brain)]


def test_a_region_that_a_person_lacks_is_said(root, tmp_path, capsys):
    prepared = prepare(source(tmp_path, root, "subject=s3", "data.voxels=[HVC]"), tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"this subject has none in [\w, -]*FFA-2", printed)
    assert "FFA-2" not in set(prepared.voxels["roi"])


@pytest.mark.runs
def test_the_shared_and_the_pooled_split_use_what_the_person_saw(root, tmp_path, capsys):
    shared = prepare(source(tmp_path, root, "data.pool=shared", "data.split=ood"), tmp_path)
    assert set(shared.stimuli["stimulus"]) == {*SHARED, *OOD}
    assert "7 images that were seen are in neither part, and left out" in capsys.readouterr().out
    # z-scored over all trials, also of images that are left out
    trials = plain_reading(root)
    row = list(shared.stimuli["stimulus"]).index(SHORT_IMAGE)
    expected = [np.mean(trials[SHORT_IMAGE].get(place, np.nan)) for place in places(shared)]
    np.testing.assert_allclose(shared.responses[row], expected, rtol=1e-5, atol=2e-6)
    settings = ("subject=s3", "data.pool=pooled")
    pooled = prepare(source(tmp_path, root, *settings), tmp_path)
    assert set(pooled.stimuli["stimulus"]) == {*SHARED, *unique("sub-03")}
    test = pooled.stimuli.loc[pooled.stimuli["split"] == "test", "stimulus"]
    assert set(test) == {SHARED[1], SHARED[4], unique("sub-03")[2]}


@pytest.mark.runs
def test_later_sessions_are_left_out_and_said(root, tmp_path, capsys):
    prepare(source(tmp_path, root), tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "sessions 2 of 30; 1 later ones, which have other images, are left out" in printed
    assert not any("ses-31" in str(path) for path in source(tmp_path, root).input_files())


@pytest.mark.runs
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random_0", "revision 2, five folds"),
        ("random_1", "identified duplicates are on both sides"),
        ("random_2", "overlap in this generation"),
    ],
)
def test_the_generation_of_random_splits(root, tmp_path, capsys, name, expected):
    prepare(source(tmp_path, root, f"data.split={name}"), tmp_path)
    assert expected in " ".join(capsys.readouterr().out.split())


@pytest.mark.runs
def test_the_same_image_under_another_name_is_looked_for(root, tmp_path):
    """Its embedding is that of a train image."""
    other = write_laion(tmp_path / "laion")
    with h5py.File(embedding_file(other), "r+") as file:
        ids = [name.decode() for name in file["image_ids"]]
        one, two = ids.index(SHARED[0]), ids.index(unique("sub-01")[3])  # test, train
        values = file["embedding"][()]
        values[one] = values[two]
        file["embedding"][...] = values
    (sentence,) = prepare(source(tmp_path, other), tmp_path).warnings
    assert "1 of 3 test stimuli are among those that the encoder learns from" in sentence


@pytest.mark.runs
@pytest.mark.parametrize("how", ["date", "archive"])
def test_embeddings_from_before_the_correction(tmp_path, capsys, how):
    root = write_laion(tmp_path / "laion")
    path = embedding_file(root)
    if how == "date":
        os.utime(path, (1_780_000_000, 1_780_000_000))  # May 2026
    else:
        archive = root / "archive" / "embeddings" / "v1" / path.name
        archive.parent.mkdir(parents=True)
        archive.write_bytes(path.read_bytes())
    prepare(source(tmp_path, root), tmp_path)
    assert "correction" not in capsys.readouterr().out  # no image out of distribution
    prepare(source(tmp_path, root, "data.split=ood"), tmp_path)
    assert "is from before the correction of 28 September 2026" in " ".join(
        capsys.readouterr().out.split()
    )


def test_transparent_pixels_are_grey(root):
    images = LaionImages(
        root / "stimuli/task-images_stimuli.h5", root / "stimuli/task-images_metadata.csv"
    )
    assert sorted(images.names) == NAMES
    name = next(iter(OOD))
    pixels = np.asarray(images.read(images.names.index(name)))
    assert pixels.shape == (10, 10, 3)
    assert (pixels[:5] == sum(name.encode()) % 200).all()
    assert (pixels[5:] == 128).all()
    assert encoded(name)[:4] == b"\x89PNG"
    jpeg = np.asarray(images.read(images.names.index(SHORT_IMAGE)))
    assert np.ptp(jpeg) <= 2


@pytest.mark.runs
def test_features_of_the_images_and_precomputed_ones(root, tmp_path):
    towers = ("features=timm", "features.model=test_vit", "features.pretrained=false")
    deep = prepare(source(tmp_path, root, *towers), tmp_path)
    assert len(deep.features) == 12
    np.save(tmp_path / "f.npy", np.arange(2 * len(NAMES), dtype=np.float32).reshape(-1, 2))
    pd.DataFrame({"stimulus": NAMES}).to_csv(tmp_path / "ids.csv", index=False)
    stored = ("features=precomputed", f"features.path={tmp_path / 'f.npy'}",
              f"features.ids={tmp_path / 'ids.csv'}")  # fmt: skip
    prepared = prepare(source(tmp_path, root, *stored), tmp_path)
    rows = [NAMES.index(name) for name in prepared.stimuli["stimulus"]]
    np.testing.assert_array_equal(prepared.features[:, 0], 2 * np.array(rows))


def test_the_background_of_the_brain_is_the_t1w_image(root):
    expected = nib.load(anatomical(root, "sub-01", "T1w")).get_fdata()
    settings = {"root": str(root), "subject": "subj01"}
    np.testing.assert_array_equal(LaionFMRI.mean_image(settings), expected)
    assert LaionFMRI.mean_image(settings | {"subject": "subj02"}) is None


def contents(prepared):
    names = ("responses.npy", "features.npy", "voxels.csv", "stimuli.csv", "repeats.npz")
    return {name: (prepared.folder / name).read_bytes() for name in names}


@pytest.mark.runs
@pytest.mark.parametrize("blocks", [1, 12])
@pytest.mark.parametrize("moment", [1, 2])
def test_a_killed_preparation_continues_with_the_same_bytes(
    root, tmp_path, monkeypatch, moment, blocks
):
    whole = contents(prepare(source(tmp_path, root), tmp_path / "whole"))
    if blocks > 1:
        monkeypatch.setattr(by_session, "VOXELS_AT_ONCE", 8)
        monkeypatch.setattr(by_session, "_MEANS_BYTES", 0)
    volumes, opened = Session._volumes, []

    def killed(session):
        opened.append(session._path)
        for i, volume in enumerate(volumes(session)):
            if len(opened) == moment and i == 7:
                raise KeyboardInterrupt
            yield volume

    monkeypatch.setattr(Session, "_volumes", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(source(tmp_path, root), tmp_path / "out")
    continued = prepare(source(tmp_path, root), tmp_path / "out")
    assert contents(continued) == whole
    assert len(opened) == moment + len(SESSIONS) - (moment - 1)
    assert not (continued.folder / "averaging").exists()


def test_whose_data_they_are(prepared):
    about = prepared.provenance
    assert "Zerbe" in about["citation"]
    assert "CC0" in about["licence"]
