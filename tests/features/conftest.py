import json

import numpy as np
import open_clip
import pytest
from PIL import Image
from tiny_models import TINY_CLIP, N


@pytest.fixture(scope="session", autouse=True)
def tiny_models(tmp_path_factory):
    """Register a small CLIP with open_clip, and one whose image encoder is a ResNet."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "ViT-Tiny-8.json").write_text(json.dumps(TINY_CLIP))
    resnet = {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
    (folder / "RN-Tiny.json").write_text(json.dumps(TINY_CLIP | resnet))
    open_clip.add_model_config(folder)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, size=(N, 40, 52, 3), dtype=np.uint8)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"image{i:02d}.png")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    return folder, arrays
