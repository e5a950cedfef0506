"""Models of the package timm: vision transformers, and networks of stages."""

from typing import Any

import torch

from jne.errors import InputError
from jne.features.extracted import ExtractedFeatures
from jne.features.towers import Stages, Tower, Transformer
from jne.features.weights import load_weights, no_weights, unknown_model


class Timm(ExtractedFeatures):
    """A model of timm."""

    pretrained: bool
    """False: random weights."""

    def load(self) -> Tower:
        import timm  # takes seconds
        from timm.data import create_transform, resolve_model_data_config
        from timm.layers import HybridEmbed, PatchEmbed

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
        if self.image_size is not None:
            model = self._resized(model, self.image_size)
        preprocessing = resolve_model_data_config(model, {"img_size": self.image_size})
        transform = create_transform(**preprocessing, is_training=False)
        blocks: Any = getattr(model, "blocks", None)
        # An EfficientNet also has blocks. Only a model of tokens knows how many come first.
        of_tokens = blocks is not None and hasattr(model, "num_prefix_tokens")
        # The patches of timm's own embeddings are row after row; those of others need not be.
        embedding = getattr(model, "patch_embed", None)
        in_rows = of_tokens and isinstance(embedding, PatchEmbed | HybridEmbed)
        if self.tokens is not None and not in_rows:
            raise InputError(
                "features.tokens",
                f"{self.model} has no patch tokens in rows over the image; leave it out, or choose "
                "a vision transformer",
                value="patches",
            )
        if not of_tokens:
            return Stages(model, transform, preprocessing, "mean")
        pooling = self.token_pooling
        if pooling == "class" and getattr(model, "cls_token", None) is None:
            raise InputError(
                "features.pooling", f"{self.model} has no class token; choose mean", value="class"
            )
        return Transformer(
            model, transform, preprocessing, pooling, blocks, model.num_prefix_tokens
        )

    def _resized(self, model: Any, image_size: int) -> Any:
        """`model` for images of another size.

        Convolutional networks take any size. For others timm resamples the position embedding while
        it loads weights into a new model, which is therefore given those of `model`.
        """
        import timm
        from timm.layers import HybridEmbed, PatchEmbed

        embedding = getattr(model, "patch_embed", None)
        if isinstance(embedding, PatchEmbed | HybridEmbed):
            self.check_patches(embedding.feat_ratio())
        if not model.pretrained_cfg["fixed_input_size"]:
            return model
        with self.impossible_size(), torch.random.fork_rng(devices=[]):
            return timm.create_model(
                self.model,
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": model.state_dict()},
                img_size=image_size,
            )
