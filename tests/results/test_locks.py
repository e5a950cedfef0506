"""Locks: who holds one, and file systems that have none."""

import errno
import os
import signal
import subprocess
import sys
import time

import filelock
import pytest

from jne.errors import InputError
from jne.results.folder import locked
from jne.utils import locks
from jne.utils.locks import holder, locked_file

HOLD = (
    "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
    "print(flush=True); time.sleep(float(sys.argv[2]))"
)


def hold(path, seconds: float) -> subprocess.Popen:
    """A process that has the lock of a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


@pytest.mark.runs
def test_a_process_that_waits_says_for_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "_SILENT_SECONDS", 0.1)
    path = tmp_path / "a.lock"
    process = hold(path, 1.0)
    with locked_file(path):
        assert process.wait() == 0  # it has ended before
    printed = capsys.readouterr().out.replace("\n", "")
    assert f"waiting for {path}, which another process has locked" in printed
    if sys.platform == "linux":
        assert f"(process {process.pid})" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stopped_process_that_holds_a_lock_is_named(tmp_path):
    process = hold(tmp_path / ".lock", 60)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while "stopped" not in holder(tmp_path / ".lock") and time.monotonic() < deadline:
            time.sleep(0.01)
        named = rf"writing to {tmp_path} \(process {process.pid}, which is stopped\); wait"
        with pytest.raises(InputError, match=named), locked(tmp_path, wait=0.0):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path, wait=5.0):  # the system has released it
        pass


def test_a_lock_that_nobody_has_names_nobody(tmp_path):
    (tmp_path / "a").write_text("")
    assert holder(tmp_path / "a") == holder(tmp_path / "missing") == ""


def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", missing)
    for lock in (locked_file(tmp_path / "a.lock"), locked(tmp_path, wait=0.0)):
        with pytest.raises(InputError, match=f"output: the file system of {tmp_path} has no locks"):
            lock.__enter__()
