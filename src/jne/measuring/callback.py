"""`MeasureJNE`: the nonlinearity of any LightningModule, measured by a callback."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jne.errors import InputError
from jne.jacobian.measurement import Measurement, measure

When = Literal["test", "validation", "fit"]


def first_item(batch: Any) -> Tensor:
    """The features of a batch that is a tensor, or a tuple or list that begins with one."""
    features = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(features, Tensor):
        raise InputError(
            "features",
            f"MeasureJNE finds none in a batch that is a {type(batch).__name__}; give it a "
            f"function from a batch to them",
        )
    return features


class MeasureJNE(pl.Callback):
    """Measures JNE over the stimuli that Lightning tests or validates on, and logs its mean.

    Afterwards `measurement` (a `jne.Measurement`) has the arrays, whose rows are the stimuli in
    the order of the batches, of all dataloaders one after the other. Logged are jne/mean and
    mean_deviation/mean, the means over voxels.

    Parameters
    ----------
    features : callable
        From a batch to the features of its n stimuli, (n, ...), as the encoder takes them; by
        default the batch's first item.
    encoder : callable, optional
        From the LightningModule to the module that maps features to responses; by default the
        LightningModule itself, by its `forward`.
    when : {"test", "validation", "fit"}
        `test`, at the end of `trainer.test`; `validation`, at the end of each validation, also
        during training; `fit`, when training is over, over the last stimuli validated on, with the
        weights that training ended on.
    voxels, device, max_memory_gb
        As of `jne.measure`; by default where the encoder is.
    compute : callable, optional
        In place of `jne.measure`: called with the encoder, the features (N, ...) and what
        `test_step` returned for them, one after the other, (N, V). It returns a `jne.Measurement`,
        or what has its `jne` and `mean_deviation`, or None. For `when="test"`.

    Raises
    ------
    ValueError
        Where the features cannot be found, or there are several processes, none of which has all
        stimuli.
    """

    def __init__(
        self,
        features: Callable[[Any], Tensor] = first_item,
        *,
        encoder: Callable[[pl.LightningModule], nn.Module] | None = None,
        when: When = "test",
        voxels: NDArray | None = None,
        device: str | None = None,
        max_memory_gb: float = 1.0,
        compute: Callable[[nn.Module, Tensor, Tensor], Any] | None = None,
    ) -> None:
        given = (("features", features), ("encoder", encoder), ("compute", compute))
        for name, function in given:
            if function is not None and not callable(function):
                raise InputError(name, f"must be a function, found {type(function).__name__}")
        if when not in get_args(When):
            raise InputError("when", f"write {', '.join(get_args(When))}", value=when)
        self.features, self.encoder, self.when = features, encoder, when
        self.settings: dict[str, Any] = {
            "voxels": voxels,
            "device": device,
            "max_memory_gb": max_memory_gb,
        }
        self.compute = compute
        self.measurement: Measurement | Any = None
        self._batches: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            raise InputError(
                "devices",
                f"MeasureJNE needs all stimuli in one process, but the Trainer has "
                f"{trainer.world_size}; set devices=1",
            )

    # --- gathering the features ---

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches, self._outputs = [], []

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.when != "test":
            self._gather(batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.when == "test":
            self._gather(batch)
            if self.compute is not None:
                self._outputs.append(outputs.float().cpu())

    def _gather(self, batch: Any) -> None:
        features = self.features(batch)
        if not isinstance(features, Tensor) or features.ndim < 2:
            kind = (
                tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            )
            raise InputError(
                "features", f"must return a tensor (n_stimuli, ...) for a batch, found {kind}"
            )
        self._batches.append(features.detach().cpu())

    # --- measuring ---

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.when == "validation" and not trainer.sanity_checking:
            pl_module.log_dict(self._measure(pl_module))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.when == "test":
            pl_module.log_dict(self._measure(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.when == "fit":
            means = self._measure(pl_module)  # Lightning lets no module log at this point
            for logger in trainer.loggers:
                logger.log_metrics(means, step=trainer.global_step)

    def _measure(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Measure, and return what is logged."""
        encoder = pl_module if self.encoder is None else self.encoder(pl_module)
        if not self._batches:
            raise InputError(
                "when",
                f"MeasureJNE saw no stimuli; give the Trainer a dataloader to "
                f"{'test' if self.when == 'test' else 'validate on'}",
                value=self.when,
            )
        shapes = {tuple(features.shape[1:]) for features in self._batches}
        if len(shapes) > 1:
            raise InputError(
                "features", f"must return tensors of one shape per stimulus, found {sorted(shapes)}"
            )
        features = torch.cat(self._batches)
        if self.compute is None:
            self.measurement = measure(encoder, features, **self.settings)
        else:
            self.measurement = self.compute(encoder, features, torch.cat(self._outputs))
        if self.measurement is None:
            return {}
        return {
            "jne/mean": float(self.measurement.jne.mean()),
            "mean_deviation/mean": float(self.measurement.mean_deviation.mean()),
        }
