"""Image features against the libraries' own outputs, plain hooks and one image at a time."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import h5py
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from jne.errors import InputError
from jne.features.base import OpenClip, Precomputed, Timm
from jne.features.images import open_images

N = 7
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


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory):
    """A small CLIP in open_clip's register, and one of a ResNet."""
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


def clip(tmp_path, **keys):
    return OpenClip(
        **(COMMON | {"model": "ViT-Tiny-8", "pretrained": "random", "name": "tiny"})
        | {"cache": tmp_path / "cache"}
        | keys
    )


def vit(tmp_path, **keys):
    return Timm(
        **(COMMON | {"model": "test_vit", "pretrained": False, "name": "tiny"})
        | {"cache": tmp_path / "cache"}
        | keys
    )


def test_containers_hold_the_same_images(pictures, tmp_path):
    folder, arrays = pictures
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in (3, 1, 0, 2, 6, 5, 4):  # a zip's order is not sorted
            archive.write(folder / f"image{i:02d}.png", f"sub/image{i:02d}.png")
        archive.writestr("__MACOSX/sub/._image00.png", b"")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["imgBrick"] = arrays
    containers = [open_images(path) for path in (folder, tmp_path / "x.zip", tmp_path / "x.hdf5")]
    for container in containers:
        assert len(container) == N
        for i in range(N):
            np.testing.assert_array_equal(np.asarray(container.read(i)), arrays[i])
    assert containers[0].names == [f"image{i:02d}.png" for i in range(N)]


def test_a_corrupt_image_is_named(pictures):
    folder, _ = pictures
    cut = (folder / "image04.png").read_bytes()[:200]
    (folder / "image04.png").write_bytes(cut)
    (folder / "image05.png").write_text("no picture")
    images = open_images(folder)
    with pytest.raises(InputError, match=r"image04.png in .*pictures cannot be read"):
        images.read(4)
    with pytest.raises(InputError, match=r"image05.png .* cannot be read .not an image"):
        images.read(5)


def reference(tmp_path, images, normalise=lambda visual: visual):
    """open_clip's own forward_intermediates and embedding, of its own transform."""
    loaded = clip(tmp_path)._load()
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
        found = clip(tmp_path, layer=layer).of(images, np.arange(N), N)
        np.testing.assert_allclose(found, tokens[:, layer], rtol=1e-4, atol=1e-5)
        found = clip(tmp_path, layer=layer, pooling="mean").of(images, np.arange(N), N)
        np.testing.assert_allclose(found, patches[:, layer], rtol=1e-4, atol=1e-5)
    last = clip(tmp_path).of(images, np.array([5, 2]), N)
    np.testing.assert_allclose(last, tokens[[5, 2], 3], rtol=1e-4, atol=1e-5)


def test_every_layer_of_timm_is_its_own(pictures, tmp_path):
    images = open_images(pictures[0])
    loaded = vit(tmp_path)._load()
    pixels = torch.stack([loaded.transform(images.read(i)) for i in range(N)])
    with torch.inference_mode():
        tokens = loaded.model.eval().forward_intermediates(
            pixels, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
    for layer, (_, prefix) in enumerate(tokens, start=1):
        found = vit(tmp_path, layer=layer).of(images, np.arange(N), N)
        np.testing.assert_allclose(found, prefix[:, 0], rtol=1e-4, atol=1e-5)


def test_batches_do_not_matter(pictures, tmp_path):
    images = open_images(pictures[0])
    one = clip(tmp_path, batch_size=1, cache=tmp_path / "one").of(images, np.arange(N), N)
    all_at_once = clip(tmp_path, batch_size=64, cache=tmp_path / "all").of(images, np.arange(N), N)
    np.testing.assert_allclose(one, all_at_once, rtol=1e-4, atol=1e-5)
    half = clip(tmp_path, dtype="float16").of(images, np.arange(N), N)
    np.testing.assert_allclose(half, all_at_once, rtol=2e-3, atol=2e-3)


def test_only_missing_images_are_computed_and_only_of_the_same(pictures, tmp_path, monkeypatch):
    folder, _ = pictures
    read = []
    images = open_images(folder)
    original = type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, i: read.append(i) or original(self, i))
    clip(tmp_path).of(images, np.array([1, 3]), N)
    clip(tmp_path, layer=0).of(images, np.array([3, 4]), N)
    assert read == [1, 3, 4], "other layers of the same image are there"
    Image.fromarray(np.zeros((40, 52, 3), np.uint8)).save(folder / "image03.png")
    changed = clip(tmp_path).of(open_images(folder), np.array([3]), N)
    assert read == [1, 3, 4, 3]
    assert not np.allclose(changed, clip(tmp_path).of(images, np.array([1]), N))


@pytest.mark.slow  # a process of its own
def test_a_killed_extraction_goes_on_to_the_same_bytes(pictures, tmp_path):
    folder, _ = pictures
    script = f"""
        import sys, time, json, open_clip, numpy as np
        from pathlib import Path
        models = Path({str(tmp_path)!r}) / "models"
        models.mkdir(exist_ok=True)
        (models / "ViT-Tiny-8.json").write_text(json.dumps({TINY_CLIP!r}))
        open_clip.add_model_config(models)
        from jne.features import OpenClip
        from jne.images import FolderImages, open_images
        slow = float(sys.argv[1])
        read = FolderImages.read
        FolderImages.read = lambda self, i: (time.sleep(slow), read(self, i))[1]
        keys = {COMMON!r} | dict(model="ViT-Tiny-8", pretrained="random", name="tiny")
        features = OpenClip(**keys | dict(batch_size=1, cache=Path({str(tmp_path)!r}) / "killed"))
        features.of(open_images(Path({str(folder)!r})), np.arange({N}), {N})
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
    clip(tmp_path, batch_size=1, cache=tmp_path / "killed").of(images, np.arange(N), N)
    clip(tmp_path, batch_size=1, cache=tmp_path / "whole").of(images, np.arange(N), N)
    killed, whole = (next((tmp_path / k).glob("*/features.npy")) for k in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


def test_local_weights_give_the_model_they_came_from(pictures, tmp_path, monkeypatch):
    images = open_images(pictures[0])
    known = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: known)
    model = open_clip.create_model("ViT-Tiny-8", load_weights=False, force_quick_gelu=True).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pt")
    found = clip(tmp_path, pretrained="openai", checkpoint=tmp_path / "weights.pt")
    transform = image_transform_v2(
        PreprocessCfg(size=(32, 32), mean=known["mean"], std=known["std"]), is_train=False
    )
    pixels = torch.stack([transform(images.read(i)) for i in range(N)])
    with torch.inference_mode():
        expected = model.visual.forward_intermediates(
            pixels, output_fmt="NLC", output_extra_tokens=True
        )["image_intermediates_prefix"][-1][:, 0]
    np.testing.assert_allclose(found.of(images, np.arange(N), N), expected, rtol=1e-4, atol=1e-5)


def test_openai_weights_get_the_gelu_they_were_trained_with(tmp_path, monkeypatch):
    made = []
    original = open_clip.create_model
    monkeypatch.setattr(
        open_clip, "create_model", lambda *a, **k: made.append(k) or original("ViT-Tiny-8", **k)
    )
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pt")
    for tag, quick in (("openai", True), ("laion2b_s34b_b79k", False)):
        with pytest.raises(InputError, match="holds another architecture"):
            clip(tmp_path, model="ViT-B-32", pretrained=tag, checkpoint=tmp_path / "w.pt")._load()
        assert made[-1]["force_quick_gelu"] is quick


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "ViT-Tyny-8"}, "no such model; close to it: ViT-Tiny-8"),
        ({"layer": 9}, r"features.layer=9 is out of range: ViT-Tiny-8 has layers 0 .* to 3"),
        ({"pretrained": "nope"}, "features.pretrained=nope: ViT-Tiny-8 has"),
        ({"model": "RN-Tiny"}, "RN-Tiny is not a vision transformer"),
    ],
)
def test_bad_keys_are_one_sentence(pictures, tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        clip(tmp_path, **keys).of(open_images(pictures[0]), np.arange(N), N)


def test_bad_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"url": "http://x"})
    with pytest.raises(InputError, match="no such file"):
        clip(tmp_path, pretrained="p", checkpoint=tmp_path / "absent.pt")._load()
    (tmp_path / "bad.pt").write_bytes(b"\x80\x02no tensors")
    with pytest.raises(InputError, match="not a readable file of weights"):
        clip(tmp_path, pretrained="p", checkpoint=tmp_path / "bad.pt")._load()

    def offline(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(InputError, match=r"give a local file by features.checkpoint"):
        clip(tmp_path, pretrained="p")._load()


def test_precomputed(tmp_path):
    array = np.random.default_rng(0).normal(size=(6, 3, 4))
    np.save(tmp_path / "x.npy", array)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0}
    found = Precomputed(layer=2, **keys).of(None, np.array([4, 0]), 6)
    np.testing.assert_allclose(found, array[[4, 0], 2], rtol=1e-6)
    with pytest.raises(InputError, match="has 6 rows, but there are 7 images"):
        Precomputed(layer=2, **keys).of(None, np.arange(7), 7)
    with pytest.raises(InputError, match=r"features.layer=3 is out of range"):
        Precomputed(layer=3, **keys).of(None, np.arange(6), 6)


def test_training_from_images(run_train, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "images.zip", "w") as archive:
        for i in range(30):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
                tmp_path / "in" / "one.png"
            )
            archive.write(tmp_path / "in" / "one.png", f"{i:03d}.png")
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
    with pytest.raises(SystemExit, match=r"give either data.features or data.images"):
        run_train(*settings, "data.features=x.npy")
    with pytest.raises(SystemExit, match="choose features=clip_vit_b32"):
        run_train(*settings[:4])
