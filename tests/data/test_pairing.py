"""Which image each row shows: by the column `image`, else by names that have one order."""

import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jne.data.arrays import Arrays
from jne.data.prepared import load, prepare
from jne.errors import InputError
from jne.features import Precomputed
from jne.features.base import Features
from jne.features.images import open_images
from jne.utils.tables import read_table, write_table

N = 12


class Grey(Features):
    """Features of images: the grey of the first two pixels."""

    def extract(self, images, rows, n):
        pixels = [np.asarray(images.read(i), dtype=np.float32)[0, :2, 0] for i in rows]
        return np.array(pixels)


GREY = Grey(name="grey", layer=None)


def paint(path, k: int) -> None:
    """A picture whose first two pixels are k and k² + 1."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[0, 1] = k, k**2 + 1
    Image.fromarray(pixels).save(path)


@pytest.fixture
def shown(tmp_path):
    """Twelve pictures 0.png to 11.png, and a source of responses to them."""
    (tmp_path / "pictures").mkdir()
    for k in range(N):
        paint(tmp_path / "pictures" / f"{k}.png", k)
    np.save(tmp_path / "y.npy", np.random.default_rng(0).standard_normal((N, 2)))

    def source(**changes):
        settings = {"name": "a", "subject": "s", "root": tmp_path, "images": "pictures",
                    "image_features": GREY, "responses": "y.npy", "n_val": 2,
                    "n_test": 3}  # fmt: skip
        return Arrays(**(settings | changes))

    return tmp_path, source


def name_images(folder, names):
    pd.DataFrame({"stimulus": range(len(names)), "image": names}).to_csv(
        folder / "s.csv", index=False
    )


def zipped(folder):
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in (folder / "pictures").iterdir():
            archive.write(path, f"sub/{path.name}")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_with_two_orders_are_refused_with_both(shown, kind):
    folder, source = shown
    zipped(folder)
    images, sub = ("pictures", "") if kind == "folder" else ("pictures.zip", "sub/")
    message = (
        rf"^data\.images: the names of the images in .*{images} have two orders: row 2, counted "
        rf"from 0, is {sub}10\.png as text and {sub}2\.png by the numbers in the names; name the "
        rf"image of each row in a column `image` of data\.stimuli$"
    )
    with pytest.raises(InputError, match=message):
        prepare(source(images=images), folder / "p")


@pytest.mark.parametrize("rename", ["{:02d}.png", "img{:02d}_7.png", "x-{:03d}.png"])
def test_names_with_one_order_are_taken_in_it_and_said(shown, rename, capsys):
    folder, source = shown
    for k in range(N):
        (folder / "pictures" / f"{k}.png").rename(folder / "pictures" / rename.format(k))
    prepared = prepare(source(), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], np.arange(N))
    said = f"row 0 is {rename.format(0)}, row 11 is {rename.format(11)}"
    assert said in capsys.readouterr().out


def test_a_column_says_which_image_each_row_shows(shown, capsys):
    folder, source = shown
    order = np.random.default_rng(1).permutation(N)
    name_images(folder, [f"{k}.png" for k in order])
    prepared = prepare(source(stimuli="s.csv"), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], order)
    np.testing.assert_array_equal(prepared.features[:, 1], order**2 + 1)
    assert prepared.stimuli["image"].tolist() == [f"{k}.png" for k in order]
    assert f"row 0 is {order[0]}.png, row 11 is {order[-1]}.png" in capsys.readouterr().out


def test_images_that_were_not_shown_may_be_there(shown):
    folder, source = shown
    np.save(folder / "y.npy", np.random.default_rng(0).standard_normal((8, 2)))
    with pytest.raises(InputError, match=r"holds 12 images, but data\.responses has 8 .* column"):
        prepare(source(), folder / "p")
    name_images(folder, [f"{k}.png" for k in (11, 3, 2, 9, 0, 1, 4, 10)])
    prepared = prepare(source(stimuli="s.csv", n_val=2, n_test=3), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], [11, 3, 2, 9, 0, 1, 4, 10])


def test_the_rows_of_an_hdf5_file_are_in_their_order(shown):
    folder, source = shown
    pixels = np.stack([np.asarray(Image.open(folder / "pictures" / f"{k}.png")) for k in range(N)])
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["imgBrick"] = pixels
    prepared = prepare(source(images="x.hdf5"), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], np.arange(N))
    name_images(folder, np.arange(N)[::-1])
    prepared = prepare(source(images="x.hdf5", stimuli="s.csv"), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], np.arange(N)[::-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("5", r"says '5' in row 3 counted from 0, but .*pictures has no such image \(1 of 12 rows"),
        ("", r"is empty in row 3 counted from 0"),
        ("NA", r"says 'NA' in row 3"),
        ("sub/3.png", r"says 'sub/3.png' in row 3"),
    ],
)
def test_a_name_without_an_image_is_refused(shown, name, message):
    folder, source = shown
    names = [f"{k}.png" for k in range(N)]
    names[3] = name
    name_images(folder, names)
    with pytest.raises(InputError, match=rf"^data\.stimuli: the column image {message}"):
        prepare(source(stimuli="s.csv"), folder / "p")


def test_an_image_of_several_rows_is_a_repeat(shown):
    """In one split it is said, in two it is a leak."""
    folder, source = shown
    split = ["train"] * 7 + ["val"] * 2 + ["test"] * 3
    names = [f"{k}.png" for k in (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)]
    table = pd.DataFrame({"stimulus": range(N), "image": names, "split": split})
    table.to_csv(folder / "s.csv", index=False)
    prepared = prepare(source(stimuli="s.csv", split="fixed"), folder / "p")
    assert len(prepared.warnings) == 1
    assert prepared.warnings[0].startswith("2 of 12 stimuli have the features of another")
    table.loc[11, "image"] = "0.png"
    table.to_csv(folder / "s.csv", index=False)
    with pytest.raises(InputError, match=r"1 of 3 test stimuli are among .* by the same image"):
        prepare(source(stimuli="s.csv", split="fixed"), folder / "p")


# --- precomputed features of images ---------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """Features of 0.png to 11.png, in another order, and their ids."""
    ids = np.random.default_rng(2).permutation(N)
    np.save(tmp_path / "x.npy", np.column_stack([ids, ids**2]).astype(np.float64))
    names = [f"{k}.png" for k in ids]
    pd.DataFrame({"stimulus": names}).to_csv(tmp_path / "ids.csv", index=False)
    keys = {"name": "x", "path": tmp_path / "x.npy", "key": None, "first_layer": 0, "layer": None}
    return lambda **changes: Precomputed(**(keys | changes))


def test_stored_features_of_names_with_two_orders_need_ids(shown, stored):
    folder, source = shown
    name_images(folder, [f"{k}.png" for k in range(N)])
    settings = {"stimuli": "s.csv"}
    with pytest.raises(InputError, match=r"^features\.ids: the names .* two orders: row 2, count"):
        prepare(source(image_features=stored(), **settings), folder / "p")
    chosen = stored(ids=folder / "ids.csv")
    prepared = prepare(source(image_features=chosen, **settings), folder / "p")
    np.testing.assert_array_equal(prepared.features[:, 0], np.arange(N))


def test_ids_need_not_hold_images_that_were_not_shown(shown, stored):
    folder, _ = shown
    images = open_images(folder / "pictures")
    np.save(folder / "x.npy", np.array([[7.0, 7], [3, 3]]))
    pd.DataFrame({"stimulus": ["7.png", "3.png"]}).to_csv(folder / "ids.csv", index=False)
    rows = np.array([images.names.index(name) for name in ("3.png", "7.png", "3.png")])
    found = stored(ids=folder / "ids.csv").extract(images, rows, N)
    np.testing.assert_array_equal(found[:, 0], [3, 7, 3])


# --- folders of earlier versions ------------------------------------------------------------------


def test_a_folder_that_was_paired_by_order_is_prepared_again(shown):
    """An earlier version overwrote the column `image` by the names in their order as text."""
    folder, source = shown
    name_images(folder, [f"{k}.png" for k in range(N)])
    first = prepare(source(stimuli="s.csv"), folder / "p").folder
    stimuli = read_table(first / "stimuli.csv").assign(image=sorted(f"{k}.png" for k in range(N)))
    write_table(first / "stimuli.csv", stimuli)
    (first / "checks.json").unlink()
    before = (first / "stimuli.csv").read_bytes()
    second = prepare(source(stimuli="s.csv"), folder / "p")
    assert second.folder != first
    np.testing.assert_array_equal(second.features[:, 0], np.arange(N))
    assert prepare(source(stimuli="s.csv"), folder / "p").folder == second.folder
    assert (first / "stimuli.csv").read_bytes() == before
    assert load(first).stimuli["image"][1] == "1.png"


def test_a_folder_of_names_with_two_orders_is_refused_too(shown, monkeypatch):
    folder, source = shown
    monkeypatch.setattr("jne.data.arrays.check_one_order", lambda *_: None)
    (prepare(source(), folder / "p").folder / "checks.json").unlink()
    monkeypatch.undo()
    monkeypatch.setattr(Arrays, "write", lambda *_: pytest.fail("prepared again"))
    with pytest.raises(InputError, match="two orders"):
        prepare(source(), folder / "p")
