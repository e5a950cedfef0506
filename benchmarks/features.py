"""How long features of images take, by model and image size; the table of docs/data.md.

    python benchmarks/features.py

Random weights, which take the same time and need no download. The time includes the decoding of the
images, but not the loading of the model.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jne.features import OpenClip, Timm
from jne.features.extracted import ExtractedFeatures
from jne.features.images import open_images

N_IMAGES, REPEATS, PIXELS = 16, 5, 112
DINOV2 = "vit_small_patch14_dinov2"
MODELS: list[tuple[str, int | None]] = [
    (DINOV2, 518),
    (DINOV2, 224),
    (DINOV2, 112),
    ("ViT-B-32", None),
    ("resnet50", 224),
    ("resnet50", 112),
]


def features(model: str, image_size: int | None, cache: Path) -> ExtractedFeatures:
    keys = {
        **{"name": model, "model": model, "image_size": image_size, "checkpoint": None},
        **{"layer": None, "pooling": "mean", "dtype": "float16", "batch_size": N_IMAGES},
        **{"device": "cpu", "cache": cache},
    }
    if model == "ViT-B-32":
        return OpenClip.model_validate(keys | {"pretrained": "random"})
    return Timm.model_validate(keys | {"pretrained": False})


def main() -> None:
    rng = np.random.default_rng(0)
    rows = np.arange(N_IMAGES)
    lines = ["| model | `features.image_size` | ms per image |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        for i in rows:
            pixels = rng.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{i}.png")
        images = open_images(root / "images")
        for model, image_size in MODELS:
            chosen = features(model, image_size, root / "cache")
            tower = chosen.load()
            seconds = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                list(chosen.batches(tower, images, rows))
                seconds.append(time.perf_counter() - start)
            ms = 1000 * min(seconds) / N_IMAGES  # the run that other programs disturbed least
            lines.append(f"| {model} | {image_size or 'null'} | {ms:.0f} |")
    print(f"{N_IMAGES} images of {PIXELS} px, {torch.get_num_threads()} threads", *lines, sep="\n")


if __name__ == "__main__":
    main()
