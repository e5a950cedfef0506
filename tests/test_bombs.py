"""What would never end, or is not in the file, is refused in one sentence, and soon."""

import io
import os
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from attacks import read_all
from bombs import arrays, bombs, nested, png, within, write_torch, zeros_in_zip
from finished_run import write_run
from PIL import Image

from jne.encoders import ResidualEncoder
from jne.errors import InputError
from jne.features.images import open_images
from jne.results import Results
from jne.results.contents import write_encoder
from jne.utils.arrays import read_array
from jne.utils.plain import read_json, read_yaml
from jne.utils.tensors import load_tensors

_SECONDS = 2.0  # of this process; the wall's clock is also that of other processes


def refused(read, *arguments) -> str:
    """The sentence with which `read` refuses, within two seconds."""
    start = time.process_time()
    with within(60), pytest.raises(InputError) as refusal:
        read(*arguments)
    assert time.process_time() - start < _SECONDS
    assert len(str(refusal.value).splitlines()) == 1
    return str(refusal.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run").path


@pytest.mark.runs
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch's kinds
def test_no_folder_keeps_its_reader_busy(run, tmp_path):
    folder = tmp_path / "run"
    changes = list(bombs())
    for what, name, change in changes:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        change(folder)
        assert name in refused(read_all, folder), what
    assert len(changes) > 80


def test_a_pipe_as_a_lock_or_a_journal_is_not_waited_for(run, tmp_path):
    from jne.results.folder import status_of
    from jne.tracking import record

    shutil.copytree(run, tmp_path / "run")
    os.mkfifo(tmp_path / "run" / "unrecorded.json")
    assert "unrecorded.json" in refused(record, tmp_path / "run")
    (tmp_path / "run" / "status.json").unlink()
    os.mkfifo(tmp_path / "run" / "status.json")
    with within(60):
        assert status_of(tmp_path / "run") == {}


def test_what_is_plain_is_read_as_it_is(tmp_path):
    """Also aliases, a whole brain's names, and what looks like an interpolation."""
    text = (
        "a: &x {b: [1, 2.5, null, true]}\nc: *x\nd: {<<: *x, e: '${oc.env:HOME}'}\nf: '2020-01-01'"
    )
    (tmp_path / "x.yaml").write_text(text)
    inner = {"b": [1, 2.5, None, True]}
    expected = {"a": inner, "c": inner, "d": inner | {"e": "${oc.env:HOME}"}, "f": "2020-01-01"}
    assert read_yaml(tmp_path / "x.yaml") == expected
    names = [f"region {i}" for i in range(10_000)]
    (tmp_path / "x.yaml").write_text("\n".join(f"- {name}" for name in names))
    assert read_yaml(tmp_path / "x.yaml") == names
    (tmp_path / "x.json").write_text('{"a": [1, -2.5e3, null, {"${b}": "\\u00e9"}]}')
    assert read_json(tmp_path / "x.json") == {"a": [1, -2500, None, {"${b}": "é"}]}


def test_links_within_a_folder_are_followed(run, tmp_path):
    shutil.copytree(run, tmp_path / "real")
    folder = tmp_path / "real"
    (folder / "arrays").mkdir()
    (folder / "features.npy").rename(folder / "arrays" / "x.npy")
    (folder / "features.npy").symlink_to(Path("arrays", "x.npy"))
    (tmp_path / "link").symlink_to(folder)
    read_all(tmp_path / "link")


def test_a_large_encoder_is_built(tmp_path):
    """The sizes in the config are those of the weights, whatever they are."""
    run = write_run(tmp_path / "run")
    width = int((run.voxels["status"] == "ok").sum())
    config = {"_target_": "jne.encoders.ResidualEncoder", "n_hidden": 60, "hidden_width": 40}
    encoder = ResidualEncoder(6, width, n_hidden=60, hidden_width=40, linear_path=True)
    sizes = {"feature_mean": 6, "feature_scale": 6, "response_mean": width, "response_scale": width}
    scaling = {name: torch.ones(size) for name, size in sizes.items()}
    write_encoder(run.path / "encoder.pt", config | {"linear_path": True}, encoder, scaling)
    features = torch.randn(3, 6)
    with torch.no_grad():
        assert torch.equal(Results(run.path).encoder()(features), encoder(features))


@pytest.mark.parametrize("depth", [49, 60, 5000])
def test_tensors_are_nested_fifty_deep(tmp_path, depth):
    write_torch(tmp_path / "x.pt", nested(depth))
    if depth < 50:
        assert load_tensors(tmp_path / "x.pt") == nested(depth)
    else:
        assert "nested more than 50 deep" in refused(load_tensors, tmp_path / "x.pt")


# --- data ----------------------------------------------------------------------------------------


def test_arrays_come_from_their_own_file(tmp_path):
    secret = tmp_path / "outside" / "secret.h5"
    secret.parent.mkdir()
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((5, 3))
    for tried, (what, name, make) in enumerate(arrays(secret), 1):
        folder = tmp_path / f"{tried}"
        folder.mkdir()
        make(folder / name)
        said = refused(read_array, folder / name, None, "key", "key_key")
        assert str(folder / name) in said, what
    assert tried > 15


def test_virtual_datasets_of_files_beside_them_are_read(tmp_path):
    """Whole files, and parts of one; in a file of its own, and in the same."""
    values = np.random.default_rng(0).standard_normal((10, 3))
    for name, part in (("a.h5", values[:5]), ("b.h5", values[5:])):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = part
    layout = h5py.VirtualLayout((8, 3), "f8")
    layout[:5] = h5py.VirtualSource("a.h5", "x", (5, 3))
    layout[5:] = h5py.VirtualSource("b.h5", "x", (5, 3))[1:4]
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    expected = values[[0, 1, 2, 3, 4, 6, 7, 8]]
    np.testing.assert_array_equal(read_array(tmp_path / "v.h5", None, "k", "kk"), expected)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["x"] = values
        own = h5py.VirtualLayout((10, 3), "f8")
        own[:] = h5py.VirtualSource(file["x"])
        file.create_virtual_dataset("v", own)
    np.testing.assert_array_equal(read_array(tmp_path / "own.h5", "v", "k", "kk"), values)
    (tmp_path / "b.h5").unlink()  # HDF5 itself reads zeros
    assert "takes /v from" in refused(read_array, tmp_path / "v.h5", None, "k", "kk")


def test_arrays_that_are_packed_are_read(tmp_path):
    zeros = np.zeros((1000, 1000))
    np.savez_compressed(tmp_path / "x.npz", x=zeros)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=zeros, compression="gzip")
    for suffix in ("npz", "h5"):
        np.testing.assert_array_equal(read_array(tmp_path / f"x.{suffix}", None, "k", "kk"), zeros)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_have_a_size(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "large.png").write_bytes(png(30_000, 30_000))
    (folder / "medium.png").write_bytes(png(9_500, 9_500))  # PIL only warns
    # PIL would hand it to Ghostscript
    (folder / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (folder / "zero.png").symlink_to("/dev/zero")  # not listed, as no file
    os.mkfifo(folder / "pipe.png")
    images = open_images(folder)
    assert images.names == ["large.png", "medium.png", "script.png"]
    for number, name in enumerate(images.names):
        assert f"images: {name}" in refused(images.read, number)


def test_containers_of_images_have_a_size(tmp_path):
    zeros_in_zip(tmp_path / "x.zip", "x.png")
    assert "it has 5989 MB" in refused(open_images(tmp_path / "x.zip").read, 0)
    for name, shape, chunks in (
        ("long", (10**12, 1, 1, 3), (10**6, 1, 1, 3)),
        ("wide", (2, 10**5, 10**5, 3), (1, 100, 100, 3)),
        ("chunk", (10**6, 30, 30, 3), (10**6, 30, 30, 1)),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("imgBrick", shape, "u1", chunks=chunks)
        assert "is too large" in refused(open_images, tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["imgBrick"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((2, 4, 4, 3), np.uint8)
    assert "in another file" in refused(open_images, tmp_path / "link.h5")
    for name in ("pipe.zip", "pipe.h5"):
        os.mkfifo(tmp_path / name)
        assert f"images: {tmp_path / name}" in refused(open_images, tmp_path / name)


def test_every_kind_of_image_is_still_read(tmp_path):
    for kind in ("jpeg", "png", "bmp", "tiff", "webp", "gif"):
        Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / f"{kind}.{kind}")
    images = open_images(tmp_path)
    assert [images.read(i).size for i in range(len(images))] == [(5, 4)] * 6
    first, second = io.BytesIO(), Image.new("RGB", (5, 4))
    second.save(first, "MPO", save_all=True, append_images=[second])  # a telephone's .jpg
    (tmp_path / "jpeg.jpeg").write_bytes(first.getvalue())
    assert images.read(images.names.index("jpeg.jpeg")).size == (5, 4)
