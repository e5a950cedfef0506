"""Vision transformers of the package timm."""

from typing import Any

import torch
from torch import nn

from jne.errors import InputError
from jne.features.vit import (
    LoadedTransformer,
    VisionTransformer,
    load_weights,
    no_weights,
    unknown_model,
)


class Timm(VisionTransformer):
    """A vision transformer of timm."""

    pretrained: bool
    """False: random weights."""

    def load(self) -> LoadedTransformer:
        import timm  # takes seconds
        from timm.data import create_transform, resolve_model_data_config

        if not timm.is_model(self.model):
            raise unknown_model(self.model, timm.list_models())
        download = self.pretrained and self.checkpoint is None
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model: Any = timm.create_model(self.model, pretrained=download)
        except Exception as error:  # a dozen kinds, depending on what is between here and the hub
            raise no_weights(self.model, error) from error
        if self.pretrained and self.checkpoint is not None:
            load_weights(model, self.checkpoint, "", self.model)
        blocks = getattr(model, "blocks", None)
        if not isinstance(blocks, nn.ModuleList | nn.Sequential):
            raise InputError(f"features.model={self.model} is not a vision transformer")
        if self.pooling == "class" and getattr(model, "cls_token", None) is None:
            raise InputError(
                f"features.pooling=class: {self.model} has no class token; choose mean"
            )
        preprocessing = resolve_model_data_config(model)
        return LoadedTransformer(
            model,
            blocks,
            n_prefix=model.num_prefix_tokens,
            transform=create_transform(**preprocessing, is_training=False),
            preprocessing=preprocessing,
        )
