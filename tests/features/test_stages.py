"""Networks of stages, such as convolutional ones, against timm's own maps."""

import json

import numpy as np
import pytest
import timm
import torch
from helpers import compose_train
from timm.data import create_transform, resolve_data_config
from tiny_models import N, vit

from jne.data.prepared import prepare
from jne.errors import InputError
from jne.features.images import open_images
from jne.training.config import check_config

ROWS = np.arange(N)
CONVOLUTIONAL = ["test_resnet", "test_convnext", "test_efficientnet", "test_nfnet", "resnet10t"]
LARGE = ("resnet10t", "test_convnext", "test_nfnet", "test_maxvit")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=[pytest.mark.runs] if model in LARGE else [])
        for model in (*CONVOLUTIONAL, "test_maxvit")
    ],
)
def test_every_layer_is_the_mean_of_timms_map(pictures, tmp_path, model):
    images = open_images(pictures[0])
    size = None if model == "test_maxvit" else 64
    path = tmp_path / "weights.pt"
    torch.manual_seed(1)
    torch.save(timm.create_model(model).state_dict(), path)
    truth = timm.create_model(
        model, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    ).eval()
    config = resolve_data_config({"img_size": size}, timm.create_model(model).pretrained_cfg)
    transform = create_transform(**config)
    with torch.inference_mode():
        maps = truth(torch.stack([transform(images.read(i)) for i in range(N)]))
    widths = truth.feature_info.channels()
    assert len(set(widths)) > 1
    keys = {"model": model, "pretrained": True, "checkpoint": path, "image_size": size}
    for layer, expected in enumerate(maps):
        found = vit(tmp_path, layer=layer, **keys).extract(images, ROWS, N)
        assert found.shape == (N, widths[layer])
        np.testing.assert_allclose(found, expected.mean(dim=(2, 3)), rtol=1e-3, atol=1e-5)
    last = vit(tmp_path, **keys).extract(images, np.array([5, 2]), N)
    np.testing.assert_allclose(last, maps[-1].mean(dim=(2, 3))[[5, 2]], rtol=1e-3, atol=1e-5)


def test_layers_of_unequal_width_lie_side_by_side(pictures, tmp_path):
    images = open_images(pictures[0])
    keys = {"model": "test_convnext", "image_size": 64}
    features = vit(tmp_path, layer=1, **keys).extract(images, np.array([2, 4]), N)
    (folder,) = (tmp_path / "cache").iterdir()
    about = json.loads((folder / "about.json").read_text())
    assert (about["layers"], about["widths"], about["pooling"]) == (
        [0, 3],
        [24, 32, 48, 64],
        "mean",
    )
    array = np.load(folder / "features.npy")
    assert array.shape == (N, 24 + 32 + 48 + 64)
    np.testing.assert_array_equal(array[[2, 4], 24:56], features)
    assert np.load(folder / "done.npy").tolist() == [i in (2, 4) for i in range(N)]
    mean = vit(tmp_path, layer=1, pooling="mean", **keys).extract(images, np.array([2, 4]), N)
    np.testing.assert_array_equal(mean, features)
    assert list((tmp_path / "cache").iterdir()) == [folder], "one cache: stages have one pooling"


@pytest.mark.parametrize("layer", [-1, 5])
def test_a_layer_out_of_range_is_one_sentence(pictures, tmp_path, layer):
    message = (
        f"features.layer={layer}: out of range: test_resnet has layers 0 .the first map. to 4, "
        f"of 32, 32, 48, 192, 96 features"
    )
    with pytest.raises(InputError, match=message):
        vit(tmp_path, model="test_resnet", layer=layer).extract(open_images(pictures[0]), ROWS, N)


@pytest.mark.runs
def test_a_convolutional_network_is_chosen_by_its_name(pictures, tmp_path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).normal(size=(N, 5)))
    composed = compose_train(
        tmp_path, "data=arrays", f"data.root={tmp_path}", "data.images=pictures",
        "data.responses=y.npy", "features=timm", "features.model=test_resnet",
        "features.pretrained=false", "features.image_size=64", "data.n_val=2", "data.n_test=3",
    )  # fmt: skip
    prepared = prepare(check_config(composed)[1], tmp_path / "prepared")
    assert prepared.features.shape == (N, 96)
    assert prepared.provenance["settings"]["image_features"]["image_size"] == 64
