"""The surface that voxels are of: all vertices of a mesh, those of the left hemisphere first."""

import numpy as np
import pandas as pd

from jne.errors import InputError
from jne.plots.meshes import HEMISPHERES, N_VERTICES
from jne.utils import fslr


def vertices_of(mesh: str, n_voxels: int) -> pd.DataFrame:
    """Columns hemisphere, vertex and mesh of all vertices of a mesh, (V,).

    Of fsLR, n_voxels may also be 59,412 (the cortex without its medial wall) or 91,282 (all
    standard grayordinates), in the order of CIFTI files; below the cortex there is no vertex.
    Raises InputError, naming `data.surface`, for any other number.
    """
    n = N_VERTICES[mesh]
    if n_voxels == 2 * n:
        hemisphere = np.repeat(np.array(HEMISPHERES), n)
        columns = {"hemisphere": hemisphere, "vertex": np.tile(np.arange(n), 2), "mesh": mesh}
        return pd.DataFrame(columns)
    if mesh == fslr.MESH and n_voxels in (fslr.N_CORTEX, fslr.N_GRAYORDINATES):
        return fslr.positions(np.arange(n_voxels))
    numbers = f"{2 * n} vertices, those of the left hemisphere first"
    if mesh == fslr.MESH:
        numbers += f", or {fslr.N_CORTEX} or {fslr.N_GRAYORDINATES} grayordinates"
    raise InputError(
        "data.surface", f"has {numbers}, but data.responses has {n_voxels} voxels", value=mesh
    )
