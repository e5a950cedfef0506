"""Vision transformers small enough for tests, with random weights."""

from pathlib import Path

from jne.features import OpenClip, Timm

N = 7  # images in the fixture `pictures`
TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}
COMMON = {
    "layer": None,
    "pooling": "class",
    "dtype": "float32",
    "batch_size": 3,
    "device": "cpu",
    "checkpoint": None,
}


def clip(folder: Path, **keys) -> OpenClip:
    return OpenClip(
        **(COMMON | {"model": "ViT-Tiny-8", "pretrained": "random", "name": "tiny"})
        | {"cache": folder / "cache"}
        | keys
    )


def vit(folder: Path, **keys) -> Timm:
    return Timm(
        **(COMMON | {"model": "test_vit", "pretrained": False, "name": "tiny"})
        | {"cache": folder / "cache"}
        | keys
    )
