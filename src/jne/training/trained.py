"""A trained encoder and the history of its training, as one file of weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from jne.training.fit import History
from jne.utils.files import atomic_file
from jne.utils.tensors import load_tensors


def write_trained(path: Path, encoder: nn.Module, history: History) -> None:
    penalty, followed = history.readout_penalty, history.trajectory
    content = {
        "weights": encoder.state_dict(),
        "epochs": history.epochs.to_dict("list"),
        "best_epoch": history.best_epoch,
        "best_loss": history.best_loss,
        "readout_penalty": None if penalty is None else torch.from_numpy(penalty),
        "trajectory": None if followed is None else followed.to_dict("list"),
    }
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def read_trained(path: Path, encoder: nn.Module) -> History:
    """Give the encoder the weights in the file. Raises InputError where it cannot be read."""
    saved = load_tensors(path, bounded=False)
    encoder.load_state_dict(saved["weights"])
    penalty, followed = saved["readout_penalty"], saved["trajectory"]
    return History(
        pd.DataFrame(saved["epochs"]),
        saved["best_epoch"],
        saved["best_loss"],
        None if penalty is None else penalty.numpy().copy(),
        None if followed is None else pd.DataFrame(followed),
    )


def curves(history: History) -> Iterator[dict[str, Any]]:
    """The rows that `fit` and a trajectory pass on after each epoch."""
    yield from history.epochs.to_dict("records")  # type: ignore[misc]
    if history.trajectory is not None:
        during = history.trajectory[history.trajectory["stage"] == "training"]
        means = during.groupby("epoch")[["r2", "jne"]].mean().add_prefix("trajectory/")
        yield from means.reset_index().to_dict("records")  # type: ignore[misc]
