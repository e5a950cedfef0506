"""Cells of a grid over the image as feature spaces, against patch tokens pooled by hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import N, clip, vit

from jne import Results
from jne.errors import InputError
from jne.features import FeatureSpaces
from jne.features.images import open_images
from jne.utils.spaces import cell_names, grid_of

PATCHES = {"tokens": "patches"}
ROWS = np.arange(N)


def by_cell(patches, grid):
    """Means (N, D) of patches (N, side, side, D) by cell; side is a multiple of grid."""
    size = patches.shape[1] // grid
    return {
        f"cell_{r + 1}_{c + 1}": patches[
            :, r * size : (r + 1) * size, c * size : (c + 1) * size
        ].mean(axis=(1, 2))
        for r in range(grid)
        for c in range(grid)
    }


def patch_maps(features, images):
    """What leaves each block, of patches alone (N, side, side, D), by the library itself."""
    tower = features.load()
    pixels = torch.stack([tower.transform(images.read(i)) for i in ROWS])
    with torch.inference_mode():
        layers = tower.model.eval().forward_intermediates(pixels)
    if isinstance(layers, dict):
        layers = layers["image_intermediates"]
    else:
        layers = layers[1]
    return [layer.permute(0, 2, 3, 1).numpy() for layer in layers]


def spaces_of(features, images):
    return features.each(lambda space: space.extract(images, ROWS, N))


@pytest.mark.parametrize(("make", "grid"), [(clip, 2), (clip, 4), (vit, 2), (vit, 5)])
def test_a_cell_is_the_mean_of_its_patches(make, grid, pictures, tmp_path):
    images = open_images(pictures[0])
    last = patch_maps(make(tmp_path), images)[-1]
    spaces = spaces_of(make(tmp_path, **PATCHES, grid=grid), images)
    expected = by_cell(last, grid)
    assert list(spaces) == list(expected) == cell_names(grid)
    for name, cell in expected.items():
        np.testing.assert_allclose(spaces[name], cell, rtol=1e-4, atol=1e-5)


def test_cells_that_do_not_fit_share_patches(pictures, tmp_path):
    images = open_images(pictures[0])
    last = patch_maps(clip(tmp_path), images)[-1]  # 4 x 4 patches, 3 x 3 cells
    spaces = spaces_of(clip(tmp_path, **PATCHES, grid=3), images)
    shared = last[:, 1:3, 2:4].mean(axis=(1, 2))
    np.testing.assert_allclose(spaces["cell_2_3"], shared, rtol=1e-4, atol=1e-5)


def test_each_layer_has_its_cells(pictures, tmp_path):
    images = open_images(pictures[0])
    maps = patch_maps(vit(tmp_path), images)
    features = vit(tmp_path, **PATCHES, layer=[2, 1])
    spaces = spaces_of(features, images)
    assert list(spaces) == [f"layer_{k}_{cell}" for k in (2, 1) for cell in cell_names(2)]
    expected = by_cell(maps[0], 2)["cell_2_1"]
    np.testing.assert_allclose(spaces["layer_1_cell_2_1"], expected, rtol=1e-4, atol=1e-5)
    both = FeatureSpaces(name="two", layer=None, spaces={"t": features, "c": clip(tmp_path)})
    assert list(spaces_of(both, images)) == [*(f"t_{name}" for name in spaces), "c"]


def test_the_cell_in_which_images_differ_is_where_it_is_in_the_image(tmp_path):
    """In the embedding, before patches see each other. timm's crop blurs the borders."""
    folder = tmp_path / "quadrants"
    folder.mkdir()
    for k in range(N):
        pixels = np.zeros((32, 32, 3), np.uint8)
        row, column = divmod(max(k - 1, 0), 2)
        if 0 < k < 5:  # the first image is black
            pixels[16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)] = 255
        Image.fromarray(pixels).save(folder / f"{k}.png")
    for make in (clip, vit):
        features = make(tmp_path, **PATCHES, layer=0, image_size=32)
        spaces = spaces_of(features, open_images(folder))
        change = np.array([np.abs(x - x[0]).mean(axis=1) for x in spaces.values()])[:, 1:5]
        np.testing.assert_array_equal(change.argmax(axis=0), range(4))
        np.testing.assert_array_less(change[~np.eye(4, dtype=bool)], 0.2 * change.max())


def test_cells_have_a_cache_of_their_own_and_one_extraction_gives_all(
    pictures, tmp_path, monkeypatch
):
    images = open_images(pictures[0])
    read = []
    original = type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, i: read.append(i) or original(self, i))
    spaces_of(clip(tmp_path), images)
    spaces_of(clip(tmp_path, **PATCHES, layer=[1, 2]), images)
    spaces_of(clip(tmp_path, **PATCHES, grid=2), images)
    assert read == [*ROWS] * 2
    spaces_of(clip(tmp_path, **PATCHES, grid=4), images)
    assert read == [*ROWS] * 3
    folders = sorted((tmp_path / "cache").iterdir())
    poolings = {json.loads((folder / "about.json").read_text())["pooling"] for folder in folders}
    assert poolings == {"class", 2, 4}


def test_what_is_left_to_a_default_has_the_digest_of_what_is_written(tmp_path):
    plain = vit(tmp_path).model_dump(mode="json")
    assert not {"tokens", "grid"} & set(plain)
    assert vit(tmp_path, tokens="class").model_dump(mode="json") == plain
    given = vit(tmp_path, **PATCHES, grid=2).model_dump(mode="json")
    assert vit(tmp_path, **PATCHES).model_dump(mode="json") == given
    assert given == plain | {"tokens": "patches", "grid": 2}


def test_a_transformer_needs_no_class_token(pictures, tmp_path):
    images = open_images(pictures[0])
    features = vit(tmp_path, model="test_vit2", **PATCHES)  # its first token is a register
    expected = by_cell(patch_maps(features, images)[-1], 2)["cell_1_2"]
    cell = spaces_of(features, images)["cell_1_2"]
    np.testing.assert_allclose(cell, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (vit, {"model": "test_convnext"}, r"tokens=patches: test_convnext has no patch tokens in"),
        (vit, {"model": "cait_xxs24_224"}, r"tokens=patches: this model's patches make no square"),
        (clip, {"grid": 5}, r"grid=5: this model has 4 x 4 patches"),
        (clip, {"grid": 7, "image_size": 48}, r"grid=7: this model has 6 x 6 patches"),
        (clip, {"model": "RN-Tiny"}, r"model=RN-Tiny: not a vision transformer"),
    ],
)
def test_a_model_without_such_patches_is_refused(make, keys, message, pictures, tmp_path):
    with pytest.raises(InputError, match=f"^features.{message}"):
        make(tmp_path, **PATCHES | keys).extract(open_images(pictures[0]), ROWS, N)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"grid": 2}, "grid=2: has no effect without tokens=patches"),
        ({"tokens": "class", "grid": 2}, "grid=2: has no effect without tokens=patches"),
        (PATCHES | {"pooling": "mean"}, "pooling=mean: has no effect with tokens=patches"),
        (PATCHES | {"grid": 8}, "less than or equal to 7"),
        ({"tokens": "all"}, "'class' or 'patches'"),
    ],
)
def test_keys_without_effect_are_refused(keys, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        vit(tmp_path, **keys)


def test_names_of_cells_say_which_grid_it_is():
    assert cell_names(2) == ["cell_1_1", "cell_1_2", "cell_2_1", "cell_2_2"]
    assert [grid_of(cell_names(grid)) for grid in (2, 3, 7)] == [2, 3, 7]
    others = [], ["cell_1_1"], cell_names(2)[::-1], ["clip", "depth"], cell_names(3)[:4]
    assert [grid_of(names) for names in others] == [None] * 5


@pytest.mark.runs
def test_a_run_finds_the_cell_in_which_voxels_are_nonlinear(run_script, tmp_path):
    """Three voxels are of the brightness, top left, without its sign; three of it bottom right."""
    rng = np.random.default_rng(0)
    n, folder = 500, tmp_path / "in"
    (folder / "images").mkdir(parents=True)
    quadrants = rng.uniform(-1, 1, (n, 2, 2))
    for k, pixels in enumerate(np.kron(128 + 120 * quadrants, np.ones((16, 16)))):
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(
            folder / "images" / f"{k:03d}.png"
        )
    nonlinear = np.abs(np.repeat(quadrants[:, [0, 1], [0, 1]], 3, axis=1))
    linear = quadrants.reshape(n, 4) @ rng.normal(size=(4, 6))
    responses = 3 * nonlinear + linear + 0.3 * rng.normal(size=(n, 6))
    np.save(folder / "y.npy", responses.astype(np.float32))
    data = ["data=arrays", f"data.root={folder}", "data.images=images", "data.responses=y.npy"]
    model = ["features=timm", "features.model=test_vit", "features.pretrained=false"]
    settings = [*data, *model, "features.image_size=32", "features.layer=0", "encoder=kernel"]
    test = f"data.n_test={n // 2}"
    (path,) = run_script("train.py", *settings, test, "features.tokens=patches")
    run = Results(path)
    assert run.feature_spaces == {
        name: slice(64 * k, 64 * (k + 1)) for k, name in enumerate(cell_names(2))
    }
    assert run.config["features"]["tokens"] == "patches"
    assert list(run.voxels["nonlinear_in"]) == ["cell_1_1"] * 3 + ["cell_2_2"] * 3
    parts = run.spaces["mean_deviation"].unstack()[cell_names(2)]
    assert list(parts.idxmax(axis=1)) == ["cell_1_1"] * 3 + ["cell_2_2"] * 3
    with pytest.raises(SystemExit, match=r"^error: features.grid=2: has no effect without tokens"):
        run_script("train.py", *settings, "features.grid=2")
