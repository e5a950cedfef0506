"""The history of a training; and with the encoder's weights, as one file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from jne.fitting.readout import RidgeReadout
from jne.utils.files import atomic_file
from jne.utils.tensors import load_tensors


@dataclass(frozen=True)
class History:
    """What training leaves beside the weights."""

    epochs: pd.DataFrame
    """One row per epoch: epoch (from 1), train/loss, val/loss, val/r2."""
    best_epoch: int
    """The epoch whose weights were kept, from 1."""
    best_loss: float
    """Its validation loss; with a ridge readout, that after the readout was solved for."""
    readout_penalty: NDArray[np.float32] | None = None
    """(V',), the penalty of each voxel in a ridge readout."""
    readout_end: NDArray[np.float32] | None = None
    """(V',), which of them are at an end of the grid, as `RidgeFit.end`."""
    stack_linear: NDArray[np.float32] | None = None
    """(V',), a of a stacked readout (`jne.fitting.stacking`); the penalties are then those of ridge
    regression from the features."""
    stack_nonlinear: NDArray[np.float32] | None = None
    """(V',), b of it."""
    nonlinear_noise: NDArray[np.float32] | None = None
    """(V',), as of RidgeReadout."""
    trajectory: pd.DataFrame | None = None
    """As `Trajectory.table`, where some voxels were followed."""
    decays: pd.DataFrame | None = None
    """One row per weight decay, where it was left to the data (`jne.fitting.decay`): weight_decay,
    first_epoch, best_epoch, trained_loss (of its best epoch) and loss, the lowest of which chose.
    """

    def with_readout(self, solved: RidgeReadout) -> "History":
        """Where the last layer was solved for."""
        return replace(
            self,
            best_loss=solved.loss,
            readout_penalty=solved.penalty,
            readout_end=solved.end,
            stack_linear=solved.stack_linear,
            stack_nonlinear=solved.stack_nonlinear,
            nonlinear_noise=solved.nonlinear_noise,
        )

    @classmethod
    def of_folds(cls, folds: "Sequence[History]") -> "History":
        """Of the encoders of all folds: epochs and decays with a column `fold`, from 1; means.

        Penalties are geometric means, and at an end of the grid where those of all folds are. Of a
        single fold, its own.
        """
        if len(folds) == 1:
            return folds[0]

        def mean(name: str, log: bool = False) -> NDArray[np.float32] | None:
            values = [getattr(fold, name) for fold in folds]
            if any(of_fold is None for of_fold in values):
                return None
            if log:
                return np.exp(np.log(values).mean(axis=0)).astype(np.float32)
            result: NDArray[np.float32] = np.mean(values, axis=0)
            return result

        def table(name: str) -> pd.DataFrame | None:
            tables = {k: getattr(fold, name) for k, fold in enumerate(folds, start=1)}
            if any(of_fold is None for of_fold in tables.values()):
                return None
            return pd.concat(tables, names=["fold"]).reset_index("fold").reset_index(drop=True)

        end, epochs = mean("readout_end"), table("epochs")
        assert epochs is not None
        return cls(
            epochs=epochs,
            best_epoch=round(float(np.mean([fold.best_epoch for fold in folds]))),
            best_loss=float(np.mean([fold.best_loss for fold in folds])),
            readout_penalty=mean("readout_penalty", log=True),
            readout_end=None if end is None else np.trunc(end),
            stack_linear=mean("stack_linear"),
            stack_nonlinear=mean("stack_nonlinear"),
            nonlinear_noise=mean("nonlinear_noise"),
            decays=table("decays"),
        )

    @property
    def weight_decay(self) -> float | None:
        """The weight decay that was chosen, where it was left to the data; of folds, the mean."""
        return None if self.decays is None else float(chosen_decays(self.decays).mean())


def chosen_decays(decays: pd.DataFrame) -> NDArray[np.float64]:
    """The weight decay of the lowest loss, of each fold."""
    fold = decays["fold"] if "fold" in decays else np.zeros(len(decays))
    best = decays.groupby(fold)["loss"].idxmin()
    return decays["weight_decay"].loc[best].to_numpy(dtype=np.float64)


def write_trained(path: Path, encoder: nn.Module, history: History) -> None:
    followed = history.trajectory
    content = {
        "weights": encoder.state_dict(),
        "epochs": history.epochs.to_dict("list"),
        "best_epoch": history.best_epoch,
        "best_loss": history.best_loss,
        "readout_penalty": _tensor(history.readout_penalty),
        "readout_end": _tensor(history.readout_end),
        "trajectory": None if followed is None else followed.to_dict("list"),
    }
    if history.stack_linear is not None:
        content["stack_linear"] = _tensor(history.stack_linear)
        content["stack_nonlinear"] = _tensor(history.stack_nonlinear)
        content["nonlinear_noise"] = _tensor(history.nonlinear_noise)
    if history.decays is not None:
        content["decays"] = history.decays.to_dict("list")
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def read_trained(path: Path, encoder: nn.Module) -> History:
    """Give the encoder the weights in the file. Raises InputError where it cannot be read."""
    saved = load_tensors(path, bounded=False)
    encoder.load_state_dict(saved["weights"])
    followed = saved["trajectory"]
    return History(
        pd.DataFrame(saved["epochs"]),
        saved["best_epoch"],
        saved["best_loss"],
        _array(saved["readout_penalty"]),
        _array(saved["readout_end"]),
        _array(saved.get("stack_linear")),
        _array(saved.get("stack_nonlinear")),
        _array(saved.get("nonlinear_noise")),
        None if followed is None else pd.DataFrame(followed),
        pd.DataFrame(saved["decays"]) if "decays" in saved else None,
    )


def _tensor(values: NDArray[np.float32] | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _array(values: torch.Tensor | None) -> NDArray[np.float32] | None:
    return None if values is None else values.numpy().copy()


def epoch_rows(history: History) -> Iterator[dict[str, Any]]:
    """The rows that `fit` and a trajectory pass on after each epoch."""
    yield from history.epochs.to_dict("records")  # type: ignore[misc]
    if history.trajectory is not None:
        during = history.trajectory[history.trajectory["stage"] == "training"]
        means = during.groupby("epoch")[["r2", "jne"]].mean().add_prefix("trajectory/")
        yield from means.reset_index().to_dict("records")  # type: ignore[misc]
