"""Voxels of a NIfTI mask, against nilearn: their order, places and regions, and maps of them."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import no_figures, run_quietly
from nilearn.maskers import NiftiMasker

from jne import Results
from jne.data.arrays import Arrays
from jne.data.prepared import prepare
from jne.errors import InputError

SHAPE = (5, 6, 4)
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 2, 1], [0, 0, 0, 1]])


def save(folder, name, values, affine=AFFINE):
    nib.Nifti1Image(values, affine).to_filename(folder / name)
    return folder / name


@pytest.fixture
def volume(tmp_path):
    """A time series, of which NiftiMasker makes the responses; a mask and an atlas of it."""
    rng = np.random.default_rng(0)
    mask = save(tmp_path, "mask.nii.gz", (rng.random(SHAPE) < 0.3).astype(np.uint8))
    atlas = rng.integers(0, 3, SHAPE).astype(np.int16) * 10
    save(tmp_path, "atlas.nii.gz", atlas)
    series = save(tmp_path, "series.nii.gz", rng.standard_normal((*SHAPE, 60)))
    masker = NiftiMasker(mask, standardize=None).fit()
    np.save(tmp_path / "y.npy", masker.transform(series))
    np.save(tmp_path / "x.npy", rng.standard_normal((60, 3)))
    pd.DataFrame({"index": [10, 20, 30], "name": ["V1", "V2", "FFA"]}).to_csv(
        tmp_path / "labels.tsv", sep="\t", index=False
    )
    return tmp_path, masker, atlas


def source(folder, **keys):
    files = {"features": "x.npy", "responses": "y.npy", "mask": "mask.nii.gz"}
    return Arrays(name="own", subject="s1", root=folder, **{**files, **keys})


def test_voxels_are_where_nilearn_has_them(volume):
    folder, masker, atlas = volume
    data = prepare(source(folder, atlas="atlas.nii.gz", atlas_labels="labels.tsv"), folder / "p")
    places = tuple(data.voxels[list("ijk")].to_numpy().T)
    numbers = np.arange(len(data.voxels), dtype=np.float64)
    back = masker.inverse_transform(numbers).get_fdata()
    np.testing.assert_array_equal(back[places], numbers)
    assert data.space == {"shape": list(SHAPE), "affine": AFFINE.tolist()}
    names = np.array([{0: "", 10: "V1", 20: "V2"}[number] for number in atlas[places]])
    np.testing.assert_array_equal(data.voxels["roi"].fillna(""), names)


def test_regions_without_names_have_numbers(volume):
    folder, _, atlas = volume
    data = prepare(source(folder, atlas="atlas.nii.gz"), folder / "p")
    places = tuple(data.voxels[list("ijk")].to_numpy().T)
    names = [str(number) if number else "" for number in atlas[places]]
    assert data.voxels["roi"].fillna("").astype(str).tolist() == names


@pytest.mark.runs
def test_maps_of_a_run_are_nilearns(volume, store):
    folder, masker, _ = volume
    keys = [
        "data=arrays", f"data.root={folder}", "data.features=x.npy", "data.responses=y.npy",
        "data.mask=mask.nii.gz", "encoder=ridge",
    ]  # fmt: skip
    with no_figures():
        (run,) = run_quietly(folder / "out", store, "train.py", *keys)
    results = Results(run)
    assert results.space["shape"] == list(SHAPE)
    places = tuple(results.voxels[list("ijk")].to_numpy().T)
    expected = masker.inverse_transform(results.voxels["r2"].to_numpy()).get_fdata()
    np.testing.assert_allclose(expected[places], results.voxels["r2"], rtol=1e-6)
    image = results.to_nifti("r2")
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(image.get_fdata()[places], expected[places].astype(np.float32))
    assert np.isfinite(image.get_fdata()).sum() == len(results.voxels)
    with pytest.raises(InputError, match="are in a volume: to_nifti"):
        results.to_gifti("r2")


def test_a_table_of_voxels_may_be_beside_it(volume):
    folder, _, _ = volume
    n = np.load(folder / "y.npy").shape[1]
    pd.DataFrame({"depth": np.arange(n)}).to_csv(folder / "v.tsv", sep="\t", index=False)
    keys = {"voxels": "v.tsv", "roi_column": None, "atlas": "atlas.nii.gz"}
    data = prepare(source(folder, **keys), folder / "p")
    assert data.voxels["depth"].tolist() == list(range(n))
    assert set(data.voxels["roi"].fillna("").astype(str)) == {"", "10", "20"}


def wrong(folder, name):
    """Keys that are refused, once the files are made that they name."""
    n = np.load(folder / "y.npy").shape[1]
    if name == "few":
        save(folder, "mask.nii.gz", np.ones(SHAPE, np.uint8))
    if name == "moved":
        moved = AFFINE.copy()
        moved[0, 3] += 2
        save(folder, "atlas.nii.gz", np.zeros(SHAPE, np.int16), moved)
    if name == "shape":
        save(folder, "atlas.nii.gz", np.zeros((5, 6, 5), np.int16))
    if name == "fractions":
        save(folder, "atlas.nii.gz", np.full(SHAPE, 0.5))
    if name == "four axes":
        save(folder, "mask.nii.gz", np.ones((*SHAPE, 2), np.uint8))
    if name == "truncated":
        content = (folder / "mask.nii.gz").read_bytes()
        (folder / "mask.nii.gz").write_bytes(content[: len(content) // 2])
    if name == "no name":
        (folder / "labels.tsv").write_text("index\tname\n10\tV1\n")
    if name == "no column":
        (folder / "labels.tsv").write_text("number\tname\n10\tV1\n")
    if name == "twice":
        (folder / "labels.tsv").write_text("index\tname\n10\tV1\n10\tV2\n20\tV3\n")
    if name == "places":
        pd.DataFrame({"i": range(n), "roi": ""}).to_csv(folder / "v.csv", index=False)
        return {"voxels": "v.csv"}
    if name == "regions":
        pd.DataFrame({"roi": ["V1"] * n}).to_csv(folder / "v.csv", index=False)
        return {"voxels": "v.csv", "atlas": "atlas.nii.gz"}
    if name == "no mask":
        return {"mask": None, "atlas": "atlas.nii.gz"}
    if name in ("no name", "no column", "twice"):
        return {"atlas": "atlas.nii.gz", "atlas_labels": "labels.tsv"}
    return {"atlas": "atlas.nii.gz"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("few", r"data\.mask=mask\.nii\.gz: has 120 voxels above 0, but data\.responses has \d+"),
        ("moved", r"data\.atlas: .* has another affine than mask\.nii\.gz"),
        ("shape", r"data\.atlas: .* has shape \(5, 6, 5\), expected \(5, 6, 4\)"),
        ("fractions", r"data\.atlas: .* must hold whole numbers"),
        ("four axes", r"data\.mask: .* expected three axes"),
        ("truncated", r"data\.mask: "),
        ("no name", r"data\.atlas_labels: .* has no row for 20"),
        ("no column", r"data\.atlas_labels: .* has no column index"),
        ("twice", r"data\.atlas_labels: .*: index must be a number each"),
        ("places", r"data\.mask: .* so does the column i of v\.csv"),
        ("regions", r"data\.atlas: names regions, and so does v\.csv"),
        ("no mask", r"atlas=atlas\.nii\.gz: has no effect without data\.mask"),
    ],
)
def test_what_does_not_fit_is_one_sentence(volume, name, sentence):
    folder, _, _ = volume
    keys = wrong(folder, name)
    with pytest.raises(ValueError, match=sentence):
        prepare(source(folder, **keys), folder / "p")
