"""The life of a run's folder: who writes to it, its status, earlier attempts at the same run."""

import json
import logging
import platform
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from jne import __version__
from jne.errors import InputError
from jne.files import make_folder, whole_file, write_json
from jne.machine import peak_memory_gb

_PATIENCE_SECONDS = 5.0
TERMINATED = 128 + signal.SIGTERM  # exit code
_LASTING = ("mlflow_run_id", "prepared", "params")  # facts of all attempts


class RunFolder:
    """The results folder of a run while it is written, and its status."""

    def __init__(self, path: Path, config: dict, identity: str) -> None:
        self.path = make_folder(path)
        make_folder(self.figures)
        self._start = time.monotonic()
        # What an earlier attempt said: {} where there was none
        self.before = status_of(path)
        self.attempt = self.before.get("attempt", 0) + 1
        self.status = {name: self.before[name] for name in _LASTING if name in self.before} | {
            "status": "RUNNING",
            "identity": identity,
            "attempt": self.attempt,
            "started": self.before.get("started", _now()),
            "host": socket.gethostname(),
            "versions": {
                "jne": __version__,
                "python": platform.python_version(),
                "torch": version("torch"),
            },
        }
        with whole_file(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))
        self._write_status()

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def note(self, **facts) -> None:
        """Add facts to status.json."""
        self.status |= facts
        self._write_status()

    def end(self, status: str, error: str | None = None) -> None:
        facts = {"status": status, "ended": _now()}
        facts["seconds"] = round(time.monotonic() - self._start, 2)
        facts["peak_memory_gb"] = peak_memory_gb()
        self.note(**facts, **({"error": error} if error else {}))

    def _write_status(self) -> None:
        write_json(self.path / "status.json", self.status)


@contextmanager
def open_run(path: Path, config: dict, identity: str = "") -> Iterator[RunFolder]:
    """A results folder whose status is true when the block is left, however it is left.

    identity: what makes another attempt at the same run the same. Raises InputError where another
    process is writing to the folder.
    """
    with claimed(make_folder(path), wait=_PATIENCE_SECONDS):
        for half_written in path.rglob(".*.tmp"):  # by an attempt that was killed
            half_written.unlink()
        folder = RunFolder(path, config, identity)
        try:
            with _termination_raises():
                yield folder
        except BaseException as error:
            folder.end(ended_as(error), in_one_line(error))
            raise
        folder.end("FINISHED")
        (path / "last.ckpt").unlink(missing_ok=True)


def earlier_attempts(folders: Iterable[Path], identity: str) -> list[Path]:
    """The folders that hold an attempt at the run of this identity, finished ones first."""
    found = [folder for folder in folders if status_of(folder).get("identity") == identity]
    return sorted(found, key=lambda folder: status_of(folder)["status"] != "FINISHED")


def free_folder(own: Path, identity: str = "") -> Path:
    """`own`; where that holds another run than the one of this identity, a fresh one beside it."""
    if status_of(own).get("identity", identity) == identity:
        return own
    return own.with_name(f"{own.name}_{secrets.token_hex(3)}")


def move_log(folder: Path) -> None:
    """The log of this process goes where its run goes, from here on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
            handler.baseFilename = str(folder / Path(handler.baseFilename).name)


def finished(path: Path) -> dict | None:
    """The status of a finished run; None where the folder holds none."""
    status = status_of(path)
    return status if status.get("status") == "FINISHED" else None


def abandoned(path: Path) -> bool:
    """Whether nobody writes to a run's folder any more: its writer has ended, however.

    False where that cannot be told, in a folder of somebody else's.
    """
    try:
        with claimed(path, wait=0.0):
            return True
    except (InputError, OSError):
        return False


@contextmanager
def claimed(path: Path, wait: float) -> Iterator[None]:
    """Hold a folder's lock. Raises InputError where another process has held it for `wait` seconds.

    The system lets go of the lock when the process dies, kill -9 included. A writer waits a moment:
    one that only asks whether the folder is abandoned, and closes its run, holds the lock too.
    """
    lock = FileLock(path / ".lock", timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is writing to {path}; wait for it, or end it") from error
    try:
        yield
    finally:
        lock.release()


def status_of(path: Path) -> dict:
    """What status.json of a run's folder says; {} where there is none."""
    try:
        return json.loads((path / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def ended_as(error: BaseException) -> str:
    """FAILED for an error, KILLED for Ctrl-C and SIGTERM."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def in_one_line(error: BaseException) -> str:
    """What ended a run, for its status and its tag in MLflow."""
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return "SIGTERM"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _termination_raises() -> Iterator[None]:
    # SIGTERM (a scheduler's) must reach the `finally`s, and must not end in exit code 0.
    def terminate(number, frame):
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
