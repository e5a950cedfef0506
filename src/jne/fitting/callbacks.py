"""What happens around training, as Lightning callbacks."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from torch import nn

from jne.errors import InputError
from jne.utils.files import atomic_file
from jne.utils.progress import training_progress


class EpochCurves(pl.Callback):
    """Keeps one row per epoch (epoch, train/loss, val/loss, val/r2), and shows the latest.

    Epochs count from 1: here, in MLflow, in all tables and figures. Lightning counts from 0.

    on_epoch: called after each epoch with its row; where training continues from a checkpoint,
    first with all rows that it holds, of which the caller may know some.
    """

    CURVES = ("train/loss", "val/loss", "val/r2")
    state_key = "EpochCurves"  # in checkpoints

    def __init__(self, on_epoch: Callable[[dict[str, float]], None] | None = None) -> None:
        self.rows: list[dict[str, float]] = []
        self.on_epoch = on_epoch

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._progress = training_progress()
        self._task = self._progress.add_task(
            "", total=trainer.max_epochs, unit="epochs", note="", completed=len(self.rows)
        )
        self._progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(trainer.callback_metrics[name]) for name in self.CURVES}
        self.rows.append(row)
        self._progress.update(
            self._task,
            advance=1,
            note=f"loss {row['train/loss']:.3f} val {row['val/loss']:.3f} R² {row['val/r2']:.3f}",
        )
        if self.on_epoch is not None:
            self.on_epoch(row)

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._progress.update(self._task, total=len(self.rows))
        self._progress.stop()

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        if hasattr(self, "_progress"):
            self._progress.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, row in enumerate(state["rows"], start=1):
            whole = row.keys() == {"epoch", *self.CURVES} and all(map(_is_number, row.values()))
            if not whole or row["epoch"] != number:
                raise ValueError("its curves are damaged")
        self.rows = state["rows"]
        if self.on_epoch is not None:
            for row in self.rows:
                self.on_epoch(row)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _encoder(module: pl.LightningModule) -> nn.Module:
    return cast(nn.Module, module.encoder)


class BestWeights(pl.Callback):
    """Keeps the weights of the epoch with the lowest validation loss, and ends training on them.

    The weights stay in memory: a copy per epoch costs less than a file per epoch. They are part of
    checkpoints, so that a resumed run still has them.
    """

    def __init__(self) -> None:
        self.epoch, self.loss = 0, float("inf")  # 0: none yet
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        if loss < self.loss:
            self.epoch, self.loss = trainer.current_epoch + 1, loss
            self.weights = {
                name: value.detach().cpu().clone()
                for name, value in _encoder(module).state_dict().items()
            }

    def on_fit_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.weights:
            raise InputError(
                "optimizer.lr", "the validation loss was never finite; lower it, or weight_decay"
            )
        _encoder(module).load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not (type(state["epoch"]) is int and _is_number(state["loss"])):
            raise ValueError("its best epoch is damaged")
        self.epoch, self.loss, self.weights = state["epoch"], state["loss"], state["weights"]

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        shapes = {name: value.shape for name, value in _encoder(module).state_dict().items()}
        if self.weights and {n: value.shape for n, value in self.weights.items()} != shapes:
            raise ValueError("its best weights are of another encoder")


class Patience(EarlyStopping):
    """Ends training after so many epochs without a lower validation loss.

    A training that continues has the patience of its own config, not that of the checkpoint.
    """

    state_key = "EarlyStopping{'monitor': 'val/loss', 'mode': 'min'}"  # Lightning's, of its class

    def __init__(self, epochs: int) -> None:
        super().__init__("val/loss", patience=epochs)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state | {"patience": self.patience})

    def would_continue(self, state: dict[str, Any]) -> bool:
        """Whether this patience is longer than the one that ended the training with this state."""
        return state["patience"] <= state["wait_count"] < self.patience


class LastCheckpoint(Checkpoint):
    """Writes a checkpoint at the end of an epoch, and once more when training is over.

    At most one per `seconds`, and never more than a twentieth of the time: a full checkpoint costs
    four times the weights, which short epochs cannot afford each time.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.over = False

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._next = time.monotonic() + self.seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Early stopping has decided already: Lightning calls checkpoints last. Reaching max_epochs
        # does not count as over: a run can be continued with a larger max_epochs.
        self.over = trainer.should_stop
        last = self.over or trainer.current_epoch + 1 == trainer.max_epochs
        start = time.monotonic()
        if start >= self._next or last:
            with atomic_file(self.path) as temporary:
                trainer.save_checkpoint(temporary)
            end = time.monotonic()
            self._next = end + max(self.seconds, 19 * (end - start))

    def state_dict(self) -> dict[str, Any]:
        return {"over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.over = bool(state["over"])
