"""Training and the test loop, with Lightning's Trainer."""

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

from jne.data.datamodule import StandardisedData
from jne.encoders import is_linear_layer
from jne.training.callbacks import AfterTest, BestWeights, EpochCurves, LastCheckpoint
from jne.training.checkpoint import (
    FirstBatch,
    check_progress,
    continuing,
    read_checkpoint,
    restore_finished,
)
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
from jne.training.trajectory import Trajectory
from jne.utils.machine import keep_freed_memory
from jne.utils.progress import quiet

Measured = TypeVar("Measured")
# A voxel's squared error is 1 / V of the loss, but its weights are decayed in full. Up to so many
# voxels this is left alone; with 4,800, a decay of .01 takes the readout to 0.
_FULL_DECAY = 1000


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
    trajectory: pd.DataFrame | None = None
    """As `Trajectory.table`, where one was asked for."""


Train = Callable[[EncodingModule, StandardisedData], History]


def fit(
    module: EncodingModule,
    data: StandardisedData,
    settings: TrainerConfig,
    *,
    readout: Literal["ridge", "trained"],
    save_to: Path | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    before_save: Callable[[], None] = lambda: None,
    trajectory: Trajectory | None = None,
) -> History:
    """Train with early stopping; afterwards the module has the weights of the best epoch.

    readout: `ridge` then solves for the weights of the last layer (`jne.training.readout`). An
        encoder that has no other layer is not trained.
    save_to: where checkpoints are written. If it exists, training continues from there, else from
    `checkpoint` if one is given. on_epoch, before_save: see `EpochCurves`, `LastCheckpoint`.
    trajectory: follows some voxels from epoch to epoch, and measures them once more at the end.

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
        trajectory=trajectory,
    )
    if in_components(settings.response_space, readout, data, followed=trajectory is not None):
        train = partial(_train_on_components, train, readout, save_to)
    if readout == "trained":
        history = train(module, data)
    else:
        history = _with_ridge(module, data, train, on_epoch)
    if trajectory is None:
        return history
    return replace(history, trajectory=trajectory.table(module.encoder, history.best_epoch))


def _with_ridge(
    module: EncodingModule,
    data: StandardisedData,
    train: Train,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> History:
    """Train, then solve for the last layer; an encoder that has no other layer is not trained."""
    module.outputs = output_layers(module.encoder, data, "readout", "ridge", "trained")
    module.outputs_decay = min(1.0, _FULL_DECAY / data.n_outputs)
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
    train: Train,
    readout: Literal["ridge", "trained"],
    save_to: Path | None,
    module: EncodingModule,
    data: StandardisedData,
) -> History:
    """Train an encoder of components, and give `module` its hidden layers.

    Its readout only where that stays as it was trained.
    """
    outputs = output_layers(module.encoder, data, "trainer.response_space", "components", "voxels")
    components = response_components(data, save_to and save_to.with_suffix(".npz"))
    small = ComponentModule(
        data.n_features,
        components.train.shape[1],
        module.hparams["encoder"],
        module.hparams["optimizer"],
    )
    small.components, small.outputs = components, outputs
    # |W|^2 is V / K times |w|^2: the decay is that of the voxels' readout.
    small.outputs_decay = module.outputs_decay * data.n_outputs / components.train.shape[1]
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
    data: StandardisedData,
    settings: TrainerConfig,
    save_to: Path | None,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    before_save: Callable[[], None],
    trajectory: Trajectory | None,
) -> History:
    curves, best = EpochCurves(on_epoch), BestWeights()
    own = [curves, best, *([] if trajectory is None else [trajectory])]
    if save_to is not None and save_to.exists():
        checkpoint = save_to
    saved = read_checkpoint(checkpoint, module) if checkpoint else {}
    first = FirstBatch()
    with continuing(checkpoint, first):
        if restore_finished(saved, module, own, settings.max_epochs):
            return History(pd.DataFrame(curves.rows), best.epoch, best.loss)
        if data.batch_bytes > 2**26:
            keep_freed_memory()
        callbacks = [*own, first, EarlyStopping("val/loss", patience=settings.patience)]
        if save_to is not None:
            callbacks.append(LastCheckpoint(save_to, settings.checkpoint_seconds, before_save))
        with _quiet_lightning():
            trainer = _trainer(
                settings,
                callbacks,
                max_epochs=settings.max_epochs,
                enable_checkpointing=save_to is not None,
                accumulate_grad_batches=data.n_parts,
            )
            if checkpoint:
                check_progress(saved, trainer)
            trainer.fit(module, data, ckpt_path=checkpoint)
    return History(pd.DataFrame(curves.rows), best.epoch, best.loss)


def _row_of_solution(
    module: EncodingModule, data: StandardisedData, loss: float
) -> dict[str, float]:
    """The only row of training curves of an encoder that was solved for, not trained.

    loss: of the validation stimuli. Standardised responses have a variance of 1.
    """
    features, responses = data.split("train")
    with torch.no_grad():
        train = float(mse_loss(module.encoder(features), responses))
    return {"epoch": 0, "train/loss": train, "val/loss": loss, "val/r2": 1 - loss}


def test(
    module: EncodingModule,
    data: StandardisedData,
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
        devices=1,  # by default all GPUs, each with a process of its own
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
    # The logger lists the accelerators that it did not find
    with quiet("pytorch_lightning"), warnings.catch_warnings():
        # Lightning 2.6 under torch 2.15, and wherever SLURM is installed
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        yield
