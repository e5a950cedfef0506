"""One results folder a run: what is in it, how it is written, and how it is read and checked.

    config.yaml       the resolved config, written first
    status.json       RUNNING, then FINISHED, FAILED (with the error) or KILLED; versions, host,
                      durations, peak memory, and what a restart needs to know it by
    summary.json      the scalars, by the names they have in MLflow; counts of voxels left out
    voxels.csv        one row a voxel: the prepared table, then status, r2, p, p_fdr, jne,
                      mean_deviation, jne_ss_p95
    stimuli.csv       the test stimuli, row by row those of the arrays
    epochs.csv        the training curves
    features.npy      (n_test, n_features) float32, standardised: what the encoder was given
    responses.npy     (n_test, n_voxels) float32, standardised
    predictions.npy   (n_test, n_voxels) float32, of the standardised responses
    deviation.npy     (n_test, n_voxels) float32
    jne_ss.npy        (n_test, n_voxels) float32
    encoder.pt        the best weights, what built them, and the standardisation
    space.json        of a volume's voxels (columns i, j, k): its shape and affine
    figures/          PNG

While it is written there are also .lock, held by the process that writes, last.ckpt and *.partial.

NaN stands for a voxel that was left out. Everything but status.json and train.log depends only on
the config and the data: the same seed gives the same bytes.
"""

import json
import platform
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import nn

from jne import __version__
from jne.config import build_encoder
from jne.errors import InputError
from jne.files import make_folder, read_table, whole_file, write_array, write_json, write_table
from jne.machine import peak_memory_gb
from jne.roi import ROIS, ordered

_MAX_ROI_METRICS = 12  # more make a section of the MLflow UI unreadable; the table has them all


class RunFolder:
    """The results folder of a run while it is written, and its status."""

    def __init__(self, path: Path, config: dict, identity: str) -> None:
        self.path = make_folder(path)
        make_folder(self.figures)
        self._start = time.monotonic()
        # What an earlier attempt said: {} where there was none
        self.before = _status(path)
        self.attempt = self.before.get("attempt", 0) + 1
        self.status = {
            "status": "RUNNING",
            "identity": identity,
            "attempt": self.attempt,
            "started": self.before.get("started", _now()),
            "host": socket.gethostname(),
            "versions": {
                "jne": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }
        if "mlflow_run_id" in self.before:
            self.status["mlflow_run_id"] = self.before["mlflow_run_id"]
        with whole_file(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))
        self._write_status()

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def note(self, **facts) -> None:
        """Add facts to status.json."""
        self.status |= facts
        self._write_status()

    def end(self, status: str, error: str | None = None) -> None:
        facts = {"status": status, "ended": _now()}
        facts["seconds"] = round(time.monotonic() - self._start, 2)
        facts["peak_memory_gb"] = peak_memory_gb()
        self.note(**facts, **({"error": error} if error else {}))

    def _write_status(self) -> None:
        write_json(self.path / "status.json", self.status)

    def write(
        self,
        voxels: pd.DataFrame,
        stimuli: pd.DataFrame,
        epochs: list[dict],
        arrays: dict[str, NDArray],
        summary: dict,
        space: dict | None = None,
    ) -> None:
        """What the callbacks did not write themselves. arrays: by the names of their files."""
        write_table(self.path / "voxels.csv", voxels)
        write_table(self.path / "stimuli.csv", stimuli)
        write_table(self.path / "epochs.csv", pd.DataFrame(epochs))
        for name, array in arrays.items():
            write_array(self.path / f"{name}.npy", array)
        if space is not None:
            write_json(self.path / "space.json", space)
        write_json(self.path / "summary.json", summary)

    def write_encoder(self, config: dict, encoder: nn.Module, scaling: dict) -> None:
        """scaling: feature_mean, feature_scale (D,) and response_mean, response_scale (V',)."""
        with whole_file(self.path / "encoder.pt") as temporary, open(temporary, "wb") as file:
            torch.save({"config": config, "weights": encoder.state_dict(), **scaling}, file)


@contextmanager
def open_run(path: Path, config: dict, identity: str = "") -> Iterator[RunFolder]:
    """A results folder whose status is true when the block is left, however it is left.

    identity: what makes another attempt at the same run the same. Raises InputError where another
    process is writing to the folder.
    """
    with _claimed(make_folder(path), wait=1.0):
        for half_written in path.rglob(".*.tmp"):  # by an attempt that was killed
            half_written.unlink()
        folder = RunFolder(path, config, identity)
        try:
            with _termination_raises():
                yield folder
        except BaseException as error:
            folder.end(ended_as(error), f"{type(error).__name__}: {error}")
            raise
        folder.end("FINISHED")
        (path / "last.ckpt").unlink(missing_ok=True)


def earlier_attempts(folders: Iterable[Path], identity: str) -> list[Path]:
    """The folders that hold an attempt at the run of this identity, finished ones first."""
    found = [folder for folder in folders if _status(folder).get("identity") == identity]
    return sorted(found, key=lambda folder: _status(folder)["status"] != "FINISHED")


def finished(path: Path) -> dict | None:
    """The status of a finished run; None where the folder holds none."""
    status = _status(path)
    return status if status.get("status") == "FINISHED" else None


def abandoned(path: Path) -> bool:
    """Whether nobody writes to a run's folder any more: its writer has ended, however."""
    try:
        with _claimed(path, wait=0.0):
            return True
    except InputError:
        return False


@contextmanager
def _claimed(path: Path, wait: float) -> Iterator[None]:
    # The system lets go of the lock when the process dies, kill -9 included. A writer waits a
    # moment: one that only asks whether the folder is abandoned holds the lock too.
    lock = FileLock(path / ".lock", timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is writing to {path}; wait for it, or end it") from error
    try:
        yield
    finally:
        lock.release()


def _status(path: Path) -> dict:
    try:
        return json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def ended_as(error: BaseException) -> str:
    """FAILED for an error, KILLED for Ctrl-C and SIGTERM."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


@contextmanager
def _termination_raises() -> Iterator[None]:
    # SIGTERM (a scheduler's) must reach the `finally`s, and must not end in exit code 0.
    def terminate(number, frame):
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def voxel_table(
    voxels: pd.DataFrame,
    status: NDArray[np.str_],
    kept: NDArray[np.int64],
    scores: dict[str, NDArray],
    nonlinearity: dict[str, NDArray],
) -> pd.DataFrame:
    """The prepared voxel table (V rows) with what was measured.

    status: (V,) why a voxel was left out, or ok. kept: (V',) the voxels trained on.
    scores: (V',) arrays. nonlinearity: (V,) arrays.
    """
    table = voxels.assign(status=status)
    for name, values in scores.items():
        column = np.full(len(voxels), np.nan)
        column[kept] = values
        table[name] = column
    return table.assign(**nonlinearity)


def roi_table(voxels: pd.DataFrame) -> pd.DataFrame:
    """Means over the voxels of each ROI and of all: one row an ROI, `all` last."""
    columns = ["r2", "jne", "mean_deviation", "jne_ss_mean"]
    measured = voxels.assign(jne_ss_mean=np.square(voxels["jne"]))  # mean_i JNE-SS = JNE^2
    rows = []
    for roi in [*ordered(voxels["roi"]), "all"]:
        chosen = measured if roi == "all" else measured[measured["roi"] == roi]
        rows.append({"roi": roi, "n_voxels": len(chosen), **chosen[columns].mean()})
    return pd.DataFrame(rows)


def summarise(voxels: pd.DataFrame, alpha: float) -> dict:
    """The scalars of a run by their MLflow names, and the counts of voxels left out.

    A section without a finite value is left out: JSON and MLflow charts have no place for NaN.
    """
    r2, jne = voxels["r2"], voxels["jne"]
    metrics = {
        "r2/mean": r2.mean(),
        "r2/median": r2.median(),
        "r2/max": r2.max(),
        "r2/significant_share": (voxels["p_fdr"] < alpha).sum() / max(voxels["p_fdr"].count(), 1),
        "jne/mean": jne.mean(),
        "jne/median": jne.median(),
        "jne_ss/mean": np.square(jne).mean(),
        "jne_ss/p95": voxels["jne_ss_p95"].mean(),
        "mean_deviation/mean": voxels["mean_deviation"].mean(),
    }
    regions = roi_table(voxels).set_index("roi").drop(index="all")
    paper = [roi for roi in ROIS if roi in regions.index]
    if len(regions) > _MAX_ROI_METRICS:
        regions = regions.loc[paper]
    for column in ("r2", "jne", "jne_ss_mean", "mean_deviation"):
        section = column.removesuffix("_mean")
        metrics |= {f"{section}/{roi}": value for roi, value in regions[column].items()}
    counts = voxels["status"].value_counts()
    return {
        "metrics": {name: float(value) for name, value in metrics.items() if np.isfinite(value)},
        "voxels": {
            "all": len(voxels),
            "scored": int(r2.count()),
            "measured": int(jne.count()),
            "constant": int(counts.get("constant", 0)),
            "missing": int(counts.get("missing", 0)),
        },
    }


class Results:
    """A finished run, read back. Raises InputError where the folder is not one."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.status = json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not a results folder: no readable status.json") from error
        if self.status["status"] != "FINISHED":
            raise InputError(f"the run in {path} is {self.status['status']}, not FINISHED")
        self.config = yaml.safe_load((self.path / "config.yaml").read_text())
        self.summary = json.loads((self.path / "summary.json").read_text())
        self.voxels = read_table(self.path / "voxels.csv")
        self.stimuli = read_table(self.path / "stimuli.csv")
        self.epochs = read_table(self.path / "epochs.csv")
        space = self.path / "space.json"
        self.space = json.loads(space.read_text()) if space.exists() else None

    def array(self, name: str) -> NDArray:
        """features (n_test, n_features), or responses, predictions, deviation or jne_ss
        (n_test, n_voxels), memory-mapped.
        """
        return np.load(self.path / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def encoder(self) -> nn.Module:
        """The trained encoder: standardised features (N, D) to the trained voxels (N, V')."""
        saved = load_weights(self.path / "encoder.pt")
        n_features, n_voxels = len(saved["feature_mean"]), len(saved["response_mean"])
        encoder = build_encoder(saved["config"], n_features, n_voxels)
        encoder.load_state_dict(saved["weights"])
        return encoder.eval()


def load_weights(path: Path) -> dict:
    """A file of weights; only tensors and plain values are ever read. Raises InputError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or foreign file
        raise InputError(f"{path} is not a readable file of weights") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
