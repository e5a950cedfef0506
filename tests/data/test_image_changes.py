"""Images that are overwritten in place: the data are prepared again, of the images there are."""

import os
import zipfile

import h5py
import numpy as np
import pytest
from data_sources import source
from PIL import Image
from test_nsd_images import COLOURS, seen, with_colours, write_folder

from jne.data.arrays import Arrays
from jne.data.prepared import load, prepare


@pytest.fixture
def pictures(tmp_path):
    """Fifty pictures, of which `paint` overwrites one, and a source of responses to them."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    np.save(tmp_path / "y.npy", np.random.default_rng(0).standard_normal((50, 2)))

    def paint(k: int, value: int) -> None:
        """Of the same size as before; the date of the folder does not change."""
        pixels = np.array([[[k, value, 0]]], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.bmp")

    for k in range(50):
        paint(k, 0)

    def chosen(**changes):
        settings = {"images": "pictures", "image_features": COLOURS} | changes
        return Arrays(name="a", subject="s", root=tmp_path, responses="y.npy", **settings)

    return tmp_path, paint, chosen


def test_an_image_that_is_overwritten_in_place_is_prepared_again(pictures):
    root, paint, chosen = pictures
    first = prepare(chosen(), root / "p")
    stat = (root / "pictures").stat()
    before = (root / "pictures" / "07.bmp").stat()
    paint(7, 99)
    assert (root / "pictures").stat().st_mtime_ns == stat.st_mtime_ns
    assert (root / "pictures" / "07.bmp").stat().st_size == before.st_size
    second = prepare(chosen(), root / "p")
    assert second.folder != first.folder
    assert second.features[7].tolist() == [7, 99, 0]
    assert load(first.folder).features[7].tolist() == [7, 0, 0]
    assert prepare(chosen(), root / "p").folder == second.folder
    paint(8, 3)
    third = prepare(chosen(), root / "p")
    assert third.folder not in (first.folder, second.folder)
    assert third.features[8].tolist() == [8, 3, 0]
    paint(7, 0), paint(8, 0)  # as they were, but for the date
    assert prepare(chosen(), root / "p").features[7].tolist() == [7, 0, 0]


def test_images_as_they_were_are_their_first_folder_again(pictures):
    root, paint, chosen = pictures
    first = prepare(chosen(), root / "p").folder
    path = root / "pictures" / "07.bmp"
    content, stat = path.read_bytes(), path.stat()
    paint(7, 99)
    assert prepare(chosen(), root / "p").folder != first
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert prepare(chosen(), root / "p").folder == first


def test_a_folder_of_an_earlier_version_knows_its_images_from_its_next_use(pictures):
    """Its name stays, and images that change after that are noticed."""
    root, paint, chosen = pictures
    first = prepare(chosen(), root / "p").folder
    (first / "checks.json").unlink()
    assert prepare(chosen(), root / "p").folder == first
    paint(7, 99)
    assert prepare(chosen(), root / "p").folder != first


@pytest.mark.parametrize("kind", ["zip", "hdf5"])
def test_images_in_one_file_are_known_by_it(pictures, kind):
    root, paint, chosen = pictures
    path = root / f"pictures.{kind}"

    def pack() -> None:
        files = sorted((root / "pictures").glob("*.bmp"))
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for file in files:
                    archive.write(file, file.name)
        else:
            with h5py.File(path, "w") as file:
                file["imgBrick"] = np.stack([np.asarray(Image.open(name)) for name in files])

    pack()
    first = prepare(chosen(images=path.name), root / "p")
    paint(7, 99)
    pack()
    second = prepare(chosen(images=path.name), root / "p")
    assert second.folder != first.folder
    assert second.features[7].tolist() == [7, 99, 0]


@pytest.mark.runs
def test_images_of_nsd_in_a_folder_are_looked_at_too(tree, features, tmp_path):
    write_folder(tree, tmp_path / "pictures", "number", seen(tree))
    chosen = with_colours(tmp_path, tree, features, tmp_path / "pictures")
    first = prepare(chosen, tmp_path / "p")
    number = seen(tree)[3]
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "pictures" / f"{number:05d}.png")
    second = prepare(chosen, tmp_path / "p")
    assert second.folder != first.folder
    row = second.stimuli["stimulus"].tolist().index(number)
    assert second.features[row].tolist() == [1, 2, 3]
    # Of features that were computed elsewhere, the images play no part
    assert not source(tmp_path, tree, features).reads_images
