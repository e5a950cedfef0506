"""Extracted features against the libraries' own outputs, and the cache that keeps them."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import numpy as np
import pytest
import torch
from helpers import deny
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import COMMON, TINY_CLIP, N, clip, vit

from jne.errors import InputError
from jne.features.images import open_images


def reference(tmp_path, images):
    """Class tokens and mean patches (N, L, D) by open_clip's own transform and intermediates."""
    loaded = clip(tmp_path).load()
    visual = loaded.model.eval()
    transform = image_transform_v2(PreprocessCfg(size=(32, 32)), is_train=False)
    pixels = torch.stack([transform(images.read(i)) for i in range(N)])
    with torch.inference_mode():
        found = visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
        embedded = visual._embeds(pixels)
    prefix = [tokens[:, 0] for tokens in found["image_intermediates_prefix"]]
    patches = [tokens.mean(dim=1) for tokens in found["image_intermediates"]]
    return (
        torch.stack([embedded[:, 0], *prefix], dim=1).numpy(),
        torch.stack([embedded[:, 1:].mean(dim=1), *patches], dim=1).numpy(),
    )


def test_every_layer_of_open_clip_is_its_own(pictures, tmp_path):
    images = open_images(pictures[0])
    tokens, patches = reference(tmp_path, images)
    for layer in range(4):
        found = clip(tmp_path, layer=layer).extract(images, np.arange(N), N)
        np.testing.assert_allclose(found, tokens[:, layer], rtol=1e-4, atol=1e-5)
        found = clip(tmp_path, layer=layer, pooling="mean").extract(images, np.arange(N), N)
        np.testing.assert_allclose(found, patches[:, layer], rtol=1e-4, atol=1e-5)
    last = clip(tmp_path).extract(images, np.array([5, 2]), N)
    np.testing.assert_allclose(last, tokens[[5, 2], 3], rtol=1e-4, atol=1e-5)


def test_every_layer_of_timm_is_its_own(pictures, tmp_path):
    images = open_images(pictures[0])
    loaded = vit(tmp_path).load()
    pixels = torch.stack([loaded.transform(images.read(i)) for i in range(N)])
    with torch.inference_mode():
        tokens = loaded.model.eval().forward_intermediates(
            pixels, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    for layer, (_, prefix) in enumerate(tokens, start=1):
        found = vit(tmp_path, layer=layer).extract(images, np.arange(N), N)
        np.testing.assert_allclose(found, prefix[:, 0], rtol=1e-4, atol=1e-5)


def test_batches_do_not_matter(pictures, tmp_path):
    images = open_images(pictures[0])
    single = clip(tmp_path, batch_size=1, cache=tmp_path / "single").extract(
        images, np.arange(N), N
    )
    all_at_once = clip(tmp_path, batch_size=64, cache=tmp_path / "all").extract(
        images, np.arange(N), N
    )
    np.testing.assert_allclose(single, all_at_once, rtol=1e-4, atol=1e-5)
    half = clip(tmp_path, dtype="float16").extract(images, np.arange(N), N)
    np.testing.assert_allclose(half, all_at_once, rtol=2e-3, atol=2e-3)


def test_only_images_that_are_not_in_the_cache_are_computed(pictures, tmp_path, monkeypatch):
    folder, _ = pictures
    read = []
    images = open_images(folder)
    original = type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, i: read.append(i) or original(self, i))
    clip(tmp_path).extract(images, np.array([1, 3]), N)
    clip(tmp_path, layer=0).extract(images, np.array([3, 4]), N)
    assert read == [1, 3, 4], "all layers of an image are kept"
    Image.fromarray(np.zeros((40, 52, 3), np.uint8)).save(folder / "image03.png")
    changed = clip(tmp_path).extract(open_images(folder), np.array([3]), N)
    assert read == [1, 3, 4, 3]
    assert not np.allclose(changed, clip(tmp_path).extract(images, np.array([1]), N))


def test_the_name_of_a_cache_folder_stays(pictures, tmp_path):
    """Another name would extract all features again."""
    images = open_images(pictures[0])
    loaded = vit(tmp_path).load()
    vit(tmp_path).extract(images, np.array([2]), N)
    weights = hashlib.sha256()
    for name, value in sorted(loaded.model.state_dict().items()):
        weights.update(name.encode() + value.numpy().tobytes())
    about = {
        "model": "test_vit",
        "weights_sha256": weights.hexdigest(),
        "preprocessing": json.loads(json.dumps(loaded.preprocessing)),
        "pooling": "class",
        "layers": [0, len(loaded.blocks)],
        "dtype": "float32",
        "images": hashlib.sha256(json.dumps(images.fingerprint()).encode()).hexdigest(),
        "n_images": N,
    }
    (folder,) = (tmp_path / "cache").iterdir()
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    assert folder.name == f"test_vit-{digest[:12]}"
    assert json.loads((folder / "about.json").read_text()) == about
    assert np.load(folder / "features.npy").shape == (N, len(loaded.blocks) + 1, 64)
    assert np.load(folder / "done.npy").tolist() == [i == 2 for i in range(N)]


def test_a_cache_that_cannot_be_used_is_named(pictures, tmp_path, monkeypatch):
    images = open_images(pictures[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"features.cache: cannot write to .*file"):
        vit(tmp_path, cache=tmp_path / "file").extract(images, np.arange(N), N)
    deny(monkeypatch, "numpy.load", "features.npy")
    with pytest.raises(InputError, match=r"features.cache: .*features.npy cannot be read"):
        vit(tmp_path).extract(images, np.arange(N), N)


def test_a_gpu_is_needed_only_to_extract(pictures, tmp_path, monkeypatch):
    images = open_images(pictures[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"features.device=cuda: this machine has no usable GPU"):
        vit(tmp_path, device="cuda").extract(images, np.arange(N), N)
    extracted = vit(tmp_path).extract(images, np.arange(N), N)
    cached = vit(tmp_path, device="cuda").extract(images, np.arange(N), N)
    np.testing.assert_array_equal(cached, extracted)


@pytest.mark.slow  # in a process that is killed
def test_a_killed_extraction_continues_to_the_same_bytes(pictures, tmp_path):
    folder, _ = pictures
    script = f"""
        import sys, time, json, open_clip, numpy as np
        from pathlib import Path
        models = Path({str(tmp_path)!r}) / "models"
        models.mkdir(exist_ok=True)
        (models / "ViT-Tiny-8.json").write_text(json.dumps({TINY_CLIP!r}))
        open_clip.add_model_config(models)
        from jne.features import OpenClip
        from jne.features.images import FolderImages, open_images
        slow = float(sys.argv[1])
        read = FolderImages.read
        FolderImages.read = lambda self, i: (time.sleep(slow), read(self, i))[1]
        keys = {COMMON!r} | dict(model="ViT-Tiny-8", pretrained="random", name="tiny")
        features = OpenClip(**keys | dict(batch_size=1, cache=Path({str(tmp_path)!r}) / "killed"))
        features.extract(open_images(Path({str(folder)!r})), np.arange({N}), {N})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    running = subprocess.Popen([*command, "0.3"])
    deadline = time.monotonic() + 60
    done = []
    while time.monotonic() < deadline and not (done and np.load(done[0]).any()):
        time.sleep(0.05)
        done = [path for path in (tmp_path / "killed").glob("*/done.npy") if path.stat().st_size]
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert 0 < np.load(done[0]).sum() < N
    images = open_images(folder)
    clip(tmp_path, batch_size=1, cache=tmp_path / "killed").extract(images, np.arange(N), N)
    clip(tmp_path, batch_size=1, cache=tmp_path / "whole").extract(images, np.arange(N), N)
    killed, whole = (next((tmp_path / k).glob("*/features.npy")) for k in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.runs
def test_training_from_images(run_train, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "images.zip", "w") as archive:
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / "in" / "image.png"
            )
            archive.write(tmp_path / "in" / "image.png", f"{i:03d}.png")
    np.save(tmp_path / "in" / "y.npy", rng.normal(size=(30, 5)))
    settings = [
        "data=arrays",
        f"data.root={tmp_path / 'in'}",
        "data.images=images.zip",
        "data.responses=y.npy",
        "features=clip_vit_b32",
        "features.model=ViT-Tiny-8",
        "features.pretrained=random",
    ]
    (folder,) = run_train(*settings)
    stimuli = (folder / "stimuli.csv").read_text().splitlines()
    assert stimuli[0] == "stimulus,split,image"
    assert stimuli[1].endswith(".png")
    with pytest.raises(SystemExit, match=r"^error: data: give either data.features or data.images"):
        run_train(*settings, "data.features=x.npy")
    with pytest.raises(SystemExit, match="choose features=clip_vit_b32"):
        run_train(*settings[:4])
