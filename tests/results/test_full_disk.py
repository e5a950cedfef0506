"""A file system that is full, or fails otherwise: one sentence, and nothing half-written."""

import errno
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, TINY_COHORT, status

from jne.errors import InputError
from jne.features.cache import filled_cache
from jne.jacobian.resumable import ResumableArrays
from jne.results.contents import write_encoder
from jne.utils import files
from jne.utils.files import atomic_array, not_written, reserve, write_array, write_json
from jne.utils.tables import write_table

LARGE = (250, 1000)  # a million bytes


@contextmanager
def small_files():
    """No file may be larger than 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def memory_mapped(folder: Path) -> None:
    with atomic_array(folder / "x.npy", LARGE, np.float32) as array:
        array[:] = 1


def resumed(folder: Path) -> None:
    with ResumableArrays(["l1"], {"l1": folder / "x.npy"}, LARGE, np.float32, "a"):
        pass


def cached(folder: Path) -> None:
    about = {"model": "m", "n_images": LARGE[0], "dtype": "<f4"}
    rows = np.arange(LARGE[0])
    filled_cache(folder, about, [1000], rows, lambda rows: iter([(rows, np.ones(LARGE))]))


@pytest.mark.parametrize(
    "write",
    [
        memory_mapped,
        resumed,
        cached,
        lambda folder: write_array(folder / "x.npy", np.ones(LARGE)),
        lambda folder: write_json(folder / "x.json", ["x"] * 100_000),
        lambda folder: write_encoder(folder / "encoder.pt", {}, torch.nn.Linear(*LARGE), {}),
        lambda folder: write_table(folder / "x.csv", files_table()),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, write):
    with small_files(), pytest.raises(InputError) as refused:
        write(tmp_path)
    assert "larger than this process may write" in str(refused.value)
    assert not [
        path for path in tmp_path.iterdir() if path.suffix in (".npy", ".pt", ".csv", ".tmp")
    ]


def files_table():
    import pandas as pd

    return pd.DataFrame({"x": np.arange(100_000)})


def test_an_array_has_its_space_before_it_is_written_to(tmp_path):
    """Otherwise a full disk is a SIGBUS at some write to it."""
    with atomic_array(tmp_path / "x.npy", LARGE, np.float32):
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_blocks * 512 >= 4 * LARGE[0] * LARGE[1]


def test_a_file_system_without_reservation(tmp_path, monkeypatch):
    def missing(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", missing)
    memory_mapped(tmp_path)
    assert (np.load(tmp_path / "x.npy") == 1).all()


def test_reserving_changes_no_byte(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    reserve(tmp_path / "x", 2, 1)
    assert (tmp_path / "x").read_bytes() == b"abc"


@pytest.mark.parametrize("number", sorted(files._NOT_WRITTEN))
def test_every_failure_of_a_file_system_has_its_sentence(tmp_path, number):
    told = not_written(OSError(number, "Something"), tmp_path)
    assert told.key == "output"
    assert str(tmp_path) in told.message


def test_what_torch_and_numpy_make_of_a_full_disk(tmp_path):
    """torch raises an error of its own in its place; NumPy forgets which one it was."""
    in_place = RuntimeError("unexpected pos 704 vs 598")
    in_place.__context__ = OSError(errno.ENOSPC, "No space left on device")
    numpy = OSError("100000 requested and 2484 written")
    for error in (in_place, numpy):
        assert "no space is left" in str(not_written(error, tmp_path))
    assert not_written(OSError(errno.ENOENT, "No such file"), tmp_path) is None
    assert not_written(OSError("cannot identify image file"), tmp_path) is None


TRAIN = ["train.py", *TINY_COHORT, *TINY, "data.n_features=1500"]


@pytest.mark.slow  # real processes
@pytest.mark.parametrize("kilobytes", [30, 300, 700, 1000])
def test_a_run_that_may_not_write_enough(tmp_path, store, kilobytes):
    command = [sys.executable, *TRAIN, f"output={tmp_path}", f"tracking.uri={store}"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000,) * 2)  # noqa: E731
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False,
                          preexec_fn=limit)  # fmt: skip
    check_failed(tmp_path, done)


def check_failed(output: Path, done: subprocess.CompletedProcess) -> None:
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("error: ")
    for path in output.glob("runs/*/status.json"):
        assert status(path.parent)["status"] == "FAILED"
    assert not list(output.rglob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0.5, 1, 1.5, 2])  # MB
def test_a_run_continues_when_a_full_disk_has_space_again(small_disk, store, free):
    """Also where the space ends in the middle of a memory-mapped array."""
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, int((6 - free) * 2**20))
    command = [sys.executable, *TRAIN, f"output={small_disk / 'out'}", f"tracking.uri={store}"]
    run = lambda *more: subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True,  # noqa: E731
                                       check=False)  # fmt: skip
    check_failed(small_disk, run())
    filler.unlink()
    done = run("resume=true")
    assert done.returncode == 0, done.stdout + done.stderr
    (finished,) = (small_disk / "out" / "runs").iterdir()
    assert status(finished)["status"] == "FINISHED"
