"""The one on-disk format that every data source writes and that everything after it reads.

    features.npy      (n_stimuli, n_features) float32
    responses.npy     (n_stimuli, n_voxels) float32, mean over repeats, NaN where there is none
    *_offset.npy      (n_columns,) float64, what was subtracted from each column of features or
                      responses; only where float32 could not hold them (jne.data.centring)
    stimuli.csv       one row per stimulus: stimulus, split (train, val or test), category, ...
    voxels.csv        one row per voxel: voxel, roi, ncsnr, noise_ceiling, coordinates, truth, ...
    repeats.npz       where stimuli have repeats: what these say of the noise, in blocks of stimuli
                      (jne.analysis.repeats); a folder of an earlier version has none
    feature_spaces.json  where features are of several spaces: {name: n_columns}, in their order
    space.json        for voxels of a volume (columns i, j, k): its shape and affine
    checks.json       what was found out about the rows and the images (jne.data.notes)
    provenance.json   the source, its settings and input files; written last, so a folder that has
                      it is complete

Values are as measured. They are standardised when they are read, by the training stimuli.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jne import __version__
from jne.analysis.repeats import RepeatNoise
from jne.data.centring import centred
from jne.data.checks import check_stimuli
from jne.data.leaks import ROWS, row_findings, row_warnings
from jne.data.notes import NOTES, images_digest, noted
from jne.data.source import Source
from jne.data.voxel_table import check_voxel_table
from jne.errors import InputError
from jne.utils.blocks import named_slices
from jne.utils.files import atomic_folder, file_name, write_array, write_json
from jne.utils.plain import read_json, regular_file
from jne.utils.reading import reading
from jne.utils.spaces import FeatureArrays, joined
from jne.utils.tables import read_table, write_table

_REPEATS = "repeats.npz"
_SPACES = "feature_spaces.json"
_FORMAT = 2  # raise it when what a source writes for the same settings changes


@dataclass(frozen=True)
class Prepared:
    """A prepared folder, its arrays memory-mapped; the module's docstring has their shapes."""

    folder: Path
    features: NDArray[np.float32]
    responses: NDArray[np.float32]
    stimuli: pd.DataFrame
    voxels: pd.DataFrame
    provenance: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    """What a user should know of the rows, in sentences."""

    @property
    def space(self) -> dict[str, Any] | None:
        """{"shape": [X, Y, Z], "affine": (4, 4)} for voxels of a volume; None for all others."""
        path = self.folder / "space.json"
        return read_json(path) if path.exists() else None

    @cached_property
    def feature_spaces(self) -> dict[str, slice] | None:
        """The columns of each feature space, in the order of features; None where there is one.

        Raises InputError where they are not those of the features.
        """
        path = self.folder / _SPACES
        if not path.exists():
            return None
        with reading(path, "data"):
            return named_slices(read_json(path), self.features.shape[1], path)

    def offset(self, name: str) -> NDArray[np.float64] | None:
        """What was subtracted from each column before it became float32 (`jne.data.centring`).

        Parameters
        ----------
        name : {"feature", "response"}

        Returns
        -------
        (n_columns,) array of float64, or None
            None where nothing was subtracted.
        """
        path = self.folder / f"{name}_offset.npy"
        if not path.exists():
            return None
        with reading(path, "data"):
            return np.load(path)

    @cached_property
    def repeats(self) -> RepeatNoise | None:
        """What repeats of the stimuli say of the noise, in squared units of the responses.

        None where there are none, or the folder is of an earlier version. Raises InputError where
        the file is damaged.
        """
        path = self.folder / _REPEATS
        if not path.exists():
            return None
        with reading(path, "data"), np.load(regular_file(path, self.folder)) as saved:
            repeats = RepeatNoise(**{name: saved[name] for name in saved.files})
        n, n_voxels = self.responses.shape
        size = repeats.block.max() + 1
        if len(repeats.block) != n or repeats.noise.shape != (size, n_voxels):
            raise InputError("data", f"{path} is not of these stimuli and voxels; delete it")
        return repeats

    def measured(
        self, name: str, columns: slice | NDArray[np.int64] = slice(None)
    ) -> NDArray[np.floating]:
        """Columns of features or responses as measured, with what was subtracted from them.

        Parameters
        ----------
        name : {"feature", "response"}
        columns : slice or (n_columns,) array of int

        Returns
        -------
        (n_stimuli, n_columns) array
            float32; float64 where something was subtracted.
        """
        values, offset = getattr(self, f"{name}s")[:, columns], self.offset(name)
        return np.asarray(values) if offset is None else values + offset[columns]

    @property
    def features_key(self) -> str:
        """The config key that leads to the features."""
        own = self.provenance.get("settings", {}).get("features")
        return "features" if own is None else "data.features"

    def rows(self, split: str) -> NDArray[np.int64]:
        """The rows of a split, in the order of the stimulus table.

        Parameters
        ----------
        split : {"train", "val", "test"}

        Returns
        -------
        (n,) array of int64
        """
        return np.flatnonzero(self.stimuli["split"].to_numpy() == split)


def prepare(source: Source, root: Path) -> Prepared:
    """The prepared folder of a source: an earlier one where nothing has changed.

    The folder's name has a digest of the source's class, settings and input files. One process at
    a time makes it; what a killed one left is removed, or continued where the source can do so.

    Parameters
    ----------
    source : Source
    root : Path
        The folder that holds prepared folders.

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        On bad input; the message names the config key.
    """
    folder, provenance, images = _where(source, root)
    if not (folder / "provenance.json").exists():
        about = {"jne": __version__} | asdict(source.about)
        with atomic_folder(folder, resume=source.resumable) as temporary:
            if temporary is not None:
                source.write(temporary)
                write_json(temporary / NOTES, {"images": images, "superseded": False})
                write_json(temporary / "provenance.json", about | provenance)
    prepared = load(folder)
    return replace(prepared, warnings=_warnings(source, prepared))


def prepared_folder(source: Source, root: Path) -> Path:
    """Where `prepare` puts the data as they are now. It is not made.

    Raises InputError where an input file is missing.
    """
    return _where(source, root)[0]


def _where(source: Source, root: Path) -> tuple[Path, dict[str, Any], str | None]:
    """The folder of the data as they are now, their provenance, and the digest of their images."""
    provenance = {
        "format": _FORMAT,
        "source": f"{type(source).__module__}.{type(source).__qualname__}",
        "settings": source.model_dump(mode="json"),
        "inputs": _inputs(source),
    }
    images = images_digest(source.images_path if source.reads_images else None)
    folder = root / _name(source, provenance)
    if _is_outdated(folder, source, images):
        provenance["images"] = images
        folder = root / _name(source, provenance)
    return folder, provenance, images


def _name(source: Source, provenance: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
    return f"{file_name(f'{_slug(source.name)}-{_slug(source.subject)}')}-{digest[:12]}"


def _is_outdated(folder: Path, source: Source, images: str | None) -> bool:
    """Whether the folder is of other images, or of a version that read the inputs otherwise."""
    if not (folder / "provenance.json").exists():
        return False
    if noted(folder, "images", lambda: images) != images:
        return True
    return noted(folder, "superseded", lambda: source.supersedes(load(folder)))


def _warnings(source: Source, prepared: Prepared) -> list[str]:
    """What is said of the rows. Raises InputError where that refuses the data."""
    if source.leaks == "allow" or not len(prepared.rows("train")):
        return []
    rows = noted(prepared.folder, ROWS, lambda: row_findings(prepared))
    in_order = source.in_order and source.cutting == replace(source.cutting, groups=None, purge=0)
    return row_warnings(rows, source.leaks, in_order=in_order)


def load(folder: Path) -> Prepared:
    """Open a prepared folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Prepared

    Raises
    ------
    InputError
        Where it is not a prepared folder or cannot be used.
    """
    with reading(folder, "data"):
        if not (folder / "provenance.json").exists():
            raise InputError(
                "data", f"{folder} is not a prepared folder: it has no provenance.json"
            )
        voxels = read_table(folder / "voxels.csv")
        check_voxel_table(voxels, "data", str(folder / "voxels.csv"))
        prepared = Prepared(
            folder=folder,
            features=np.load(regular_file(folder / "features.npy", folder), mmap_mode="r"),
            responses=np.load(regular_file(folder / "responses.npy", folder), mmap_mode="r"),
            stimuli=read_table(folder / "stimuli.csv"),
            voxels=voxels,
            provenance=read_json(folder / "provenance.json"),
        )
    _check_whole(prepared)
    return prepared


def _check_whole(prepared: Prepared) -> None:
    """Raise InputError where the files of a folder do not agree: it was edited, or is damaged."""
    n, n_voxels = len(prepared.stimuli), len(prepared.voxels)
    columns = {"stimulus", "split"} <= set(prepared.stimuli) and "roi" in prepared.voxels
    whole = (
        columns
        and prepared.features.ndim == 2
        and len(prepared.features) == n
        and prepared.responses.shape == (n, n_voxels)
        and prepared.features.dtype == prepared.responses.dtype == np.float32
        and isinstance(prepared.provenance, dict)
    )
    if not whole:
        raise InputError(
            "data",
            f"{prepared.folder} is damaged, its arrays and tables do not agree; delete it to "
            f"have it prepared again",
        )


def write_prepared(
    source: Source,
    folder: Path,
    features: FeatureArrays,
    responses: NDArray | None,
    stimuli: pd.DataFrame,
    voxels: pd.DataFrame,
    repeats: RepeatNoise | None = None,
) -> None:
    """Check what a source read and write it into a folder.

    Parameters
    ----------
    source : Source
        Where the data come from.
    folder : Path
        The folder that `Source.write` was given.
    features : (N, D) array, or dict of such
        Of several feature spaces, by their names.
    responses : (N, V) array or None
        None where responses.npy is already in the folder.
    stimuli : DataFrame
        One row per stimulus; columns `stimulus` and `split`, and any others.
    voxels : DataFrame
        One row per voxel; a column `roi`, and any others.
    repeats : RepeatNoise, optional
        What repeats of the stimuli say of the noise, where there are any.

    Raises
    ------
    InputError
        Where encoders cannot be trained on the data.
    """
    matrix, widths = joined(features)
    n_stimuli = len(stimuli) if responses is None else len(responses)
    if len(matrix) != n_stimuli:
        raise InputError("data", f"features of {len(matrix)} stimuli, but responses to {n_stimuli}")
    check_stimuli(source, features, stimuli)
    check_voxel_table(voxels, "data")
    _write_centred(folder, "feature", matrix)
    if responses is not None:
        _write_centred(folder, "response", responses)
    if widths is not None:
        write_json(folder / _SPACES, widths)
    write_table(folder / "stimuli.csv", stimuli)
    write_table(folder / "voxels.csv", voxels)
    if repeats is not None:
        np.savez(folder / _REPEATS, **vars(repeats))


def _write_centred(folder: Path, name: str, values: NDArray) -> None:
    array, offset = centred(values)
    write_array(folder / f"{name}s.npy", array)
    if offset is not None:
        write_array(folder / f"{name}_offset.npy", offset)


def _inputs(source: Source) -> list[dict[str, Any]]:
    """The input files with their sizes and dates. Raises InputError where any are missing."""
    inputs, missing = [], []
    for path in source.input_files():
        with reading(path, "data"):
            if not path.exists():
                missing.append(path)
                continue
            stat = path.stat()
        inputs.append({"file": str(path), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns})
    if missing:
        names = ", ".join(map(str, missing))
        raise InputError(_key_of(source, missing[0]), f"no such file: {names}")
    return inputs


def _key_of(source: Source, path: Path) -> str:
    """The config key that leads to a file; `data` for one that is below a folder."""
    for name, about in type(source).model_fields.items():
        value = getattr(source, name)
        if isinstance(value, Path) and getattr(source, "root", Path()) / value == path:
            return f"data.{about.alias or name}"
    return "data"


def _slug(name: str) -> str:
    # Prepared folders are found by their names: for names that are harmless this must not change.
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
