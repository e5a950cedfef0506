"""The encoder as a Lightning module: loss, optimiser and validation R2 (PAPER 2.2, A.3)."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.nn.functional import mse_loss
from torchmetrics import R2Score

from jne.config import build_encoder, build_optimizer
from jne.data.module import Batch


class EncodingModule(pl.LightningModule):
    """Mean squared error over all voxels of standardised responses.

    encoder, optimizer: sections `encoder` and `optimizer` of the config, as plain dicts, so that
    a checkpoint holds all that is needed to build the module again.

    Logs, per epoch: train/loss, val/loss, and val/r2, the mean R2 over voxels.
    """

    def __init__(
        self, n_features: int, n_voxels: int, encoder: dict[str, Any], optimizer: dict[str, Any]
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = build_encoder(encoder, n_features, n_voxels)
        self.val_r2 = R2Score()

    def forward(self, features: Tensor) -> Tensor:  # (N, D) -> (N, V)
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

    def test_step(self, batch: Batch) -> Tensor:
        return self(batch.features)

    def configure_optimizers(self):
        return build_optimizer(self.hparams.optimizer, self.encoder)
