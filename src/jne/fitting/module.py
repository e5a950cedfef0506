"""The encoder as a Lightning module: loss, optimiser, validation R2 (Gao et al. 2025, 2.2, A.3)."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import R2Score

from jne.data.datamodule import Batch
from jne.encoders import build_encoder
from jne.errors import InputError
from jne.fitting.decay import check_decays, first_decay, is_auto
from jne.utils.instantiate import instantiate


class EncodingModule(pl.LightningModule):
    """Mean squared error over all voxels of standardised responses.

    encoder, optimizer: the config sections `encoder` and `optimizer` as plain dicts, so that a
    checkpoint holds all that is needed to build the module again.

    Logs per epoch: train/loss, val/loss, and val/r2, the R2 of all voxels pooled: one minus the
    loss over the mean variance of the validation responses.
    """

    outputs: Sequence[str] = ()
    """Names of the layers whose weight decay is multiplied by `outputs_decay`."""
    outputs_decay = 1.0

    def __init__(
        self, n_features: int, n_voxels: int, encoder: dict[str, Any], optimizer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = build_encoder(encoder, n_features, n_voxels)
        self.val_r2 = R2Score(multioutput="variance_weighted")

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) to (N, V)."""
        return self.encoder(features)

    def training_step(self, batch: Batch) -> Tensor:
        features, responses, weight = batch
        loss = mse_loss(self(features), responses)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(features))
        return loss * weight

    def validation_step(self, batch: Batch) -> None:
        features, responses, _ = batch
        predictions = self(features)
        loss = mse_loss(predictions, responses)
        self.log("val/loss", loss, on_step=False, on_epoch=True, batch_size=len(features))
        self.val_r2.update(predictions, responses)

    def on_validation_epoch_end(self) -> None:
        self.log("val/r2", self.val_r2.compute())
        self.val_r2.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A weight decay that is a term of the loss may be another one for the last layer."""
        optimizer = build_optimizer(self.hparams["optimizer"], self.encoder)
        (group,) = optimizer.param_groups
        decay = group.get("weight_decay")
        if decay and not group.get("decoupled_weight_decay") and self.outputs_decay != 1:
            layers = [self.encoder.get_submodule(name) for name in self.outputs]
            last = [parameter for layer in layers for parameter in layer.parameters()]
            those = set(map(id, last))
            group["params"] = [p for p in group["params"] if id(p) not in those]
            optimizer.add_param_group({"params": last, "weight_decay": decay * self.outputs_decay})
        return optimizer


class PredictingModule(pl.LightningModule):
    """A trained encoder, whose test step predicts."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def test_step(self, batch: Batch) -> Tensor:
        """(N, D) to (N, V)."""
        return self.encoder(batch.features)


def build_optimizer(config: Mapping[str, Any], encoder: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that the config section `optimizer` describes, for the encoder's weights.

    Where that leaves the weight decay to the data, with the one that training begins with.
    Raises InputError, naming the section or the key in it, where it cannot be made.
    """
    make = instantiate(first_decay(config), "optimizer", _partial_=True)
    for name, parameter in signature(make.func).parameters.items():
        value = make.keywords.get(name, parameter.default)
        if _is_number(parameter.default) and not _is_number(value):
            raise InputError(f"optimizer.{name}", "input should be a number", value)
    try:
        optimizer = make(encoder.parameters())
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError("optimizer", f"{str(error).splitlines()[0]}") from error
    if is_auto(config):
        check_decays(optimizer)
    return optimizer


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
