"""What the interactive brain of the page shows: meshes, volumes and voxel values, packed.

One array buffer, compressed: the arrays, and a JSON that says where in it each of them is. Voxel
values are 16-bit steps. brain.js unpacks it; niivue, of which nilearn ships a copy, draws it.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from jne.columns import VARIANCE, Column, maps_of
from jne.data.source import source_class
from jne.evaluation.voxels import SubjectData
from jne.plots import meshes
from jne.plots.brain import upper_limit
from jne.results import Results

_MISSING = 65535
_STEPS = _MISSING - 1
_MASK = "nonlinear"
"""The column whose voxels measures of nonlinearity are shown of; brain.js has its name, too."""
_MARGIN = 8  # around the voxels of a volume, in voxels


def viewer(subjects: Sequence[SubjectData]) -> dict[str, Any] | None:
    """What the template of the interactive brain takes; None where no voxel has a position."""
    placed, notes = [], []
    for data in subjects:
        reason = meshes.why_not_drawn(data.voxels, data.subject.nonlinear.space)
        if reason:
            notes.append(f"{data.name}: {reason}")
        else:
            placed.append(data)
    script = _niivue()
    if not placed or script is None:
        return None
    rois = sorted({str(roi) for data in placed for roi in data.voxels["roi"].unique()} | {""})
    views = [_subject(data, rois) for data in placed]
    notes += list(dict.fromkeys(note for one in views for note in one.pop("notes")))
    used = {one["mesh"] for one in views if "mesh" in one}
    cmaps = {measure["cmap"] for one in views for measure in one["measures"]}
    content = {
        "rois": rois,
        "meshes": {name: _mesh(name) for name in sorted(used)},
        "luts": {name: _lut(name) for name in sorted(cmaps)},
        "subjects": views,
    }
    return {
        "subjects": [one["name"] for one in views],
        "notes": notes,
        "data": pack(content),
        "script": script,
    }


def _niivue() -> str | None:
    """nilearn's copy of niivue, compressed; None for a nilearn that has none."""
    script = files("nilearn").joinpath("_assets", "js", "niivue.umd.js")
    if not script.is_file():
        return None
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode()


def pack(content: Any) -> str:
    """Nested dicts and lists with arrays as text: compressed, in base64.

    Arrays are little-endian u1, u2, u4, i2 or f4. In the JSON, {"array": type, "at": byte, "n":
    length} stands for one.
    """
    chunks: list[bytes] = []
    size = 0

    def placed(value: Any) -> Any:
        nonlocal size
        if isinstance(value, dict):
            return {name: placed(item) for name, item in value.items()}
        if isinstance(value, list):
            return [placed(item) for item in value]
        if not isinstance(value, np.ndarray):
            return value
        content = value.tobytes()
        reference = {"array": value.dtype.str[1:], "at": size, "n": value.size}
        chunks.append(content + bytes(-len(content) % 8))
        size += len(chunks[-1])
        return reference

    text = json.dumps(placed(content), allow_nan=False).encode()
    head = len(text).to_bytes(4, "little") + text
    whole = b"".join([head, bytes(-len(head) % 8), *chunks])
    return base64.b64encode(gzip.compress(whole, 6, mtime=0)).decode()


def _subject(data: SubjectData, rois: Sequence[str]) -> dict[str, Any]:
    voxels, space = data.voxels, data.subject.nonlinear.space
    measures = maps_of(voxels)
    values = {measure.file_name: measure.values(voxels) for measure in measures}
    scales = {name: _scale(column) for name, column in values.items()}
    label = {name: number for number, name in enumerate(rois)}
    steps = {name: _steps(column, *scales[name][:2]) for name, column in values.items()}
    numbers = voxels["roi"].map(label).to_numpy(dtype="<u2")

    def chosen(rows: NDArray, at: NDArray) -> dict[str, Any]:
        of_rows = {name: column[rows] for name, column in steps.items()}
        return {"at": at.astype("<u4"), "roi": numbers[rows], "values": of_rows}

    view: dict[str, Any] = {
        "name": data.name,
        "measures": [_described(measure, *scales[measure.file_name]) for measure in measures],
        "mask": _mask_label(data),
        "notes": [],
    }
    if "vertex" in voxels:
        mesh = meshes.mesh_of(voxels)
        drawn = meshes.drawn_mesh(mesh)
        view["mesh"] = drawn
        if drawn != mesh:
            view["notes"].append(
                f"Of {mesh}, the brain shows the vertices that {drawn} has, one in sixteen; the "
                f"files in maps/ have all."
            )
        for side in meshes.HEMISPHERES:
            within = meshes.vertices_within(voxels, side, meshes.N_VERTICES[drawn])
            rows = np.flatnonzero(within)
            vertices = voxels["vertex"].iloc[rows].to_numpy(dtype=np.int64)
            view[side] = chosen(rows, vertices)
        return view
    assert space is not None  # as why_not_drawn says
    index = voxels[["i", "j", "k"]].to_numpy(dtype=np.int64).T
    corner = np.maximum(index.min(axis=1) - _MARGIN, 0)
    end = np.minimum(index.max(axis=1) + 1 + _MARGIN, space["shape"])
    shape = [int(n) for n in end - corner]
    at = np.ravel_multi_index(tuple(index - corner[:, None]), tuple(shape), order="F")
    affine = np.array(space["affine"], dtype=np.float64)
    affine[:3, 3] += affine[:3, :3] @ corner
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), affine).header
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", 352
    background = _mean_image(data.subject.nonlinear)
    if background is None:
        view["notes"].append("Slices: no mean image was found, so all voxels are grey below.")
    else:
        background = background[tuple(map(slice, corner, end))]
        high = np.percentile(background[background > 0], 99.5)
        grey = np.clip(255 * background / high, 0, 255).astype("u1").ravel(order="F")
    return view | {
        "shape": shape,
        "corner": corner.tolist(),
        "size": int(np.prod(shape)),
        "header": np.frombuffer(header.binaryblock + bytes(4), dtype="u1"),
        "background": None if background is None else grey,
        **chosen(np.arange(len(voxels)), at),
    }


def _mean_image(run: Results) -> NDArray[np.float64] | None:
    """The mean functional image of the volume that a run is in, where it is still there."""
    data, space = run.config["data"], run.space
    image = source_class(data["_target_"]).mean_image(data)
    if image is None or space is None or list(image.shape) != list(space["shape"]):
        return None
    return image if (image > 0).any() else None


def _mask_label(data: SubjectData) -> str:
    """What a brain is called that shows the nonlinear voxels alone; empty where none was tested."""
    if _MASK not in data.voxels or data.voxels[_MASK].isna().all():
        return ""
    tested, rate = data.voxels[_MASK].dropna(), data.config.inference.q
    return f"nonlinear voxels only (q ≤ {rate:g}: {tested.sum()} of {len(tested)})"


def _described(measure: Column, low: float, high: float, top: float) -> dict[str, Any]:
    return {
        "name": measure.file_name,
        "label": measure.label,
        "cmap": measure.cmap,
        "low": low,
        "high": high,
        "top": top,
        "masked": measure.unit != VARIANCE and measure.name != _MASK,
    }


def _scale(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The smallest and the largest value, and the top of the colour scale."""
    finite = values[np.isfinite(values)]
    return float(finite.min()), float(finite.max()), upper_limit(values)


def _steps(numbers: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint16]:
    share = (numbers - low) / (high - low) if high > low else np.where(np.isnan(numbers), np.nan, 0)
    steps = np.full(len(numbers), _MISSING, dtype="<u2")
    finite = np.isfinite(share)
    steps[finite] = np.round(share[finite] * _STEPS)
    return steps


def _mesh(name: str) -> dict[str, Any]:
    """Both hemispheres of a mesh: its surfaces, in hundredths of a millimetre, and its sulci."""
    surfaces = ["inflated", "flat"]
    mesh: dict[str, Any] = {"surfaces": surfaces}
    for side in meshes.HEMISPHERES:
        shapes = {}
        for surface in surfaces:
            points, faces = meshes.surface(name, side, surface)
            size = "<u2" if len(points) <= _MISSING else "<u4"
            shapes[surface] = {
                "points": np.round(100 * points).astype("<i2").ravel(),
                "faces": faces.astype(size).ravel(),
            }
        mesh[side] = shapes | {"sulcus": meshes.sulcus(name, side).astype("u1")}
    return mesh


def _lut(cmap: str) -> NDArray[np.uint8]:
    """256 colours, red, green and blue each."""
    colours = matplotlib.colormaps[cmap](np.linspace(0, 1, 256))[:, :3]
    return np.round(255 * colours).astype("u1").ravel()
