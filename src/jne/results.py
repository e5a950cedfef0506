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
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from jne.config import build_encoder
from jne.errors import InputError
from jne.files import read_table, whole_file, write_array, write_json, write_table
from jne.roi import ROIS, ordered

_MAX_ROI_METRICS = 12  # more make a section of the MLflow UI unreadable; the table has them all


def write_results(
    path: Path,
    voxels: pd.DataFrame,
    stimuli: pd.DataFrame,
    epochs: list[dict],
    arrays: dict[str, NDArray],
    summary: dict,
    space: dict | None = None,
) -> None:
    """What the callbacks did not write themselves. arrays: by the names of their files."""
    write_table(path / "voxels.csv", voxels)
    write_table(path / "stimuli.csv", stimuli)
    write_table(path / "epochs.csv", pd.DataFrame(epochs))
    for name, array in arrays.items():
        write_array(path / f"{name}.npy", array)
    if space is not None:
        write_json(path / "space.json", space)
    write_json(path / "summary.json", summary)


def write_encoder(path: Path, config: dict, encoder: nn.Module, scaling: dict) -> None:
    """scaling: feature_mean, feature_scale (D,) and response_mean, response_scale (V',)."""
    with whole_file(path / "encoder.pt") as temporary, open(temporary, "wb") as file:
        torch.save({"config": config, "weights": encoder.state_dict(), **scaling}, file)


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
