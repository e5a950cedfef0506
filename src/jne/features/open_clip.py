"""CLIP's vision transformers, from the package open_clip."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from jne.errors import InputError
from jne.features.extracted import ExtractedFeatures
from jne.features.towers import Transformer
from jne.features.weights import load_weights, no_weights, unknown_model
from jne.utils.reading import reading

RANDOM = "random"  # `features.pretrained` for random weights, on purpose


class OpenClip(ExtractedFeatures):
    """CLIP's image encoder, with the weights of OpenAI, LAION or others that open_clip knows."""

    pretrained: str
    """open_clip's name of the weights, which also fixes the preprocessing; or `random`."""

    def load(self) -> Transformer:
        import open_clip  # takes seconds
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        if self.model not in open_clip.list_models():
            raise unknown_model(self.model, open_clip.list_models())
        weights_config = open_clip.get_pretrained_cfg(self.model, self.pretrained) or {}
        if not weights_config and self.pretrained != RANDOM:
            tags = open_clip.list_pretrained_tags_by_model(self.model)
            raise InputError(
                "features.pretrained",
                f"{self.model} has {', '.join(tags)}, or {RANDOM}",
                value=self.pretrained,
            )
        # OpenAI's weights were trained with QuickGELU. With a plain GELU they load without any
        # warning and give wrong features. open_clip knows which weights need it.
        quick = bool(weights_config.get("quick_gelu", self.model.endswith("-quickgelu")))
        with _no_warnings(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            visual = _new_clip(self.model, quick).visual
        preprocessing = merge_preprocess_dict(visual.preprocess_cfg, weights_config)
        if self.pretrained != RANDOM:
            path = self.checkpoint
            if path is not None and path.is_dir():
                path, preprocessing = _from_folder(path, preprocessing)
            load_weights(visual, path or self._download(weights_config), "visual.", self.model)
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        if blocks is None:
            raise InputError("features.model", "not a vision transformer", value=self.model)
        if self.image_size is not None:
            visual = self._resized(visual, quick, self.image_size)
            blocks = visual.transformer.resblocks
            preprocessing = merge_preprocess_dict(preprocessing, {"size": visual.image_size})
        return Transformer(
            visual,
            image_transform_v2(PreprocessCfg(**preprocessing), is_train=False),
            preprocessing,
            self.token_pooling,
            blocks,
            n_prefix=1,
            batch_first=visual.transformer.batch_first,
        )

    def _resized(self, visual: Any, quick: bool, image_size: int) -> Any:
        """`visual` for images of another size, its position embedding resampled by open_clip."""
        from open_clip.model import resize_pos_embed

        self.check_patches(visual.patch_size[0])
        with _no_warnings(), self.impossible_size(), torch.random.fork_rng(devices=[]):
            clip = _new_clip(self.model, quick, force_image_size=image_size)
            state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
            resize_pos_embed(state, clip)
            clip.visual.load_state_dict(
                {name.removeprefix("visual."): value for name, value in state.items()}
            )
        return clip.visual

    def _download(self, weights_config: dict[str, Any]) -> Path:
        import open_clip

        try:
            return Path(open_clip.download_pretrained(weights_config))
        except Exception as error:  # a dozen kinds, depending on what is between here and the hub
            raise no_weights(f"{self.model} {self.pretrained}", error) from error


def _new_clip(model: str, quick: bool, **keys: Any) -> Any:
    """A CLIP with random weights; its warnings are silenced by the caller."""
    import open_clip

    return open_clip.create_model(
        model, load_weights=False, pretrained_text=False, force_quick_gelu=quick, **keys
    )


def _from_folder(folder: Path, preprocessing: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The file of weights in a folder that open_clip saved, and the preprocessing it belongs to."""
    from open_clip.transform import merge_preprocess_dict

    config = folder / "open_clip_config.json"
    if config.exists():
        with reading(config, "features.checkpoint"):
            saved = json.loads(config.read_text())
        preprocessing = merge_preprocess_dict(preprocessing, saved.get("preprocess_cfg", {}))
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        if (folder / name).exists():
            return folder / name, preprocessing
    raise InputError(
        "features.checkpoint",
        f"{folder} holds neither open_clip_model.safetensors nor open_clip_pytorch_model.bin",
    )


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence open_clip, which warns through the root logger that a new model has no weights."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
