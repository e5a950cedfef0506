"""Training that continues from a checkpoint, which may be anybody's and is checked."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from jne.errors import InputError
from jne.fitting.callbacks import EpochCurves, Patience
from jne.fitting.module import EncodingModule
from jne.stages import file_digest
from jne.utils.plain import regular_file
from jne.utils.tensors import load_tensors

_PARTS = {
    "epoch": int,
    "global_step": int,
    "callbacks": dict,
    "optimizer_states": list,
    "loops": dict,
}


def read_checkpoint(path: Path, module: EncodingModule) -> dict[str, Any]:
    """The content of a checkpoint. Raises InputError if it is damaged or another encoder's."""
    try:
        checkpoint = load_tensors(path)
    except InputError as error:
        raise error.at("checkpoint") from error
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved = checkpoint.get("state_dict")
    if not isinstance(saved, dict) or expected != {
        name: tuple(getattr(value, "shape", ("none",))) for name, value in saved.items()
    }:
        raise InputError("checkpoint", f"{path} holds another encoder than this config describes")
    for key, kind in _PARTS.items():
        if not isinstance(checkpoint.get(key), kind):
            raise InputError(
                "checkpoint", f"{path} is not a whole checkpoint of Lightning: no {key}"
            )
    return checkpoint


def checkpoint_digest(path: Path) -> str:
    """A digest of what a checkpoint holds. Raises InputError where it is no regular file."""
    try:
        return file_digest(regular_file(path, key="checkpoint"))
    except FileNotFoundError as error:
        raise InputError("checkpoint", f"no such file: {path}") from error


def restore_finished(
    saved: dict[str, Any],
    module: EncodingModule,
    callbacks: list[pl.Callback],
    patience: Patience,
    max_epochs: int,
) -> bool:
    """Whether training is over in this checkpoint; if so, restore callbacks and best weights.

    Lightning would train one more epoch before it stops again.
    """
    states = saved.get("callbacks", {})
    rows = states.get(EpochCurves.state_key, {}).get("rows", ())
    best = states.get("BestWeights", {"epoch": 0})
    if saved and best["epoch"] > 0 and rows[best["epoch"] - 1]["val/loss"] != best["loss"]:
        raise ValueError("its best loss is not that of its curves")
    chooses = "tried" in states.get(Patience.state_key, {})  # its weight decay: jne.fitting.decay
    if saved and chooses != ("tried" in patience.state_dict()):
        raise ValueError(f"its training {'chose' if chooses else 'did not choose'} a weight decay")
    over = states.get("LastCheckpoint", {}).get("over")
    over = over and not patience.would_continue(states[Patience.state_key])
    if not over and len(rows) < max_epochs:
        return False
    for callback in callbacks:
        if callback.state_key in states:  # a checkpoint of another run may have no trajectory
            callback.load_state_dict(states[callback.state_key])
    module.encoder.load_state_dict(states["BestWeights"]["weights"])
    return True


class FirstBatch(pl.Callback):
    """Looks at what was restored before the first batch, and knows when that is over."""

    def __init__(self) -> None:
        self.over = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Raise ValueError where the optimiser's state does not fit the weights.

        The fused optimisers of torch write through it without looking at its size.
        """
        for optimizer in trainer.optimizers:
            fused = (group["params"] for group in optimizer.param_groups if group.get("fused"))
            for weights in chain.from_iterable(fused):
                for value in optimizer.state.get(weights, {}).values():
                    if isinstance(value, Tensor) and value.shape not in ((), weights.shape):
                        raise ValueError("the state of its optimiser is of other weights")

    def on_train_batch_end(self, *_: Any) -> None:
        self.over = True


@contextmanager
def continuing(path: Path | None, first: FirstBatch) -> Iterator[None]:
    """In this block, what goes wrong before the first batch is over is the checkpoint's fault."""
    try:
        yield
    except Exception as error:  # torch and Lightning raise anything at states that are none
        if path is None or first.over or isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:200]
        reason = f"no {reason}" if isinstance(error, KeyError) else reason
        raise InputError("checkpoint", f"{path} cannot be continued ({reason})") from error


def check_progress(saved: dict[str, Any], trainer: pl.Trainer) -> None:
    """Raise ValueError where the progress of training in a checkpoint is none.

    Lightning would train on with it, and fail later or never end.
    """
    stopping = trainer.early_stopping_callback
    assert stopping is not None
    epochs = saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for part, state, example in (
        ("loops", saved["loops"]["fit_loop"], trainer.fit_loop.state_dict()),
        ("early stopping", saved["callbacks"].get(stopping.state_key, {}), stopping.state_dict()),
    ):
        if not _is_like(state, example):
            raise ValueError(f"the state of its {part} is damaged")
    if len(saved["callbacks"][EpochCurves.state_key]["rows"]) != epochs:
        raise ValueError("it has not as many epochs as its curves")


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value is of the kind of an example; other versions may have fewer keys or more."""
    if isinstance(example, dict):
        return isinstance(value, dict) and all(
            _is_like(value[key], example[key]) for key in example if key in value
        )
    if isinstance(example, list):
        return isinstance(value, list)
    if isinstance(example, Tensor):
        return isinstance(value, Tensor) and value.shape == example.shape
    if isinstance(example, bool):
        return isinstance(value, bool)
    if isinstance(example, int):
        return type(value) is int and value >= 0
    return value is None or isinstance(value, str)
