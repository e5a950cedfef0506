"""A run's folder while it is written: its lock, its status, earlier attempts at the same run."""

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
from typing import Any

import yaml
from filelock import FileLock, Timeout

from jne import __version__
from jne.credentials import hide_credentials
from jne.errors import InputError
from jne.utils.files import atomic_file, make_folder, write_json
from jne.utils.machine import peak_memory_gb
from jne.utils.plain import read_json
from jne.utils.reading import UNREADABLE

_WAIT_SECONDS = 5.0
TERMINATED = 128 + signal.SIGTERM  # exit code
_UNTIL_FINISHED = (
    "last.ckpt",
    "last.npz",
    "twins.npy",
    "planted.ckpt",
    "planted.npz",
    "planted.npy",
)  # what a finished run can do without
_KEPT = ("mlflow_run_id", "prepared", "params")  # facts that later attempts take over


class RunFolder:
    """The folder of a run while it is written, and its status."""

    def __init__(self, path: Path, config: dict[str, Any], identity: str) -> None:
        self.path = make_folder(path)
        make_folder(self.figures)
        self._start = time.monotonic()
        self.previous = status_of(path)
        """The status that the previous attempt left; {} where there was none."""
        self.attempt = self.previous.get("attempt", 0) + 1
        self.status = {name: self.previous[name] for name in _KEPT if name in self.previous} | {
            "status": "RUNNING",
            "identity": identity,
            "attempt": self.attempt,
            "started": self.previous.get("started", _now()),
            "host": socket.gethostname(),
            "versions": {
                "jne": __version__,
                "python": platform.python_version(),
                "torch": version("torch"),
            },
        }
        with atomic_file(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))
        self._write_status()

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def note(self, **facts: Any) -> None:
        """Add facts to status.json."""
        self.status |= facts
        self._write_status()

    def end(self, status: str, error: str | None = None) -> None:
        """Write the final status: FINISHED, FAILED or KILLED."""
        facts: dict[str, Any] = {"status": status, "ended": _now()}
        facts["seconds"] = round(time.monotonic() - self._start, 2)
        facts["peak_memory_gb"] = peak_memory_gb()
        self.note(**facts, **({"error": error} if error else {}))

    def _write_status(self) -> None:
        write_json(self.path / "status.json", self.status)


@contextmanager
def open_run(path: Path, config: dict[str, Any], identity: str = "") -> Iterator[RunFolder]:
    """A locked run folder whose status is true when the block ends, however it ends.

    identity: what attempts at the same run have in common. Raises InputError where another process
    is writing to the folder.
    """
    with locked(make_folder(path), wait=_WAIT_SECONDS):
        for half_written in path.rglob(".*.tmp"):  # left by an attempt that was killed
            half_written.unlink()
        folder = RunFolder(path, config, identity)
        try:
            with _sigterm_raises():
                yield folder
        except BaseException as error:
            folder.end(ended_as(error), in_one_line(error))
            raise
        folder.end("FINISHED")
        for name in _UNTIL_FINISHED:
            (path / name).unlink(missing_ok=True)


def earlier_attempts(folders: Iterable[Path], identity: str) -> list[Path]:
    """The folders that hold an attempt at the run with this identity, finished ones first."""
    found = [folder for folder in folders if status_of(folder).get("identity") == identity]
    return sorted(found, key=lambda folder: finished_status(folder) is None)


def free_folder(path: Path, identity: str = "") -> Path:
    """`path`; or a new name beside it if `path` holds a run with another identity."""
    if status_of(path).get("identity", identity) == identity:
        return path
    return path.with_name(f"{path.name}_{secrets.token_hex(3)}")


def move_log(folder: Path) -> None:
    """From here on, write the log files of this process into `folder`."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
            handler.baseFilename = str(folder / Path(handler.baseFilename).name)


def finished_status(path: Path) -> dict[str, Any] | None:
    """The status of a finished run; None where the folder holds none."""
    status = status_of(path)
    return status if status.get("status") == "FINISHED" else None


def is_abandoned(path: Path) -> bool:
    """Whether no process writes to a run's folder any more.

    False where that cannot be known, as in a folder of another user.
    """
    try:
        with locked(path, wait=0.0):
            return True
    except (InputError, OSError):
        return False


@contextmanager
def locked(path: Path, wait: float) -> Iterator[None]:
    """Hold the lock of a folder. Raises InputError where another process has it for `wait` seconds.

    The system releases the lock when the process dies, also by kill -9. Writers wait a moment,
    because a process that only asks whether the folder is abandoned holds the lock too.
    """
    lock = FileLock(path / ".lock", timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            "", f"another process is writing to {path}; wait for it to end, or end it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def status_of(path: Path) -> dict[str, Any]:
    """The content of status.json in a run's folder; {} where there is none that can be read."""
    try:
        status = read_json(path / "status.json")
    except UNREADABLE:
        return {}
    return status if isinstance(status, dict) else {}


def metrics_of(path: Path) -> dict[str, float]:
    """The scalars of a finished run by their names in MLflow.

    Raises InputError where summary.json cannot be read.
    """
    file = path / "summary.json"
    try:
        metrics = read_json(file)["metrics"]
        return {str(name): float(value) for name, value in metrics.items()}
    except (*UNREADABLE, TypeError, AttributeError) as error:
        raise InputError("", f"{file} cannot be read: it is missing or damaged") from error


def ended_as(error: BaseException) -> str:
    """FAILED for an error, KILLED for Ctrl-C and SIGTERM."""
    return "FAILED" if isinstance(error, Exception) else "KILLED"


def in_one_line(error: BaseException) -> str:
    """What ended a run, for its status and its tag in MLflow."""
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return "SIGTERM"
    return hide_credentials(f"{type(error).__name__}: {error}")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM, which schedulers send, runs the `finally` blocks and ends with exit code 143."""

    def terminate(number: int, frame: object) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
