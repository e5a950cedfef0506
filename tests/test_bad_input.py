"""Bad input ends in one sentence that says what to change."""

import shlex

import h5py
import numpy as np
import pandas as pd
import pytest
from helpers import compose_train
from hydra.errors import OverrideParseException

from jne.cli import user_message
from jne.data.arrays import Arrays
from jne.data.prepared import load, prepare, write_prepared
from jne.data.voxel_table import RESERVED_ROIS
from jne.errors import InputError
from jne.results.contents import roi_table, summarise
from jne.tracking.__main__ import main
from jne.training.config import check_config
from jne.utils import machine
from jne.utils.arrays import read_array

# --- overrides -----------------------------------------------------------------------------------

FINITE = "input should be a finite number"
POSTGRES = "postgresql://nobody@nowhere/x"


@pytest.mark.runs
@pytest.mark.parametrize(
    ("script", "override", "message"),
    [
        ("train", "optimizer.lr=inf", f"optimizer.lr=inf: {FINITE}"),
        ("train", "jacobian.max_memory_gb=nan", f"jacobian.max_memory_gb=nan: {FINITE}"),
        ("train", "jacobian.max_memory_gb='inf'", f"jacobian.max_memory_gb=inf: {FINITE}"),
        ("evaluate", "jacobian.max_memory_gb=inf", f"jacobian.max_memory_gb=inf: {FINITE}"),
        ("simulate", "simulation.placement_grid.seed=nan", f"placement_grid.seed=nan: {FINITE}"),
        ("train", "encoder=null", "encoder=null: encoder takes the name of a file in conf/encoder"),
        (
            "train",
            "name='a",
            "name: Hydra cannot read the value 'a; quote it, .* \"name='\\\\\\\\'a'\"$",
        ),
        ("train", f"tracking.uri={POSTGRES}", r"psycopg .*; pip install \"jne\[postgres\]\"$"),
        ("train", "tracking.uri='http://[x'", r"tracking.uri=http://\[x: cannot open the MLflow"),
    ],
)
def test_a_script_refuses_an_override_in_one_sentence(run_script, script, override, message):
    if POSTGRES in override:
        without_psycopg()
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as stopped:
        run_script(f"{script}.py", override)
    assert len(str(stopped.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("subject=7", "subject=7: subject takes the name of a file in conf/subject"),
        ("optimizer=1.5", "optimizer=1.5: optimizer takes the name of a file in conf/optimizer"),
        ("data=null", "data=null: data takes the name of a file in conf/data"),
        ("experiment=true", "experiment=true: experiment takes the name of a file"),
        ("name=a(b", "name: Hydra cannot read the value a(b; quote it, in the shell as "),
        ("name=a[b", "name: Hydra cannot read the value a[b; quote it, in the shell as "),
        ("name", "name: write KEY=VALUE"),
        ("=3", "=3: write KEY=VALUE"),
    ],
)
def test_what_hydra_refuses_names_the_key(tmp_path, override, message):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        compose_train(tmp_path, override)
    assert user_message(caught.value).startswith(message)


@pytest.mark.runs
@pytest.mark.parametrize("key", ["lr", "weight_decay", "+betas"])
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
def test_no_number_of_a_config_is_infinite(tmp_path, key, value):
    """Also in the sections of which only a class knows the keys, and in lists."""
    plus, name = ("+", "betas") if key == "+betas" else ("", key)
    number = f"[0.9,{value}]" if plus else value
    composed = compose_train(tmp_path, f"{plus}optimizer.{name}={number}")
    with pytest.raises(InputError, match=rf"^optimizer\.{name}=.*: {FINITE}$"):
        check_config(composed)


def without_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return
    pytest.skip("psycopg is installed")


@pytest.mark.runs
@pytest.mark.parametrize("value", ["a(b", "it's(", 'a"b(', "a$b(", "a[b", "{", "[\\'(", "(\\\\"])
def test_what_an_unreadable_override_is_told_to_quote_works(tmp_path, value):
    """As a shell splits what the sentence says."""
    with pytest.raises(OverrideParseException) as caught:
        compose_train(tmp_path, f"name={value}")
    (suggested,) = shlex.split(user_message(caught.value).rpartition("in the shell as ")[2])
    assert compose_train(tmp_path, suggested).name == value


def test_a_command_names_the_missing_driver_too(monkeypatch):
    without_psycopg()
    monkeypatch.setattr("sys.argv", ["jne.tracking", "close", POSTGRES])
    with pytest.raises(SystemExit, match=r"pip install \"jne\[postgres\]\""):
        main()


# --- arrays --------------------------------------------------------------------------------------

VALUES = np.random.default_rng(0).standard_normal((20, 70))


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _changed(at: int, to: int):
    return lambda content: content[:at] + bytes([to]) + content[at + 1 :]


def _near(word: bytes, offset: int, to: int):
    """A change of the byte `offset` behind the last `word`."""
    return lambda content: _changed(content.rindex(word) + offset, to)(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        pytest.param("npz", _cut, id="npz cut short"),
        pytest.param("npz", _changed(5000, 7), id="npz with a bad checksum"),
        pytest.param("npz", _near(b"PK\1\2", 8, 1), id="npz encrypted"),
        pytest.param("npz", _near(b"PK\1\2", 10, 99), id="npz with an unknown compression"),
        pytest.param("npz", _near(b"PK\1\2", 6, 255), id="npz of a later version"),
        pytest.param("npy", _cut, id="npy cut short"),
        pytest.param("npy", _changed(10, 0), id="npy without a header"),
        pytest.param("npy", _near(b"'shape': (", 9, ord(",")), id="npy with a wrong header"),
        pytest.param("h5", _cut, id="hdf5 cut short"),
        pytest.param("h5", _near(b"SNOD", 0, 0), id="hdf5 without its names"),
    ],
)
def test_a_damaged_array_is_refused_in_one_sentence(tmp_path, suffix, damage):
    path = tmp_path / f"x.{suffix}"
    _save(path, VALUES)
    np.testing.assert_array_equal(read_array(path, None, "key", "key_key"), VALUES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=rf"^key: .*x\.{suffix}: it cannot be read \(.") as refused:
        read_array(path, None, "key", "key_key")
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path):
    _save(tmp_path / "x.npy", VALUES)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = h5py.Empty("f8")
    for suffix, message in (("npz", r"it cannot be read \(."), ("h5", "not an array of real")):
        with pytest.raises(InputError, match=rf"^key: .*x\.{suffix}.* {message}"):
            read_array(tmp_path / f"x.{suffix}", None, "key", "key_key")


def _save(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, x=values)
    else:
        with h5py.File(path, "w") as file:
            file["x"] = values


def test_an_array_larger_than_the_memory_is_refused_before_it_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:  # 298 GiB, of which nothing is written
        file.create_dataset("x", shape=(40_000, 1_000_000), dtype="f8", chunks=(100, 1000))
    message = r"^key: the array in .*x\.h5 takes 320\.0 GB, but there are \d+\.\d GB of memory"
    with pytest.raises(InputError, match=message):
        read_array(tmp_path / "x.h5", None, "key", "key_key")


@pytest.mark.parametrize(("suffix", "fits"), [("npz", False), ("h5", False), ("npy", True)])
def test_only_what_is_read_whole_must_fit(tmp_path, monkeypatch, suffix, fits):
    _save(tmp_path / f"x.{suffix}", VALUES)
    monkeypatch.setattr("jne.utils.arrays.memory_bytes", lambda: VALUES.nbytes - 1)
    if fits:  # memory-mapped
        read_array(tmp_path / f"x.{suffix}", None, "key", "key_key")
        return
    with pytest.raises(InputError, match=r"^key: the array in .* takes 0\.0 GB"):
        read_array(tmp_path / f"x.{suffix}", None, "key", "key_key")


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = machine.memory_bytes()
    assert 2**28 < whole < 2**50
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "limit").write_text("1000\n")
    for name, expected in (("absent", whole), ("max", whole), ("limit", 1000)):
        monkeypatch.setattr(machine, "_CGROUP_LIMITS", (tmp_path / name,))
        assert machine.memory_bytes() == expected


# --- voxel tables --------------------------------------------------------------------------------


@pytest.fixture
def arrays(tmp_path):
    """A function that makes a source of small arrays with this voxel table."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((30, 4)))
    np.save(tmp_path / "y.npy", rng.standard_normal((30, 3)))

    def source(**columns) -> Arrays:
        roi_column = columns.pop("roi_column", "roi")
        pd.DataFrame({"roi": "V1"} | columns, index=range(3)).to_csv(tmp_path / "v.csv")
        return Arrays(name="a", subject="s", root=tmp_path, features="x.npy", responses="y.npy",
                      voxels="v.csv", roi_column=roi_column)  # fmt: skip

    return source


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"noise_ceiling": [0.5, "high", 0.2]}, "noise_ceiling must hold numbers, found 'high'"),
        ({"noise_ceiling": [0.5, np.inf, 0.2]}, "noise_ceiling must .* from 0 to 1, found inf"),
        ({"ncsnr": ["a", "b", "c"]}, "ncsnr must hold numbers, found 'a'"),
        (
            {"hemisphere": "left", "vertex": ["1", "L2", "3"]},
            "vertex must hold numbers, found 'L2'",
        ),
        ({"hemisphere": "left", "vertex": [1, -2, 3]}, "vertex must hold whole numbers from 0"),
        ({"i": 1, "j": [0.5, 1, 2], "k": 1}, "j must hold whole numbers from 0"),
        ({"i": 1, "j": 1, "k": "top"}, "k must hold numbers, found 'top'"),
        ({"tier": "PVC"}, "tier has the name of one that jne adds; rename it"),
        ({"status": "ok"}, "status has the name of one that jne adds"),
        ({"r2": 0.5}, "r2 has the name of one that jne adds"),
        ({"jne_l2": 0.5}, "jne_l2 has the name of one that jne adds"),
        ({"roi": ["V1", "all", "V2"]}, "an ROI is called 'all', which stands for all voxels"),
        ({"roi": ["V1", "mean", "V2"]}, "an ROI is called 'mean', which stands for all voxels"),
    ],
)
def test_a_voxel_table_is_refused_in_one_sentence(arrays, tmp_path, columns, message):
    with pytest.raises(InputError, match=rf"^data\.voxels: .*v\.csv: .*{message}"):
        prepare(arrays(**columns), tmp_path / "p")
    assert not list((tmp_path / "p").iterdir())


def test_a_voxel_table_may_have_any_other_column(arrays, tmp_path):
    """Also one called `subject`, numbers that are missing, and positions as floating point."""
    columns = {"subject": "x", "area": "V4", "noise_ceiling": [0.5, None, 0.2],
               "hemisphere": "left", "vertex": [1.0, None, 3.0], "p_value": 0.1}  # fmt: skip
    assert set(columns) < set(prepare(arrays(**columns), tmp_path / "p").voxels)


def test_a_second_column_of_rois_is_refused(arrays, tmp_path):
    with pytest.raises(InputError, match=r"^data\.roi_column=area: v\.csv also has a column roi"):
        prepare(arrays(area="V4", roi_column="area"), tmp_path / "p")


def test_an_older_prepared_folder_and_another_source_are_checked_too(arrays, tmp_path):
    source = arrays()
    folder = prepare(source, tmp_path / "p").folder
    table = pd.read_csv(folder / "voxels.csv")
    with pytest.raises(InputError, match=r"^data: the voxel table: the column tier"):
        write_prepared(source, tmp_path, np.zeros((30, 4)), None,
                       load(folder).stimuli, table.assign(tier="PVC"))  # fmt: skip
    table.assign(roi="all").to_csv(folder / "voxels.csv", index=False)
    with pytest.raises(InputError, match=r"^data: .*voxels\.csv: an ROI is called 'all'"):
        load(folder)


def test_every_word_for_all_voxels_is_reserved():
    """As a run without ROIs uses them."""
    names = ("r2", "p_fdr", "jne", "mean_deviation", "jne_ss_p95")
    voxels = pd.DataFrame({"roi": "", "status": "ok"} | dict.fromkeys(names, 0.5), index=range(3))
    words = {name.partition("/")[2] for name in summarise(voxels, 0.05)["metrics"]}
    assert words | set(roi_table(voxels)["roi"]) == set(RESERVED_ROIS)
