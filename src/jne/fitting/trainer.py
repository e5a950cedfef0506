"""Lightning's Trainer as all of this program use it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment

from jne.fitting.config import TrainerConfig
from jne.utils.progress import quiet


def make_trainer(settings: TrainerConfig, callbacks: list[pl.Callback], **more: Any) -> pl.Trainer:
    """A Trainer on one device, without logger and output."""
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
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says at every start and a user cannot change."""
    # The logger lists the accelerators that it did not find
    with quiet("pytorch_lightning"), warnings.catch_warnings():
        # Lightning 2.6 under torch 2.15, and wherever SLURM is installed
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        yield
