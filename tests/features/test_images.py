"""Containers of images."""

import zipfile

import h5py
import numpy as np
import pytest
from helpers import deny
from tiny_models import N

from jne.errors import InputError
from jne.features.images import open_images


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


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("os.scandir", "pictures"),
        ("pathlib.Path.is_dir", "pictures"),
        ("zipfile.ZipFile", "x.zip"),
        ("h5py.File", "x.hdf5"),
    ],
)
def test_unreadable_containers_are_named(pictures, monkeypatch, function, name):
    path = pictures[0].with_name(name)
    if path.suffix:
        path.touch()
    deny(monkeypatch, function, name)
    with pytest.raises(InputError, match=f"images: .*{name} cannot be read .Permission denied"):
        open_images(path)


def test_containers_of_something_else_are_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip file")
    with pytest.raises(InputError, match=r"images: .*x.zip cannot be read .File is not a zip file"):
        open_images(tmp_path / "x.zip")
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["other"] = np.zeros(3)
    with pytest.raises(InputError, match=r"images: .*x.hdf5 has no dataset imgBrick"):
        open_images(tmp_path / "x.hdf5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"images: .*empty holds no images"):
        open_images(tmp_path / "empty")
