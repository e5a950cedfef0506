"""Pictures of voxel values on a brain: on inflated surfaces, or as slices of a volume."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from jne.columns import axis_label, find
from jne.errors import InputError
from jne.plots.meshes import (
    HEMISPHERES,
    N_VERTICES,
    drawn_mesh,
    in_volume,
    mesh_of,
    on_surface,
    sulcus,
    surface,
    why_not_drawn,
)
from jne.plots.style import drawing, subplots

_GREYS = (0.86, 0.72)  # gyri and sulci
_PIXEL = 0.3  # mm; half of one in print at 200 dpi
# The axis that points to the viewer, and the one that points up.
_VIEWS = {
    "lateral": {"left": ((-1, 0, 0), (0, 0, 1)), "right": ((1, 0, 0), (0, 0, 1))},
    "medial": {"left": ((1, 0, 0), (0, 0, 1)), "right": ((-1, 0, 0), (0, 0, 1))},
    "ventral": {"left": ((0, 0, -1), (0, 1, 0)), "right": ((0, 0, -1), (0, 1, 0))},
    "posterior": {"left": ((0, -1, 0), (0, 0, 1)), "right": ((0, -1, 0), (0, 0, 1))},
}
_WIDTHS = (1.75, 1.75, 0.72, 0.92)  # of the views, which gives all of them the same scale
_MAX_SLICES, _COLUMNS = 12, 6


def upper_limit(values: NDArray) -> float:
    """The top of a map's colour scale: the 99th percentile, so that no single voxel sets it."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99)), 1e-6) if len(finite) else 1.0


def plot_map(
    run: Any,
    measure: str = "jne",
    ax: Axes | None = None,
    *,
    cmap: str | None = None,
    vmax: float | None = None,
) -> Axes:
    """A column of the voxel table on the brain: inflated surfaces, or axial slices of a volume.

    Meshes and the grey of gyri and sulci are nilearn's. Colours begin at 0; negative values are
    drawn as 0.

    Parameters
    ----------
    run : Results
        Of voxels with a position: columns `hemisphere` and `vertex`, or `i`, `j`, `k`.
    measure : str
        A column (docs/columns.md).
    ax : Axes, optional
        By default those of a new figure. The views are axes within them.
    cmap : str, optional
        A colour map of matplotlib, by default the measure's.
    vmax : float, optional
        Where the colours end, by default at the 99th percentile.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        A `ValueError`: where voxels have no position, or a mesh that cannot be drawn.
    """
    if reason := why_not_drawn(run.voxels, run.space):
        raise InputError("run", reason.removesuffix("."))
    entry = find(measure)
    values = run.voxels[measure].to_numpy(dtype=np.float64, na_value=np.nan)
    with drawing(ax, figsize=_size(run.voxels, values, run.space)) as axes:
        draw_on(
            axes,
            run.voxels,
            values,
            run.space,
            label=axis_label(measure),
            cmap=cmap or (entry.cmap if entry and entry.cmap else "viridis"),
            vmax=upper_limit(values) if vmax is None else vmax,
        )
    return axes


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
    """Any values (V,) on a brain, from 0 to `vmax`, as a figure of its own.

    Parameters
    ----------
    voxels : DataFrame
        A voxel table with positions, such as `Results.voxels`.
    values : (V,) array
    space : dict or None
        The shape and affine of a volume, `Results.space`; None for a surface.
    label : str
        Of the colour bar; a unit in a second line.
    cmap : str
        A colour map of matplotlib.
    vmax : float
        The value at the top of the colour bar.
    note : str
        In the corner of the figure.

    Returns
    -------
    Figure
    """
    figure, axes = subplots(figsize=_size(voxels, values, space), layout="constrained")
    draw_on(axes, voxels, values, space, label=label, cmap=cmap, vmax=vmax)
    if note:
        figure.text(0.005, 0.01, note, fontsize=7, color="#B03A00")
    return figure


def draw_on(
    axes: Axes,
    voxels: pd.DataFrame,
    values: NDArray,
    space: dict[str, Any] | None,
    *,
    label: str,
    cmap: str,
    vmax: float,
) -> None:
    """What `draw` draws, within axes."""
    norm = Normalize(0, vmax)
    axes.axis("off")
    if "vertex" in voxels:
        _draw_surface(axes, voxels, values, cmap, norm)
    else:
        assert space is not None  # as why_not_placed says
        _draw_slices(axes, voxels, values, space, cmap, norm)
    name, _, unit = label.partition("\n")
    axes.figure.colorbar(
        ScalarMappable(norm, cmap),
        ax=axes,
        label=f"{name}, n = {np.isfinite(values).sum()} voxels\n{unit}".strip(),
        shrink=0.7,
        aspect=25,
        pad=0.02,
    )


def _size(
    voxels: pd.DataFrame, values: NDArray, space: dict[str, Any] | None
) -> tuple[float, float]:
    if "vertex" in voxels:
        return 6.8, 2.7
    assert space is not None
    return 6.8, 1.35 * -(-len(_levels(voxels, values, space)) // _COLUMNS) + 0.2


def _grid(axes: Axes, rows: int, widths: Sequence[float]) -> NDArray[Any]:
    """Axes within axes: so many rows, and columns with these relative widths."""
    right = np.cumsum(widths) / sum(widths)
    gap = 0.01
    return np.array(
        [
            [
                axes.inset_axes(
                    (end - width / sum(widths) + gap, 1 - (row + 1) / rows + gap,
                     width / sum(widths) - 2 * gap, 0.88 / rows)
                )
                for end, width in zip(right, widths, strict=True)
            ]
            for row in range(rows)
        ]
    )  # fmt: skip


def _draw_surface(
    axes: Axes, voxels: pd.DataFrame, values: NDArray, cmap: str, norm: Normalize
) -> None:
    colours = matplotlib.colormaps[cmap]
    mesh = drawn_mesh(mesh_of(voxels))
    for row, side in zip(_grid(axes, 2, _WIDTHS), HEMISPHERES, strict=True):
        at_vertex = on_surface(voxels, values, side, N_VERTICES[mesh])
        for panel, (view, directions) in zip(row, _VIEWS.items(), strict=True):
            picture, faces, light, grey = _visible_mesh(mesh, side, *directions[side])
            # A triangle shows the mean of its vertices that have a value.
            at_face = at_vertex[faces]
            count = np.isfinite(at_face).sum(axis=1)
            total = np.where(np.isfinite(at_face), at_face, 0).sum(axis=1)
            shade = np.repeat(grey[:, None], 3, axis=1)
            visible = count > 0
            shade[visible] = colours(norm(total[visible] / count[visible]))[:, :3]
            rgba = np.array([*to_rgba_array(shade * light[:, None]), (1, 1, 1, 0)])
            panel.imshow((255 * rgba).round().astype(np.uint8)[picture], origin="lower")
            panel.axis("off")
            if side == "left":
                panel.set_title(view, loc="center", fontsize=8, fontweight="normal")
        row[0].text(-0.06, 0.5, side, transform=row[0].transAxes, rotation=90, va="center")


@cache
def _visible_mesh(
    mesh: str, side: str, toward: tuple[int, ...], up: tuple[int, ...]
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """The part of an inflated hemisphere that faces the viewer, drawn once for all maps.

    Returns which of T triangles each pixel shows, T where none (height, width), from the bottom to
    the top; the vertices of the triangles (T, 3), the light on them and the grey of their gyrus or
    sulcus (T,).
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
    return _rasterise(corners[front] @ plane), faces, 0.75 + 0.25 * facing[front], grey


def _rasterise(triangles: NDArray) -> NDArray[np.int32]:
    """Which of T triangles (T, 3, 2), in mm and from back to front, a pixel shows; T where none.

    (height, width), with a margin of 5 %.
    """
    lowest, highest = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    margin = 0.05 * (highest - lowest)
    width, height = np.ceil((highest - lowest + 2 * margin) / _PIXEL).astype(int).tolist()
    picture = Image.new("I", (width, height), len(triangles))
    pen = ImageDraw.Draw(picture)
    for k, corners in enumerate(((triangles - lowest + margin) / _PIXEL).reshape(-1, 6).tolist()):
        pen.polygon(corners, fill=k)
    return np.array(picture)


def _levels(voxels: pd.DataFrame, values: NDArray, space: dict[str, Any]) -> NDArray[np.int64]:
    """The slices that are drawn."""
    levels = np.unique(np.nonzero(np.isfinite(in_volume(voxels, values, space["shape"])))[2])
    return levels[np.unique(np.linspace(0, len(levels) - 1, _MAX_SLICES).astype(int))]


def _draw_slices(
    axes: Axes,
    voxels: pd.DataFrame,
    values: NDArray,
    space: dict[str, Any],
    cmap: str,
    norm: Normalize,
) -> None:
    volume = in_volume(voxels, values, space["shape"])
    i, j, _ = np.nonzero(np.isfinite(volume))
    chosen = _levels(voxels, values, space)
    window = (slice(i.min(), i.max() + 1), slice(j.min(), j.max() + 1))
    columns = min(_COLUMNS, len(chosen))
    panels = _grid(axes, -(-len(chosen) // columns), [1] * columns)
    ends = _ends_of_rows(np.array(space["affine"]))
    for panel, level in zip(panels.flat, chosen, strict=False):
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
    for panel in panels.flat[len(chosen) :]:
        panel.axis("off")


def _ends_of_rows(affine: NDArray) -> tuple[str, str]:
    """The sides of the brain, such as L and R, at the first and the last index i of a volume.

    Both are empty where the affine does not say so, because it does not move along i.
    """
    side = nib.aff2axcodes(affine)[0]
    ends = {"R": ("L", "R"), "L": ("R", "L"), "A": ("P", "A"), "P": ("A", "P"),
            "S": ("I", "S"), "I": ("S", "I")}  # fmt: skip
    return ends.get(side, ("", ""))
