"""Training, with Lightning's Trainer; or the encoder that was trained before."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.nn.functional import mse_loss

from jne.data.datamodule import StandardisedData
from jne.encoders import KernelRegression, is_linear, is_linear_layer
from jne.errors import InputError
from jne.fitting.baseline import ridge_penalties
from jne.fitting.callbacks import BestWeights, EpochCurves, LastCheckpoint, Patience
from jne.fitting.checkpoint import (
    FirstBatch,
    check_progress,
    checkpoint_digest,
    continuing,
    read_checkpoint,
    restore_finished,
)
from jne.fitting.components import (
    ComponentModule,
    component_data,
    copy_hidden,
    copy_outputs,
    response_components,
    train_on_components,
)
from jne.fitting.config import FitConfig, Readout, TrainerConfig
from jne.fitting.decay import DECAYS, DecayPath, is_auto, solved_loss
from jne.fitting.history import History, epoch_rows, read_trained, write_trained
from jne.fitting.kernel import check_kernel_memory, solve_kernel
from jne.fitting.module import EncodingModule, build_optimizer
from jne.fitting.readout import RidgeReadout, freeze_linear_path, output_layers, refit_readout
from jne.fitting.stacking import stack_readout, stackable
from jne.fitting.trainer import make_trainer, quiet_lightning
from jne.stages import Stages, code_digest
from jne.utils.machine import keep_freed_memory
from jne.utils.progress import say

_FILE = "trained.pt"
# A voxel's squared error is 1 / V of the loss, but its weights are decayed in full. Up to so many
# voxels this is left alone; with 4,800, a decay of .01 takes the readout to 0.
_FULL_DECAY = 1000
# Times the loss of predicting the mean. Single epochs stay below 1.5, a dozen stimuli below 4; a
# learning rate a hundred times too large gives 300 and more.
_DIVERGED = 10.0


@dataclass(frozen=True)
class Fitted:
    """A trained encoder, and what training leaves beside its weights."""

    encoder: nn.Module
    """With the weights of the best epoch, on the CPU and in evaluation mode."""
    history: History
    identity: str
    """Stands for it in a store of stages; empty without one."""


class Follower(Protocol):
    """A callback that follows voxels while an encoder is trained (`jne.measuring.trajectory`)."""

    identity: dict[str, Any]

    def table(self, encoder: nn.Module, best_epoch: int) -> pd.DataFrame: ...


Train = Callable[[EncodingModule, StandardisedData], History]


def fit(
    data: StandardisedData,
    settings: FitConfig,
    stages: Stages | None = None,
    *,
    checkpoint: Path | None = None,
    trajectory: Follower | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    check: Callable[[nn.Module], None] | None = None,
    solve: bool = True,
) -> Fitted:
    """Train an encoder with early stopping, unless the store has it.

    The random numbers of the whole process are as before when it returns.

    Parameters
    ----------
    data
    settings
        `readout=stacked` solves for the weights of the last layer when the others are trained, as
        one that is stacked on ridge regression (`jne.fitting.stacking`); `ridge`, or where an
        encoder cannot be stacked, by itself (`jne.fitting.readout`). An encoder that has no other
        layer is not trained.
    stages
        The store. After a kill, training continues from a checkpoint in it.
    checkpoint
        A file of another training, from which this one continues.
    trajectory
        Follows some voxels from epoch to epoch, and measures them once more at the end.
    on_epoch
        See `EpochCurves`; also called for an encoder that was trained before.
    check
        Called with the encoder before it is trained.
    solve
        False leaves the last layer of a nonlinear encoder unsolved, for folds to solve theirs
        together (`jne.fitting.folds`).

    Raises
    ------
    InputError
        For a checkpoint that is damaged or of another encoder, where training diverges, and for a
        readout that is solved for if the encoder does not end in a linear layer.
    """
    with isolate_rng():
        _seed(settings.seed)
        module = EncodingModule(
            data.n_features, data.n_outputs, settings.encoder, settings.optimizer
        )
        if isinstance(module.encoder, KernelRegression):
            check_kernel_memory(data, "encoder")
            module.encoder.resize(len(data.rows["train"]) + len(data.rows["val"]))
        if check is not None:
            check(module.encoder)
        train = partial(
            train_module,
            module,
            data,
            settings,
            stages,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            trajectory=trajectory,
            solve=solve,
        )
        if stages is None:
            history = train(save_to=None)
            return Fitted(module.encoder.to("cpu").eval(), history, "")
        made: list[History] = []

        def write(folder: Path) -> None:
            save_to = folder / "last.ckpt"
            made.append(train(save_to=save_to))
            write_trained(folder / _FILE, module.encoder, made[0])
            save_to.unlink(missing_ok=True)

        optimizer = build_optimizer(settings.optimizer, module.encoder)
        about = {
            "data": data.identity,
            "settings": settings.model_dump(
                mode="json",
                include=set(FitConfig.model_fields),
                exclude={"trainer": {"checkpoint_seconds"}},
            ),
            "code": code_digest([type(optimizer), *map(type, module.encoder.modules())]),
            "checkpoint": checkpoint and checkpoint_digest(checkpoint),
            "trajectory": trajectory and trajectory.identity,
            "solve": solve,
        }
        folder = stages.make("fit", about, write)
        if made:
            (history,) = made
        else:
            history = read_trained(folder / _FILE, module.encoder)
            if on_epoch is not None:
                for row in epoch_rows(history):
                    on_epoch(row)
    return Fitted(module.encoder.to("cpu").eval(), history, f"fit/{folder.name}")


def _seed(seed: int) -> None:
    """As Lightning's seed_everything, which also leaves the seed in the environment."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (encoders of the user's may draw from it)
    torch.manual_seed(seed)


def train_module(
    module: EncodingModule,
    data: StandardisedData,
    settings: FitConfig,
    stages: Stages | None = None,
    *,
    save_to: Path | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    trajectory: Follower | None = None,
    solve: bool = True,
) -> History:
    """Train a module; afterwards it has the weights of the best epoch.

    save_to: where checkpoints are written; if it exists, training continues from it. All else is as
    of `fit`.
    """
    train = partial(
        _train,
        settings=settings.trainer,
        readout=settings.readout,
        save_to=save_to,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
        trajectory=trajectory,
    )
    readout, followed = settings.readout, trajectory is not None
    if train_on_components(settings.trainer.response_space, readout, data, followed):
        train = partial(_train_on_components, train, readout, stages)
    train = partial(_train_checked, train)
    if isinstance(module.encoder, KernelRegression):
        if readout == "trained":
            raise InputError("readout", "encoder=kernel is solved for; leave it out", readout)
        history = _solved(module, data, solve_kernel(module.encoder, data), on_epoch)
    elif readout == "trained":
        history = train(module, data)
    else:
        history = _with_ridge(module, data, readout, train, on_epoch, solve, stages)
    if trajectory is None:
        return history
    return replace(history, trajectory=trajectory.table(module.encoder, history.best_epoch))


def _with_ridge(
    module: EncodingModule,
    data: StandardisedData,
    readout: Readout,
    train: Train,
    on_epoch: Callable[[dict[str, float]], None] | None,
    solve: bool,
    stages: Stages | None,
) -> History:
    """Train, then solve for the last layer; an encoder that has no other layer is not trained."""
    module.outputs = output_layers(module.encoder, data, "readout", readout, "trained")
    module.outputs_decay = min(1.0, _FULL_DECAY / data.n_outputs)
    if is_linear_layer(module.encoder):
        return _solved(module, data, refit_readout(module.encoder, data), on_epoch)
    solve = solve or is_linear(module.encoder)
    stacked = solve and readout == "stacked" and stackable(module.encoder, data)
    freeze_linear_path(module.encoder)
    trained = train(module, data)
    if stacked:
        penalties = ridge_penalties(data, stages)
        return trained.with_readout(stack_readout(module.encoder, data, penalties))
    return trained.with_readout(refit_readout(module.encoder, data)) if solve else trained


def _solved(
    module: EncodingModule,
    data: StandardisedData,
    solved: RidgeReadout,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> History:
    """Of an encoder in closed form: a single epoch, in which it was solved for."""
    epoch = _solved_epoch(module, data, solved.loss)
    if on_epoch is not None:
        on_epoch(epoch)
    return History(pd.DataFrame([epoch]), 1, solved.loss).with_readout(solved)


def _train_on_components(
    train: Train,
    readout: Readout,
    stages: Stages | None,
    module: EncodingModule,
    data: StandardisedData,
) -> History:
    """Train an encoder of components, and give `module` its hidden layers.

    Its readout only where that stays as it was trained.
    """
    outputs = output_layers(module.encoder, data, "trainer.response_space", "components", "voxels")
    components = response_components(data, stages)
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
    if readout != "trained":
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
    readout: Readout,
    save_to: Path | None,
    checkpoint: Path | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    trajectory: Follower | None,
) -> History:
    curves, best, max_epochs = EpochCurves(on_epoch), BestWeights(), settings.max_epochs
    patience = Patience(settings.patience)
    if is_auto(module.hparams["optimizer"]):
        loss = partial(solved_loss, data=data) if readout != "trained" else None
        patience = DecayPath(settings.patience, max_epochs, best, loss)
        max_epochs *= len(DECAYS)
    followers = [] if trajectory is None else [cast(pl.Callback, trajectory)]
    own: list[pl.Callback] = [curves, best, *followers]
    continued = save_to is not None and save_to.exists()
    if continued:
        checkpoint = save_to
    saved = read_checkpoint(checkpoint, module) if checkpoint else {}
    first = FirstBatch()
    with continuing(checkpoint, first):
        if restore_finished(saved, module, own, patience, max_epochs):
            if not continued:
                say(
                    f"checkpoint: training was over in it after {len(curves.rows)} epochs; a "
                    f"larger trainer.patience or trainer.max_epochs would continue it",
                    style="yellow",
                )
            return _history(module, curves, best, patience)
        if data.batch_bytes > 2**26:
            keep_freed_memory()
        callbacks = [*own, first, patience]
        if save_to is not None:
            callbacks.append(LastCheckpoint(save_to, settings.checkpoint_seconds))
        with quiet_lightning():
            trainer = make_trainer(
                settings,
                callbacks,
                max_epochs=max_epochs,
                enable_checkpointing=save_to is not None,
                accumulate_grad_batches=data.n_parts,
            )
            if checkpoint:
                check_progress(saved, trainer)
            trainer.fit(module, data, ckpt_path=checkpoint)
    return _history(module, curves, best, patience)


def _history(
    module: EncodingModule, curves: EpochCurves, best: BestWeights, patience: Patience
) -> History:
    rows = pd.DataFrame(curves.rows)
    if not isinstance(patience, DecayPath):
        return History(rows, best.epoch, best.loss)
    epoch, loss, decays = patience.choose(module.encoder)
    return History(rows, epoch, loss, decays=decays)


def _solved_epoch(module: EncodingModule, data: StandardisedData, loss: float) -> dict[str, float]:
    """One row of curves for a closed-form encoder. loss: of the validation stimuli."""
    features, responses = data.split("train")
    with torch.no_grad():
        train = float(mse_loss(module.encoder(features), responses))
    variance = float(data.split("val")[1].var(dim=0, correction=0).double().mean())
    return {"epoch": 1, "train/loss": train, "val/loss": loss, "val/r2": 1 - loss / variance}
