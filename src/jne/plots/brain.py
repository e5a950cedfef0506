"""Pictures of voxel values on a brain: on inflated surfaces, or as slices of a volume."""

from functools import cache
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
from numpy.typing import NDArray

from jne.plots.meshes import (
    HEMISPHERES,
    N_VERTICES,
    drawn_mesh,
    in_volume,
    mesh_of,
    on_surface,
    sulcus,
    surface,
)
from jne.plots.style import subplots

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


def upper_limit(values: NDArray) -> float:
    """The top of a map's colour scale: the 99th percentile, so that no single voxel sets it."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99)), 1e-6) if len(finite) else 1.0


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
    """Values from 0 to `vmax`, on an inflated surface or as axial slices of a volume.

    Parameters
    ----------
    voxels : DataFrame
        A voxel table with positions: `hemisphere` and `vertex`, or `i`, `j`, `k`.
    values : (V,) array
    space : dict or None
        The shape and affine of a volume; None for a surface.
    label : str
        Of the colour bar.
    cmap : str
        A colour map of matplotlib.
    vmax : float
        Colours go from 0 to this.
    note : str
        A remark in the corner of the figure.

    Returns
    -------
    Figure
    """
    norm = Normalize(0, vmax)
    if "vertex" in voxels:
        figure, axes = _draw_surface(voxels, values, cmap, norm)
    else:
        assert space is not None  # as why_not_placed says
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
    mesh = drawn_mesh(mesh_of(voxels))
    for row, side in zip(axes, HEMISPHERES, strict=True):
        at_vertex = on_surface(voxels, values, side, N_VERTICES[mesh])
        for panel, (view, directions) in zip(row, _VIEWS.items(), strict=True):
            triangles, faces, light, grey = _visible_mesh(mesh, side, *directions[side])
            # A triangle shows the mean of its vertices that have a value.
            at_face = at_vertex[faces]
            count = np.isfinite(at_face).sum(axis=1)
            total = np.where(np.isfinite(at_face), at_face, 0).sum(axis=1)
            shade = np.repeat(grey[:, None], 3, axis=1)
            visible = count > 0
            shade[visible] = colours(norm(total[visible] / count[visible]))[:, :3]
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
    mesh: str, side: str, toward: tuple[int, ...], up: tuple[int, ...]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """The part of an inflated hemisphere that faces the viewer, from back to front.

    Returns T triangles in the plane of the picture (T, 3, 2), their vertices (T, 3), the light on
    them and the grey of their gyrus or sulcus (T,).
    """
    points, faces = surface(mesh, side, "inflated")
    viewer, above = np.array(toward, dtype=float), np.array(up, dtype=float)
    plane = np.column_stack([np.cross(above, viewer), above])  # (3, 2): right and up
    corners = points[faces]  # (T, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = normal @ viewer / np.linalg.norm(normal, axis=1)
    front = np.flatnonzero(facing > 0)
    front = front[np.argsort((corners[front].mean(axis=1)) @ viewer)]
    faces = faces[front]
    grey = np.where(sulcus(mesh, side)[faces].mean(axis=1) > 0.5, _GREYS[1], _GREYS[0])
    return corners[front] @ plane, faces, 0.75 + 0.25 * facing[front], grey


def _draw_slices(
    voxels: pd.DataFrame, values: NDArray, space: dict[str, Any], cmap: str, norm: Normalize
) -> tuple[Figure, Any]:
    volume = in_volume(voxels, values, space["shape"])
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
