"""Training and the test loop, with Lightning's Trainer."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.nn.functional import mse_loss

from jne.data.datamodule import EncodingData
from jne.encoders import is_linear_layer
from jne.errors import InputError
from jne.results.reader import load_weights
from jne.training.callbacks import AfterTest, BestWeights, EpochCurves, LastCheckpoint
from jne.training.components import (
    ComponentModule,
    component_data,
    copy_hidden,
    copy_outputs,
    in_components,
    response_components,
)
from jne.training.config import TrainerConfig
from jne.training.module import EncodingModule
from jne.training.readout import freeze_linear_path, output_layers, refit_readout
from jne.utils.machine import keep_freed_memory

Measured = TypeVar("Measured")
_CHECKPOINT = {
    "epoch": int,
    "global_step": int,
    "callbacks": dict,
    "optimizer_states": list,
    "loops": dict,
}


@dataclass(frozen=True)
class History:
    """What training leaves beside the weights."""

    epochs: pd.DataFrame
    """One row per epoch: epoch, train/loss, val/loss, val/r2."""
    best_epoch: int
    """The epoch whose weights were kept."""
    best_loss: float
    """Its validation loss; with a ridge readout, that after the readout was solved for."""
    readout_penalty: NDArray[np.float32] | None = None
    """(V',), the penalty of each voxel in a ridge readout."""


def fit(
    module: EncodingModule,
    data: EncodingData,
    settings: TrainerConfig,
    *,
    readout: Literal["ridge", "trained"],
    save_to: Path,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    before_save: Callable[[], None] = lambda: None,
) -> History:
    """Train with early stopping; afterwards the module has the weights of the best epoch.

    readout: `ridge` then solves for the weights of the last layer (`jne.training.readout`). An
        encoder that has no other layer is not trained.
    save_to: where checkpoints are written. If it exists, training continues from there, else from
    `checkpoint` if one is given. on_epoch, before_save: see `EpochCurves`, `LastCheckpoint`.

    Raises InputError for a checkpoint that is damaged or of another encoder, where the validation
    loss was never finite, and for a ridge readout if the encoder does not end in a linear layer.
    """
    train = partial(
        _train,
        settings=settings,
        save_to=save_to,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        before_save=before_save,
    )
    if in_components(settings.response_space, readout, data):
        train = partial(_train_on_components, train, readout=readout, run_folder=save_to.parent)
    if readout == "trained":
        return train(module, data)
    output_layers(module.encoder, data, "readout=ridge", "readout=trained")
    if is_linear_layer(module.encoder):
        solved = refit_readout(module.encoder, data)
        epoch = _row_of_solution(module, data, solved.loss)
        if on_epoch is not None:
            on_epoch(epoch)
        return History(pd.DataFrame([epoch]), 0, solved.loss, solved.penalty)
    freeze_linear_path(module.encoder)
    trained = train(module, data)
    solved = refit_readout(module.encoder, data)
    return replace(trained, best_loss=solved.loss, readout_penalty=solved.penalty)


def _train_on_components(
    train: Callable[[EncodingModule, EncodingData], History],
    module: EncodingModule,
    data: EncodingData,
    readout: Literal["ridge", "trained"],
    run_folder: Path,
) -> History:
    """Train an encoder of components, and give `module` its hidden layers.

    Its readout only where that stays as it was trained.
    """
    outputs = output_layers(
        module.encoder, data, "trainer.response_space=components", "trainer.response_space=voxels"
    )
    components = response_components(data, run_folder)
    small = ComponentModule(
        data.n_features,
        components.train.shape[1],
        module.hparams["encoder"],
        module.hparams["optimizer"],
    )
    small.components, small.outputs = components, outputs
    copy_hidden(module.encoder, small.encoder, outputs)
    if readout == "ridge":
        freeze_linear_path(small.encoder)
    history = train(small, component_data(data, components))
    copy_hidden(small.encoder, module.encoder, outputs)
    if readout == "trained":
        copy_outputs(small.encoder, module.encoder, outputs, data, components)
    return history


def _train(
    module: EncodingModule,
    data: EncodingData,
    settings: TrainerConfig,
    save_to: Path,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    before_save: Callable[[], None],
) -> History:
    curves, best = EpochCurves(on_epoch), BestWeights()
    checkpoint = save_to if save_to.exists() else checkpoint
    saved = _checked_checkpoint(checkpoint, module) if checkpoint else {}
    if not _restore(saved, module, curves, best, settings.max_epochs):
        if data.batch_bytes > 2**26:
            keep_freed_memory()
        callbacks = [
            curves,
            best,
            EarlyStopping("val/loss", patience=settings.patience),
            LastCheckpoint(save_to, settings.checkpoint_seconds, before_save),
        ]
        with _quiet_lightning():
            trainer = _trainer(
                settings,
                callbacks,
                max_epochs=settings.max_epochs,
                accumulate_grad_batches=data.n_parts,
            )
            trainer.fit(module, data, ckpt_path=checkpoint)
    return History(pd.DataFrame(curves.rows), best.epoch, best.loss)


def _row_of_solution(module: EncodingModule, data: EncodingData, loss: float) -> dict[str, float]:
    """The only row of training curves of an encoder that was solved for, not trained.

    loss: of the validation stimuli. Standardised responses have a variance of 1.
    """
    features, responses = data.split("train")
    with torch.no_grad():
        train = float(mse_loss(module.encoder(features), responses))
    return {"epoch": 0, "train/loss": train, "val/loss": loss, "val/r2": 1 - loss}


def test(
    module: EncodingModule,
    data: EncodingData,
    settings: TrainerConfig,
    measure: Callable[[NDArray[np.float32]], Measured],
) -> Measured:
    """Predict the test stimuli, then call `measure` with the predictions (N, V').

    A Lightning callback calls it, once the test is over. Returns what `measure` returned.
    """
    after = AfterTest(measure)
    with _quiet_lightning():
        _trainer(settings, [after]).test(module, data, verbose=False)
    return after.result


test.__test__ = False  # type: ignore[attr-defined]  # no test case, whatever pytest may think


def _trainer(settings: TrainerConfig, callbacks: list[pl.Callback], **more: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator=settings.accelerator,
        precision=settings.precision,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # a single process, also where SLURM starts it
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says at every start and a user cannot change."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)  # else it lists the accelerators that it did not find
    with warnings.catch_warnings():
        # Lightning 2.6 under torch 2.15, and wherever SLURM is installed
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        try:
            yield
        finally:
            logger.setLevel(level)


def _restore(
    saved: dict[str, Any],
    module: EncodingModule,
    curves: EpochCurves,
    best: BestWeights,
    max_epochs: int,
) -> bool:
    """Whether training is over in this checkpoint; if so, restore its curves and best weights.

    Lightning would train one more epoch before it stops again.
    """
    states = saved.get("callbacks", {})
    rows = states.get(curves.state_key, {}).get("rows", ())
    if not states.get("LastCheckpoint", {}).get("over") and len(rows) < max_epochs:
        return False
    curves.load_state_dict(states[curves.state_key])
    best.load_state_dict(states["BestWeights"])
    module.encoder.load_state_dict(best.weights)
    return True


def _checked_checkpoint(path: Path, module: EncodingModule) -> dict[str, Any]:
    """The content of a checkpoint. Raises InputError if it is damaged or another encoder's."""
    checkpoint = load_weights(path)
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved = checkpoint.get("state_dict")
    if not isinstance(saved, dict) or expected != {
        name: tuple(getattr(value, "shape", ("none",))) for name, value in saved.items()
    }:
        raise InputError(f"checkpoint={path} holds another encoder than this config describes")
    for key, kind in _CHECKPOINT.items():
        if not isinstance(checkpoint.get(key), kind):
            raise InputError(f"checkpoint={path} is not a whole checkpoint of Lightning: no {key}")
    return checkpoint
