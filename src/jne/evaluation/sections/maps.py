"""R², JNE and W on the brain: maps that nilearn loads, and pictures of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.voxels import SubjectData

_MAPS = {
    "r2": ("r2_nonlinear", "R²", "viridis"),
    "jne": ("jne", "JNE", "magma"),
    "w": ("w", "W = JNE − JNE of the linear twin", "magma"),
}
"""Name: column of the voxel table, label, colour map."""


class Maps(Section):
    title = "Maps"
    captions: Mapping[str, str] = {
        "map_r2": "R² of the nonlinear encoder on the test stimuli. The scale starts at 0; "
        "negative values are drawn as 0.",
        "map_jne": "JNE of every voxel that has one, significant or not.",
        "map_w": "W of every voxel that has one, significant or not. The scale starts at 0; "
        "negative values are drawn as 0.",
    }
    files: Mapping[str, str] = {
        "maps/": "maps of R², JNE and W for nilearn (GIFTI or NIfTI), where voxels have a position "
        "in a brain",
    }

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not _have_positions(data):
            return {}
        from jne.plots import brain

        run = data.subject.nonlinear
        synthetic = run.config["data"]["_target_"].endswith(".Synthetic")
        drawn = {}
        for name, (column, label, cmap) in _shown(data).items():
            values = data.voxels[column].to_numpy()
            drawn[f"map_{name}"] = brain.draw(
                data.voxels,
                values,
                run.space,
                label=label,
                cmap=cmap,
                vmax=_upper_limit(values),
                note="synthetic data" if synthetic else "",
            )
        return drawn

    def write_files(self, data: SubjectData, folder: Path) -> None:
        if not _have_positions(data):
            return
        from jne.plots import brain

        for name, (column, _, _) in _shown(data).items():
            brain.write_maps(
                folder / "maps",
                f"{data.file_name}_{name}",
                data.voxels,
                data.voxels[column].to_numpy(),
                data.subject.nonlinear.space,
            )


def _shown(data: SubjectData) -> dict[str, tuple[str, str, str]]:
    return {name: shown for name, shown in _MAPS.items() if shown[0] in data.voxels}


def _have_positions(data: SubjectData) -> bool:
    if not {"vertex", "k"} & set(data.voxels):
        return False
    from jne.plots import brain  # nilearn takes seconds to import

    return brain.have_positions(data.voxels, data.subject.nonlinear.space)


def _upper_limit(values: NDArray) -> float:
    """The top of a map's colour scale: the 99th percentile, so that no single voxel sets it."""
    finite = values[np.isfinite(values)]
    return max(float(np.percentile(finite, 99)), 1e-6) if len(finite) else 1.0
