"""Maps of voxel values on a brain: files that nilearn loads, and pictures.

A voxel table gives the positions of its voxels in one of two sets of columns:

    hemisphere, vertex   left or right, and a vertex of the fsaverage mesh of that hemisphere, from
                         0 (the first 10,242 vertices are those of fsaverage5); empty for a voxel
                         without a position. A column `mesh` says that it is not fsaverage5
    i, j, k              indices into a volume, whose `space` is a dict of its shape and affine
"""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_data, load_surf_mesh
from numpy.typing import NDArray

from jne.plots.style import subplots
from jne.utils.files import atomic_file, make_folder

HEMISPHERES = ("left", "right")
_FSAVERAGE5, _FSAVERAGE = 10_242, 163_842
_GREYS = (0.86, 0.72)  # gyri and sulci
# The axis that points to the viewer, and the one that points up.
_VIEWS = {
    "lateral": {"left": ((-1, 0, 0), (0, 0, 1)), "right": ((1, 0, 0), (0, 0, 1))},
    "medial": {"left": ((1, 0, 0), (0, 0, 1)), "right": ((-1, 0, 0), (0, 0, 1))},
    "ventral": {"left": ((0, 0, -1), (0, 1, 0)), "right": ((0, 0, -1), (0, 1, 0))},
    "posterior": {"left": ((0, -1, 0), (0, 0, 1)), "right": ((0, -1, 0), (0, 0, 1))},
}
_WIDTHS = (1.75, 1.75, 0.72, 0.92)  # of the views, which gives all of them the same scale
_MAX_SLICES = 12


def have_positions(voxels: pd.DataFrame, space: dict[str, Any] | None) -> bool:
    """Whether any of these voxels has a position, so that a map can be drawn."""
    if {"hemisphere", "vertex"} <= set(voxels):
        return bool(voxels["vertex"].notna().any())
    return space is not None and {"i", "j", "k"} <= set(voxels)


def write_maps(
    folder: Path, name: str, voxels: pd.DataFrame, values: NDArray, space: dict[str, Any] | None
) -> list[Path]:
    """Write NAME_left.gii and NAME_right.gii, or NAME.nii.gz: float32, NaN outside the voxels.

    values: (V,). The mesh is fsaverage5 if all vertices are on it and there is no column `mesh`,
    else fsaverage. Returns the paths. Raises InputError where `folder` cannot be written to.
    """
    make_folder(folder)
    if "vertex" not in voxels:
        assert space is not None  # as have_positions says
        volume = nib.Nifti1Image(_volume(voxels, values, space), np.array(space["affine"]))
        return [_write(folder / f"{name}.nii.gz", gzip.compress(volume.to_bytes(), mtime=0))]
    small = "mesh" not in voxels and voxels["vertex"].max() < _FSAVERAGE5
    paths = []
    for side in HEMISPHERES:
        data = _on_surface(voxels, values, side, _FSAVERAGE5 if small else _FSAVERAGE)
        array = nib.gifti.GiftiDataArray(data, intent="NIFTI_INTENT_SHAPE", datatype="float32")
        image = nib.gifti.GiftiImage(darrays=[array])
        paths.append(_write(folder / f"{name}_{side}.gii", image.to_bytes()))
    return paths


def draw(
    voxels: pd.DataFrame,
    values: NDArray,
    space: dict[str, Any] | None,
    *,
    label: str,
    cmap: str,
    vmax: float,
    note: str = "",
) -> Figure:
    """Values (V,) from 0 to `vmax`, on the inflated fsaverage5 or as axial slices of a volume.

    label: of the colour bar. note: a remark in the corner of the figure.
    """
    norm = Normalize(0, vmax)
    if "vertex" in voxels:
        figure, axes = _draw_surface(voxels, values, cmap, norm)
    else:
        assert space is not None  # as have_positions says
        figure, axes = _draw_slices(voxels, values, space, cmap, norm)
    figure.colorbar(
        ScalarMappable(norm, cmap), ax=axes, label=label, shrink=0.7, aspect=25, pad=0.02
    )
    if note:
        figure.text(0.005, 0.01, note, fontsize=7, color="#B03A00")
    return figure


def _draw_surface(
    voxels: pd.DataFrame, values: NDArray, cmap: str, norm: Normalize
) -> tuple[Figure, Any]:
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    figure, axes = subplots(2, 4, figsize=(6.8, 2.7), width_ratios=_WIDTHS, layout=layout)
    colours = matplotlib.colormaps[cmap]
    for row, side in zip(axes, HEMISPHERES, strict=True):
        at_vertex = _on_surface(voxels, values, side, _FSAVERAGE5)
        for panel, (view, directions) in zip(row, _VIEWS.items(), strict=True):
            triangles, faces, light, grey = _visible_mesh(side, *directions[side])
            # A triangle shows the mean of its vertices that have a value.
            at_face = at_vertex[faces]
            count = np.isfinite(at_face).sum(axis=1)
            total = np.where(np.isfinite(at_face), at_face, 0).sum(axis=1)
            shade = np.repeat(grey[:, None], 3, axis=1)
            shown = count > 0
            shade[shown] = colours(norm(total[shown] / count[shown]))[:, :3]
            panel.add_collection(
                PolyCollection(
                    triangles,  # type: ignore[arg-type]  # an array is drawn faster than a list
                    facecolors=shade * light[:, None],
                    edgecolors="face",
                    linewidths=0.15,
                    rasterized=True,
                )
            )
            panel.set_aspect("equal")
            panel.autoscale_view()
            panel.axis("off")
            if side == "left":
                panel.set_title(view, loc="center", fontsize=8, fontweight="normal")
        row[0].text(-0.06, 0.5, side, transform=row[0].transAxes, rotation=90, va="center")
    return figure, axes


@cache
def _visible_mesh(
    side: str, toward: tuple[int, ...], up: tuple[int, ...]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """The part of an inflated hemisphere that faces the viewer, from back to front.

    Returns T triangles in the plane of the picture (T, 3, 2), their vertices (T, 3), the light on
    them and the grey of their gyrus or sulcus (T,).
    """
    meshes = fetch_surf_fsaverage("fsaverage5")  # shipped with nilearn
    mesh = load_surf_mesh(meshes[f"infl_{side}"])
    sulcus = load_surf_data(meshes[f"sulc_{side}"]) > 0
    viewer, above = np.array(toward, dtype=float), np.array(up, dtype=float)
    plane = np.column_stack([np.cross(above, viewer), above])  # (3, 2): right and up
    corners = mesh.coordinates[mesh.faces]  # (T, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = normal @ viewer / np.linalg.norm(normal, axis=1)
    front = np.flatnonzero(facing > 0)
    front = front[np.argsort((corners[front].mean(axis=1)) @ viewer)]
    faces = mesh.faces[front]
    grey = np.where(sulcus[faces].mean(axis=1) > 0.5, _GREYS[1], _GREYS[0])
    return corners[front] @ plane, faces, 0.75 + 0.25 * facing[front], grey


def _draw_slices(
    voxels: pd.DataFrame, values: NDArray, space: dict[str, Any], cmap: str, norm: Normalize
) -> tuple[Figure, Any]:
    volume = _volume(voxels, values, space)
    i, j, k = np.nonzero(np.isfinite(volume))
    levels = np.unique(k)
    chosen = levels[np.unique(np.linspace(0, len(levels) - 1, _MAX_SLICES).astype(int))]
    window = (slice(i.min(), i.max() + 1), slice(j.min(), j.max() + 1))
    columns = min(6, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = subplots(
        rows, columns, figsize=(6.8, 1.35 * rows + 0.2), squeeze=False, layout="constrained"
    )
    ends = _ends_of_rows(np.array(space["affine"]))
    for panel, level in zip(axes.flat, chosen, strict=False):
        panel.imshow(
            volume[..., level][window].T, origin="lower", cmap=cmap, norm=norm, aspect="equal"
        )
        panel.set_facecolor("#EEEEEE")
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"k = {level}", fontsize=7, loc="center", fontweight="normal")
        panel.spines[:].set_visible(False)
        for x, side in zip((0.02, 0.98), ends, strict=True):
            panel.text(
                x, 0.98, side, transform=panel.transAxes, fontsize=6, va="top",
                ha="left" if x < 0.5 else "right",
            )  # fmt: skip
    for panel in axes.flat[len(chosen) :]:
        panel.axis("off")
    return figure, axes


def _ends_of_rows(affine: NDArray) -> tuple[str, str]:
    """The sides of the brain, such as L and R, at the first and the last index i of a volume.

    Both are empty where the affine does not say so, because it does not move along i.
    """
    side = nib.aff2axcodes(affine)[0]
    ends = {"R": ("L", "R"), "L": ("R", "L"), "A": ("P", "A"), "P": ("A", "P"),
            "S": ("I", "S"), "I": ("S", "I")}  # fmt: skip
    return ends.get(side, ("", ""))


def _on_surface(voxels: pd.DataFrame, values: NDArray, side: str, n: int) -> NDArray[np.float32]:
    """Values at the first n vertices of a hemisphere, (n,); NaN where there is no voxel."""
    drawn = ((voxels["hemisphere"] == side) & (voxels["vertex"] < n)).to_numpy()
    data = np.full(n, np.nan, dtype=np.float32)
    data[voxels.loc[drawn, "vertex"].astype(int)] = values[drawn]
    return data


def _volume(voxels: pd.DataFrame, values: NDArray, space: dict[str, Any]) -> NDArray[np.float32]:
    volume = np.full(space["shape"], np.nan, dtype=np.float32)
    volume[tuple(voxels[axis].to_numpy() for axis in ("i", "j", "k"))] = values
    return volume


def _write(path: Path, content: bytes) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path
