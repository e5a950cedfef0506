"""Images of another size than the model's own, against what timm and open_clip do with it."""

import numpy as np
import open_clip
import pytest
import timm
import torch
from helpers import compose_train
from omegaconf import OmegaConf
from timm.data import create_transform, resolve_data_config
from tiny_models import N, clip, vit

from jne.errors import InputError
from jne.features.images import open_images
from jne.training.config import check_config

ROWS = np.arange(N)


def stacked(images, transform):
    return torch.stack([transform(images.read(i)) for i in range(N)])


@pytest.mark.runs
@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("test_vit3", 96), ("test_vit_relpos", 96), ("test_vit", 208),
        *(pytest.param(f"test_vit{kind}", size, marks=pytest.mark.slow)
          for kind, size in (("", 96), ("2", 96), ("2", 208), ("3", 208), ("_relpos", 208))),
    ],
)  # fmt: skip
def test_timm_resamples_local_weights(pictures, tmp_path, model, size):
    """Also with register tokens (test_vit3), and with relative positions."""
    images = open_images(pictures[0])
    path = tmp_path / "weights.pt"
    torch.manual_seed(1)
    torch.save(timm.create_model(model).state_dict(), path)
    weights = {"pretrained_cfg_overlay": {"file": str(path)}}
    truth = timm.create_model(model, pretrained=True, img_size=size, **weights).eval()
    transform = create_transform(**resolve_data_config({"img_size": size}, model=truth))
    with torch.inference_mode():
        patches = truth.forward_intermediates(
            stacked(images, transform), output_fmt="NLC", intermediates_only=True
        )
    keys = {"model": model, "pooling": "mean", "image_size": size}
    for layer, expected in enumerate(patches, start=1):
        features = vit(tmp_path, layer=layer, pretrained=True, checkpoint=path, **keys)
        np.testing.assert_allclose(
            features.extract(images, ROWS, N), expected.mean(dim=1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.runs
@pytest.mark.parametrize("size", [16, 32, 48])
def test_open_clip_resamples_local_weights(pictures, tmp_path, monkeypatch, size):
    images = open_images(pictures[0])
    known = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "quick_gelu": False}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: known)
    path = tmp_path / "weights.pt"
    torch.save(open_clip.create_model("ViT-Tiny-8").state_dict(), path)
    monkeypatch.setattr(open_clip.factory, "get_pretrained_cfg", lambda model, tag: {})
    truth, _, transform = open_clip.create_model_and_transforms(
        "ViT-Tiny-8", str(path), force_image_size=size, image_mean=known["mean"],
        image_std=known["std"],
    )  # fmt: skip
    with torch.inference_mode():
        expected = truth.eval().visual.forward_intermediates(
            stacked(images, transform), output_fmt="NLC", output_extra_tokens=True
        )["image_intermediates_prefix"]
    for layer, tokens in enumerate(expected, start=1):
        features = clip(tmp_path, layer=layer, pretrained="x", checkpoint=path, image_size=size)
        np.testing.assert_allclose(
            features.extract(images, ROWS, N), tokens[:, 0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.runs
@pytest.mark.parametrize(("features", "own", "other"), [(vit, 160, 96), (clip, 32, 48)])
def test_each_size_has_its_cache_and_its_own_size_changes_nothing(
    pictures, tmp_path, features, own, other
):
    images = open_images(pictures[0])
    default = features(tmp_path).extract(images, ROWS, N)
    np.testing.assert_array_equal(
        features(tmp_path, image_size=own).extract(images, ROWS, N), default
    )
    assert len(list((tmp_path / "cache").iterdir())) == 1
    resized = features(tmp_path, image_size=other).extract(images, ROWS, N)
    assert resized.shape == default.shape
    assert not np.allclose(resized, default)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    np.testing.assert_array_equal(features(tmp_path).extract(images, ROWS, N), default)


@pytest.mark.parametrize("features", [vit, clip])
def test_the_settings_without_a_size_are_those_of_version_010(tmp_path, features):
    """They name prepared folders."""
    assert set(features(tmp_path).model_dump(mode="json")) == {
        "name", "layer", "model", "checkpoint", "pooling", "dtype", "pretrained",
    }  # fmt: skip
    assert features(tmp_path, image_size=224).model_dump(mode="json")["image_size"] == 224


@pytest.mark.runs
@pytest.mark.parametrize(
    ("features", "keys", "message"),
    [
        (vit, {"image_size": 100}, r"=100: test_vit takes multiples of 16 px"),
        (clip, {"image_size": 20}, r"=20: ViT-Tiny-8 takes multiples of 8 px"),
        (
            vit,
            {"image_size": 112, "model": "cait_xxs24_224", "pooling": "mean"},
            r"=112: cait_xxs24_224 cannot take images of this size .*size mismatch",
        ),
        (
            vit,
            {"image_size": 3, "model": "test_convnext"},
            r"=3: test_convnext cannot take images of this size .*Kernel size",
        ),
    ],
)
def test_an_impossible_size_is_one_sentence(pictures, tmp_path, features, keys, message):
    with pytest.raises(InputError, match=f"^features.image_size{message}"):
        features(tmp_path, **keys).extract(open_images(pictures[0]), ROWS, N)


def test_a_size_below_1_is_refused_before_anything_is_read(tmp_path):
    settings = ["data=nsd", "features=clip_vit_b32", "features.image_size=0"]
    with pytest.raises(InputError, match=r"^features.image_size=0: input should be greater than"):
        check_config(compose_train(tmp_path, *settings, f"data.root={tmp_path}"))


def test_the_random_numbers_of_the_user_are_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    vit(tmp_path, image_size=96).load()
    clip(tmp_path, image_size=48).load()
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["timm", "clip_vit_b32", "clip_vit_b16", "clip_vit_l14"])
def test_the_config_has_the_key(request, name):
    conf = request.config.rootpath / "conf" / "features" / f"{name}.yaml"
    assert OmegaConf.load(conf).image_size is None
