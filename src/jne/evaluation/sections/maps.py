"""Measures on the brain: maps that other programs open, and pictures of them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from jne.columns import axis_label, maps, maps_of
from jne.evaluation.sections.base import Section, Tables
from jne.evaluation.voxels import SubjectData

_FORMATS = {".nii.gz": "NIfTI", ".func.gii": "GIFTI", ".dscalar.nii": "CIFTI"}


class Maps(Section):
    title = "Maps"
    captions: Mapping[str, str] = {
        f"map_{measure.file_name}": f"{measure.label[:1].upper()}{measure.label[1:]} of every "
        "voxel that has one, significant or not. The scale starts at 0; negative values are drawn "
        "as 0."
        for measure in maps()
    }

    def figures(self, data: SubjectData, tables: Tables) -> dict[str, Figure]:
        if not data.may_have_positions:
            return {}
        from jne.plots import brain, meshes  # nilearn takes seconds to import

        run = data.subject.nonlinear
        if meshes.why_not_drawn(data.voxels, run.space):
            return {}
        synthetic = run.config["data"]["_target_"].endswith(".Synthetic")
        drawn = {}
        for measure in maps_of(data.voxels):
            if measure.static:
                values = measure.values(data.voxels)
                drawn[f"map_{measure.file_name}"] = brain.draw(
                    data.voxels,
                    values,
                    run.space,
                    label=axis_label(measure.name),
                    cmap=measure.cmap,
                    vmax=brain.upper_limit(values),
                    note="synthetic data" if synthetic else "",
                )
        return drawn

    def write_files(self, data: SubjectData, folder: Path) -> dict[str, str]:
        if not data.may_have_positions:
            return {}
        from jne.plots import brain_files, meshes

        run = data.subject.nonlinear
        if meshes.why_not_placed(data.voxels, run.space):
            return {}
        folder = folder / "maps"
        label = brain_files.subject_label(data.name)
        if (folder / f"sub-{label}").exists():  # of a subject whose name gives the same label
            label += hashlib.sha256(data.name.encode()).hexdigest()[:8]
        measures = maps_of(data.voxels)
        brain_files.describe_dataset(
            folder, {measure.file_name: measure.description for measure in measures}
        )
        written: list[Path] = []
        for measure in measures:
            written += brain_files.write_maps(
                folder,
                label,
                measure.file_name,
                data.voxels,
                measure.values(data.voxels),
                run.space,
                str(run.config["data"].get("space", "")),
            )
        formats = [
            name for end, name in _FORMATS.items() if any(p.name.endswith(end) for p in written)
        ]
        return {"maps/": f"maps of all measures, named as BIDS derivatives: {', '.join(formats)}"}
