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
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch.nn.functional import mse_loss

from jne.data.datamodule import StandardisedData
from jne.encoders import is_linear_layer
from jne.errors import InputError
from jne.training.callbacks import AfterTest, BestWeights, EpochCurves, LastCheckpoint, Patience
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
from jne.utils.progress import quiet, say

Measured = TypeVar("Measured")
# A voxel's squared error is 1 / V of the loss, but its weights are decayed in full. Up to so many
# voxels this is left alone; with 4,800, a decay of .01 takes the readout to 0.
_FULL_DECAY = 1000
# Times the loss of predicting the mean. Single epochs stay below 1.5, a dozen stimuli below 4; a
# learning rate a hundred times too large gives 300 and more.
_DIVERGED = 10.0


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
    trajectory: Trajectory | None = None,
) -> History:
    """Train with early stopping; afterwards the module has the weights of the best epoch.

    readout: `ridge` then solves for the weights of the last layer (`jne.training.readout`). An
        encoder that has no other layer is not trained.
    save_to: where checkpoints are written. If it exists, training continues from there, else from
    `checkpoint` if one is given. on_epoch: see `EpochCurves`.
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
        trajectory=trajectory,
    )
    if in_components(settings.response_space, readout, data, followed=trajectory is not None):
        train = partial(_train_on_components, train, readout, save_to)
    train = partial(_train_checked, train)
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
        epoch = _solved_epoch(module, data, solved.loss)
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


def _train_checked(train: Train, module: EncodingModule, data: StandardisedData) -> History:
    """Train. Raises InputError where the best epoch is far worse than no training would be.

    A ridge readout of hidden layers that diverged predicts well, by the features that they pass on,
    and would hide it.
    """
    history = train(module, data)
    n = len(data.rows["val"])
    squares = [data.responses[data.rows["val"][i : i + 1]].square().mean() for i in range(n)]
    of_mean = float(torch.stack(squares).mean())  # standardised: the mean response is 0
    if history.best_loss > _DIVERGED * of_mean:
        raise InputError(
            "optimizer.lr",
            f"training diverged: the validation loss never fell below {history.best_loss:.3g}, and "
            f"the mean response as the prediction has {of_mean:.3g}; lower it",
            module.hparams["optimizer"].get("lr", ...),
        )
    return history


def _train(
    module: EncodingModule,
    data: StandardisedData,
    settings: TrainerConfig,
    save_to: Path | None,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    trajectory: Trajectory | None,
) -> History:
    curves, best, patience = EpochCurves(on_epoch), BestWeights(), Patience(settings.patience)
    own = [curves, best, *([] if trajectory is None else [trajectory])]
    continued = save_to is not None and save_to.exists()
    if continued:
        checkpoint = save_to
    saved = read_checkpoint(checkpoint, module) if checkpoint else {}
    first = FirstBatch()
    with continuing(checkpoint, first):
        if restore_finished(saved, module, own, patience, settings.max_epochs):
            if not continued:
                say(
                    f"checkpoint: training was over in it after {len(curves.rows)} epochs; a "
                    f"larger trainer.patience or trainer.max_epochs would continue it",
                    style="yellow",
                )
            return History(pd.DataFrame(curves.rows), best.epoch, best.loss)
        if data.batch_bytes > 2**26:
            keep_freed_memory()
        callbacks = [*own, first, patience]
        if save_to is not None:
            callbacks.append(LastCheckpoint(save_to, settings.checkpoint_seconds))
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


def _solved_epoch(module: EncodingModule, data: StandardisedData, loss: float) -> dict[str, float]:
    """One row of curves for a closed-form encoder. loss: of the validation stimuli."""
    features, responses = data.split("train")
    with torch.no_grad():
        train = float(mse_loss(module.encoder(features), responses))
    variance = float(data.split("val")[1].var(dim=0, correction=0).double().mean())
    return {"epoch": 0, "train/loss": train, "val/loss": loss, "val/r2": 1 - loss / variance}


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
