"""The weights of CLIP's vision transformers, and what is refused."""

import numpy as np
import open_clip
import pytest
import torch
from helpers import deny
from open_clip.transform import PreprocessCfg, image_transform_v2
from tiny_models import N, clip

from jne.errors import InputError
from jne.features.images import open_images


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
    np.testing.assert_allclose(
        found.extract(images, np.arange(N), N), expected, rtol=1e-4, atol=1e-5
    )


def test_openai_weights_get_the_gelu_they_were_trained_with(tmp_path, monkeypatch):
    made = []
    original = open_clip.create_model
    monkeypatch.setattr(
        open_clip, "create_model", lambda *a, **k: made.append(k) or original("ViT-Tiny-8", **k)
    )
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pt")
    for tag, quick in (("openai", True), ("laion2b_s34b_b79k", False)):
        with pytest.raises(InputError, match="holds another architecture"):
            clip(tmp_path, model="ViT-B-32", pretrained=tag, checkpoint=tmp_path / "w.pt").load()
        assert made[-1]["force_quick_gelu"] is quick


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": "ViT-Tyny-8"}, "no such model; close to it: ViT-Tiny-8"),
        ({"layer": 9}, r"features.layer=9: out of range: ViT-Tiny-8 has layers 0 .* to 3"),
        ({"pretrained": "nope"}, "features.pretrained=nope: ViT-Tiny-8 has"),
        ({"model": "RN-Tiny"}, "RN-Tiny: not a vision transformer"),
    ],
)
def test_bad_keys_are_one_sentence(pictures, tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        clip(tmp_path, **keys).extract(open_images(pictures[0]), np.arange(N), N)


def test_bad_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: {"url": "http://x"})
    with pytest.raises(InputError, match="no such file"):
        clip(tmp_path, pretrained="p", checkpoint=tmp_path / "absent.pt").load()
    (tmp_path / "bad.pt").write_bytes(b"\x80\x02no tensors")
    with pytest.raises(InputError, match="not a readable file of weights"):
        clip(tmp_path, pretrained="p", checkpoint=tmp_path / "bad.pt").load()

    with monkeypatch.context() as patch:
        deny(patch, "torch.load", "bad.pt")
        with pytest.raises(InputError, match=r"features.checkpoint: .*bad.pt cannot be read .Perm"):
            clip(tmp_path, pretrained="p", checkpoint=tmp_path / "bad.pt").load()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "open_clip_config.json").write_text("no json")
    with pytest.raises(InputError, match=r"features.checkpoint: .*open_clip_config.json cannot be"):
        clip(tmp_path, pretrained="p", checkpoint=tmp_path / "saved").load()

    def offline(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(InputError, match=r"give a local file by features.checkpoint"):
        clip(tmp_path, pretrained="p").load()
