"""NSD's images as files of a folder or zip, found by the numbers in their names."""

import zipfile

import h5py
import numpy as np
import pytest
from data_sources import refused, source
from nsd_tree import N_IMAGES, behaviour
from PIL import Image

from jne.data.nsd.images import image_number
from jne.data.prepared import prepare
from jne.features.base import Features

NAMES = {
    "number": "{:05d}.png",
    "plain number": "{}.png",
    "algonauts": "train-0001_nsd-{:05d}.png",
    "shared": "shared0001_nsd{:05d}.png",
}


class MeanColour(Features):
    """Features of images: their mean red, green and blue."""

    def extract(self, images, rows, n):
        pixels = [np.asarray(images.read(i), dtype=np.float32) for i in rows]
        return np.array([image.mean(axis=(0, 1)) for image in pixels])


COLOURS = MeanColour(name="mean colour", layer=None)


def with_colours(tmp_path, tree, features, images):
    """The NSD source of a tree whose features are the mean colours of `images`."""
    chosen = source(tmp_path, tree, features)
    return type(chosen)(
        **chosen.model_dump(exclude={"image_features", "image_path"}),
        images=images,
        image_features=COLOURS,
    )


def seen(tree) -> np.ndarray:
    """The numbers, from 0, of the images in the sessions that are there."""
    table = behaviour(tree)
    return np.unique(table.loc[table["SESSION"] != 3, "73KID"]) - 1


def write_folder(tree, folder, kind, numbers):
    folder.mkdir()
    with h5py.File(next(tree.rglob("nsd_stimuli.hdf5"))) as file:
        pixels = file["imgBrick"][()]
    for number in numbers:
        name = NAMES[kind].format(number + (kind == "shared"))
        Image.fromarray(pixels[number]).save(folder / name)
    Image.fromarray(pixels[0]).save(folder / "overview.png")  # no image of NSD's


@pytest.mark.runs
@pytest.mark.parametrize("kind", NAMES)
def test_a_folder_has_the_images_of_the_hdf5_file(tree, features, tmp_path, kind):
    first = prepare(with_colours(tmp_path, tree, features, None), tmp_path / "p")
    write_folder(tree, tmp_path / "pictures", kind, range(0, N_IMAGES))
    if kind == "number":
        with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
            for path in (tmp_path / "pictures").iterdir():
                archive.write(path, f"sub/{path.name}")
        images = tmp_path / "pictures.zip"
    else:
        images = tmp_path / "pictures"
    chosen = with_colours(tmp_path, tree, features, images)
    second = prepare(chosen, tmp_path / "p")
    np.testing.assert_array_equal(second.features, first.features)
    assert len(np.unique(first.features, axis=0)) == len(first.features)
    names = chosen.images().names
    for name, number in zip(second.stimuli["image"], second.stimuli["stimulus"], strict=True):
        assert name in names
        assert image_number(name) == number
    assert first.folder != second.folder
    assert chosen.images_path == images


@pytest.mark.runs
def test_only_the_images_that_were_seen_are_needed(tree, features, tmp_path):
    write_folder(tree, tmp_path / "pictures", "number", seen(tree))
    prepare(with_colours(tmp_path, tree, features, tmp_path / "pictures"), tmp_path / "p")
    (tmp_path / "pictures" / f"{seen(tree)[3]:05d}.png").unlink()
    sentence = refused(tmp_path, tree, features, f"data.images={tmp_path / 'pictures'}")
    n = len(seen(tree))
    assert f"data.images: {tmp_path / 'pictures'} holds {n} images, but 1 of the {n}" in sentence
    assert f"such as the number {seen(tree)[3]}" in sentence


def test_numbers_that_may_count_from_one_are_refused(tree, features, tmp_path):
    write_folder(tree, tmp_path / "pictures", "number", seen(tree))
    last = tmp_path / "pictures" / "73000.png"
    Image.new("RGB", (4, 4)).save(last)
    sentence = refused(tmp_path, tree, features, f"data.images={tmp_path / 'pictures'}")
    assert "73000.png" in sentence
    assert "numbers count from 0" in sentence
    last.rename(last.with_name(f"nsd-{seen(tree)[0]}.png"))
    sentence = refused(tmp_path, tree, features, f"data.images={tmp_path / 'pictures'}")
    assert f"has the number {seen(tree)[0]}, as {seen(tree)[0]:05d}.png" in sentence


def test_images_that_are_not_there_are_named(tree, features, tmp_path):
    sentence = refused(tmp_path, tree, features, "data.images=nowhere")
    assert sentence.startswith(f"data.images: no images at {tree / 'nowhere'}; give a folder")
