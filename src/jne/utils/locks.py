"""Locks between processes. The system releases them when a process dies, also by kill -9."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from jne.errors import InputError
from jne.utils.files import writing

_SILENT_SECONDS = 5.0  # after these, a process that waits says for what


@contextmanager
def locked_file(
    path: Path, wait: float | None = None, key: str = "output", keep: bool = True
) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made if need be.

    wait: for so many seconds, and then raise TimeoutError; None waits as long as it takes, and
    after a while says which process has the lock. key: the config key that says where the file is.
    keep: whether the file stays, as it must where others may still want the lock.

    Raises InputError where the file system has no locks.
    """
    lock = FileLock(path)
    with writing(path, key):
        try:
            lock.acquire(timeout=_SILENT_SECONDS if wait is None else wait)
        except Timeout:
            if wait is not None:
                raise
            from jne.utils.progress import say  # not on top: --help needs no console

            message = f"waiting for {path}, which another process has locked{holder(path)}"
            say(message, "yellow", soft_wrap=True)
            lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        if not keep:
            path.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str:
    """Which process has locked the file, in brackets; '' where this machine does not tell."""
    try:
        status = path.stat()
        # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    holders = [
        row[4] for row in rows if row[1] == "FLOCK" and row[5] == f"{device}:{status.st_ino}"
    ]
    return f" ({_about(holders[0])})" if holders else ""


def _about(process: str) -> str:
    try:
        state = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        state = ""
    return f"process {process}" + (", which is stopped" if state == "T" else "")


def in_use(path: Path, doing: str) -> InputError:
    """The complaint where another process has the lock of `path`. doing: what it does with it."""
    return InputError(
        "", f"another process is {doing}{holder(path)}; wait for it to end, or end it"
    )
