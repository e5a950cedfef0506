"""The prepared folder: what is written, when it is reused, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from data_sources import synthetic
from helpers import ROOT, TINY, deny
from pydantic import BaseModel

from jne.data.algonauts import Algonauts
from jne.data.arrays import Arrays
from jne.data.nsd import NSD
from jne.data.prepared import load, prepared_folder
from jne.data.splits import check_split
from jne.data.synthetic import Synthetic
from jne.errors import InputError
from jne.utils.tables import read_table, write_table


def test_a_folder_is_written_once_and_again_when_its_settings_change(tmp_path, monkeypatch):
    first = synthetic(tmp_path)
    monkeypatch.setattr(Synthetic, "write", lambda *_: pytest.fail("written again"))
    assert synthetic(tmp_path).folder == first.folder
    monkeypatch.undo()
    assert synthetic(tmp_path, seed=1).folder != first.folder
    assert isinstance(first.features, np.memmap)


def test_the_names_of_prepared_folders_stay(tmp_path):
    """Another name would prepare gigabytes again."""
    names = [f"{source.__module__}.{source.__qualname__}"
             for source in (NSD, Synthetic, Arrays, Algonauts)]  # fmt: skip
    assert names == [
        "jne.data.nsd.NSD",
        "jne.data.synthetic.Synthetic",
        "jne.data.arrays.Arrays",
        "jne.data.algonauts.Algonauts",
    ]
    assert synthetic(tmp_path).folder.name == "synthetic-subj01-b4d5c3664a9b"


def test_a_source_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def half(self, folder):
        (folder / "features.npy").write_bytes(b"half")
        raise InputError("data", "stopped")

    monkeypatch.setattr(Synthetic, "write", half)
    with pytest.raises(InputError):
        synthetic(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_provenance_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no provenance\.json"):
        load(tmp_path)


def test_a_column_of_empty_text_stays_text(tmp_path):
    write_table(tmp_path / "voxels.csv", pd.DataFrame({"voxel": [0, 1], "roi": "", "r2": np.nan}))
    table = read_table(tmp_path / "voxels.csv")
    assert list(table["roi"]) == ["", ""]
    assert table["r2"].isna().all()


@pytest.mark.runs
@pytest.mark.filterwarnings("error::pandas.errors.DtypeWarning")
def test_a_long_column_has_one_type(tmp_path):
    """Labels without a name, which look like numbers, before labels with one."""
    labels = ["3"] * 70_000 + ["V1"] * 10_000
    table = pd.DataFrame({f"set{i}": labels for i in range(10)})
    write_table(tmp_path / "voxels.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "voxels.csv"), table)


@pytest.mark.parametrize(
    ("keys", "split", "message"),
    [
        ({"n_val": 0.1, "n_test": 2}, "test", "JNE needs at least 3; change data.n_test$"),
        ({"n_val": 0.1, "n_test": 2}, "val", "needs at least 2; change data.n_val or data.n_test$"),
        ({"n_val": 0.1, "split": "fixed"}, "test", "JNE needs at least 3; change data.split$"),
        ({"parts": 3}, "test", "JNE needs at least 3$"),
    ],
)
def test_a_small_split_names_only_keys_of_the_source(keys, split, message):
    source = type("Mine", (BaseModel,), {"__annotations__": dict.fromkeys(keys, object)})(**keys)
    splits = pd.Series(["train"] * 9 + ["val"] * 9 + ["test"] * 9)
    few = pd.concat([splits[splits != split], pd.Series([split])])
    with pytest.raises(InputError, match=f"data: 1 {split} stimuli, but .*{message}"):
        check_split(few, source)


def test_an_unreadable_prepared_folder_is_named(tmp_path, monkeypatch):
    folder = synthetic(tmp_path).folder
    deny(monkeypatch, "numpy.load", "responses.npy")
    with pytest.raises(InputError, match=r"data: .*responses.npy cannot be read .Permission"):
        load(folder)


@pytest.mark.runs
def test_a_source_of_ones_own_is_a_file_and_a_yaml(tmp_path, monkeypatch, run_script):
    """The example in docs/data.md, in folders of the user's own."""
    section = (Path(ROOT) / "docs" / "data.md").read_text().split("## A data source of your own")[1]
    code, config = re.findall(r"```(?:python|yaml)\n(.*?)```", section, flags=re.DOTALL)[:2]
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(config.replace("jne.data.mine", "mine"))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", rng.standard_normal((60, 8)))
    np.save(tmp_path / "responses.npy", rng.standard_normal((60, 5)))
    monkeypatch.syspath_prepend(tmp_path)
    chosen = ("data=mine", f"data.root={tmp_path}", f"--config-dir={tmp_path / 'conf'}")
    (folder,) = run_script("train.py", *TINY, *chosen)
    voxels = read_table(folder / "voxels.csv")
    assert list(voxels["roi"]) == ["V1"] * 5
    assert np.isfinite(voxels[["r2", "jne"]]).all(axis=None)
    with pytest.raises(SystemExit, match=r"data.n_test=few: input should be a valid number"):
        run_script("train.py", "data.n_test=few", *chosen)
    with pytest.raises(SystemExit, match=r"1 test stimuli, .* at least 3; change data.n_test$"):
        run_script("train.py", "data.n_test=0.02", *chosen)


def left_by_a_kill(root, monkeypatch):
    """Prepare until half of it is written, and leave it as a kill -9 does."""
    with monkeypatch.context() as patch:
        patch.setattr("jne.utils.files.shutil.rmtree", lambda *_, **__: None)
        patch.setattr(Synthetic, "write", half_written)
        with pytest.raises(RuntimeError):
            synthetic(root)


def half_written(self, folder):
    (folder / "features.npy").write_bytes(b"half")
    (folder / "of another version.npy").write_bytes(b"half")
    raise RuntimeError


def test_the_next_start_removes_what_a_killed_preparation_left(tmp_path, monkeypatch):
    whole = synthetic(tmp_path / "whole").folder
    left_by_a_kill(tmp_path / "again", monkeypatch)
    (partial,) = (path for path in (tmp_path / "again").iterdir() if path.is_dir())
    assert (partial / "features.npy").exists()
    again = synthetic(tmp_path / "again").folder
    assert [path for path in again.parent.iterdir() if path.is_dir()] == [again]
    assert {path.name for path in again.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_folder_is_named_without_being_made(tmp_path):
    prepared = synthetic(tmp_path)
    source = Synthetic(**prepared.provenance["settings"])
    assert prepared_folder(source, tmp_path / "x") == tmp_path / "x" / prepared.folder.name
    assert not (tmp_path / "x").exists()
