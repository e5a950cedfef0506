"""How long features of images take, by model and image size; the table of docs/data.md.

    python benchmarks/features.py

Random weights, so nothing is downloaded: the time is the same. One batch of images is extracted
repeatedly, each time with its decoding; the time quoted is the median per image.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jne.features import OpenClip, Timm
from jne.features.extracted import ExtractedFeatures
from jne.features.images import open_images

N_IMAGES, REPEATS, PIXELS = 8, 3, 112
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
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "images").mkdir()
        for i in range(N_IMAGES):
            pixels = rng.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / "images" / f"{i}.png")
        images = open_images(Path(folder) / "images")
        print(f"{N_IMAGES} images of {PIXELS} px, {torch.get_num_threads()} threads")
        print("| model | image_size | ms per image |\n| --- | --- | --- |")
        for model, image_size in MODELS:
            chosen = features(model, image_size, Path(folder))
            tower = chosen.load()
            seconds = []
            for _ in range(REPEATS + 1):
                start = time.perf_counter()
                list(chosen._batches(tower, images, np.arange(N_IMAGES)))
                seconds.append(time.perf_counter() - start)
            ms = 1000 * statistics.median(seconds[1:]) / N_IMAGES  # the first run warms up
            print(f"| {model} | {image_size or 'null'} | {ms:.0f} |", flush=True)


if __name__ == "__main__":
    main()
