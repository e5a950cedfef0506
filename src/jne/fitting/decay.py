"""`optimizer.weight_decay=auto`: a weight decay that fits the data, found while training.

What a weight decay does to hidden layers depends on how many voxels share what they learn and on
how much of the noise voxels share: too large a one takes all weights to 0, too small a one lets the
hidden layers fit the noise, and the window between is a factor of three wide (docs/encoders.md).

So one training goes through `DECAYS`, from a decay that is too large for most data to none. Each
has early stopping of its own, and begins with the best weights of the one before it: what a large
decay has left of the hidden layers is what stimuli have in common, and a smaller one adds to it.
That of the lowest validation loss is kept: the loss after a ridge readout was solved for, where
that is what is saved.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from jne.data.datamodule import StandardisedData
from jne.errors import InputError
from jne.fitting.callbacks import BestWeights, Patience
from jne.fitting.readout import refit_readout
from jne.utils.progress import without_progress

AUTO = "auto"
DECAYS = (0.1, 0.05, 0.03, 0.02, 0.014, 0.01, 0.007, 0.005, 0.003, 0.0)
# Of the validation loss of standardised responses. What a smaller decay takes over need not have
# been trained to the end.
_LEAST_GAIN = 0.001
_NUMBERS = ("weight_decay", "first_epoch", "best_epoch", "trained_loss", "loss")


def is_auto(optimizer: Mapping[str, Any]) -> bool:
    """Whether the config section `optimizer` leaves the weight decay to the data."""
    return optimizer.get("weight_decay") == AUTO


def first_decay(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The section with the weight decay that training begins with."""
    return {**optimizer, **({"weight_decay": DECAYS[0]} if is_auto(optimizer) else {})}


def check_decays(optimizer: torch.optim.Optimizer) -> None:
    """Raise InputError where a weight decay is no term of this optimiser's loss."""
    for group in optimizer.param_groups:
        if "weight_decay" not in group or group.get("decoupled_weight_decay"):
            raise InputError(
                "optimizer.weight_decay",
                f"is chosen only where it is a term of the loss, as torch.optim.Adam's is and that "
                f"of {type(optimizer).__name__} is not; give a number",
                AUTO,
            )


def solved_loss(encoder: nn.Module, data: StandardisedData) -> float:
    """The validation loss that the encoder would have with a ridge readout."""
    with without_progress():
        return refit_readout(deepcopy(encoder).cpu(), data).loss


class DecayPath(Patience):
    """Ends training with one weight decay as `Patience` does, then goes on with the next.

    best: keeps the best weights of the present decay. max_epochs: with each decay. loss: of an
    encoder, by which the decay is chosen; None: the validation loss of its best epoch.
    """

    def __init__(
        self,
        epochs: int,
        max_epochs: int,
        best: BestWeights,
        loss: Callable[[nn.Module], float] | None,
    ) -> None:
        super().__init__(epochs)
        self.min_delta = -_LEAST_GAIN
        self.best, self.max_epochs, self.loss = best, max_epochs, loss
        self.first_epoch = 1
        self.tried: list[dict[str, float]] = []
        self.kept: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if not np.isfinite(float(trainer.callback_metrics["val/loss"])):
            if self.best.epoch > 0:
                self._end(module)
            elif self.tried:  # with this decay it was never finite
                last = self.tried[-1]
                self.best.epoch, self.best.loss = int(last["best_epoch"]), last["trained_loss"]
            return
        if trainer.current_epoch + 2 - self.first_epoch < self.max_epochs:
            if not trainer.should_stop:
                return
        self._end(module)
        trainer.should_stop = len(self.tried) == len(DECAYS)
        if not trainer.should_stop:
            self._begin(trainer, module)

    def _end(self, module: pl.LightningModule) -> None:
        encoder = deepcopy(module.encoder)
        assert isinstance(encoder, nn.Module)
        encoder.load_state_dict(self.best.weights)
        loss = self.best.loss if self.loss is None else self.loss(encoder)
        if all(loss < other["loss"] for other in self.tried):
            self.kept = self.best.weights
        row = (DECAYS[len(self.tried)], self.first_epoch, self.best.epoch, self.best.loss, loss)
        self.tried.append(dict(zip(_NUMBERS, row, strict=True)))

    def _begin(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Go on from the best weights, with the next decay and an optimiser that is new."""
        module.encoder.load_state_dict(self.best.weights)  # type: ignore[union-attr]
        before, now = DECAYS[len(self.tried) - 1], DECAYS[len(self.tried)]
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
            for group in optimizer.param_groups:  # the readout's may be a part of the others'
                group["weight_decay"] *= now / before
        self.wait_count, self.best_score = 0, torch.tensor(torch.inf)
        self.best.epoch, self.best.loss = 0, float("inf")
        self.first_epoch = trainer.current_epoch + 2  # the next, and epochs count from 1

    def choose(self, encoder: nn.Module) -> tuple[int, float, pd.DataFrame]:
        """Give the encoder the weights that are kept: their epoch, their loss, and all decays."""
        tried = pd.DataFrame(self.tried).astype({"first_epoch": int, "best_epoch": int})
        chosen = tried.iloc[tried["loss"].argmin()]
        encoder.load_state_dict(self.kept)
        return int(chosen["best_epoch"]), float(chosen["trained_loss"]), tried

    def would_continue(self, state: dict[str, Any]) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        own = {"first_epoch": self.first_epoch, "tried": self.tried, "kept": self.kept}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        whole = all(
            row.keys() == set(_NUMBERS)
            and all(type(value) in (int, float) for value in row.values())
            for row in state["tried"]
        )
        if not whole or type(state["first_epoch"]) is not int or len(state["tried"]) > len(DECAYS):
            raise ValueError("its weight decays are damaged")
        super().load_state_dict(state)
        self.first_epoch, self.tried, self.kept = (
            state[name] for name in ("first_epoch", "tried", "kept")
        )
