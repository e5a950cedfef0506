"""A run's folder while it is written: its lock, its status, earlier attempts at the same run."""

import logging
import platform
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from jne import __version__
from jne.errors import InputError
from jne.utils.files import (
    atomic_file,
    is_temporary,
    make_folder,
    remove_half_written,
    reserve,
    write_json,
    writing,
)
from jne.utils.locks import in_use, locked_file
from jne.utils.machine import peak_memory_gb
from jne.utils.plain import read_json
from jne.utils.reading import UNREADABLE
from jne.utils.signals import ended_as, in_one_line, stopped_by_signals

_WAIT_SECONDS = 5.0
_KEPT = ("mlflow_run_id", "run_key", "prepared", "params")  # facts that later attempts take over
_SPARE, _SPARE_BYTES = ".spare", 2**16


def new_run_key() -> str:
    """A key by which MLflow's run of a folder is found if its id was never noted."""
    return secrets.token_hex(8)


class RunFolder:
    """The folder of a run while it is written, and its status."""

    def __init__(self, path: Path, identity: str, kind: str) -> None:
        self.path = make_folder(path)
        # Space for the last status of a run that ends because the disk is full
        (path / _SPARE).touch()
        reserve(path / _SPARE, _SPARE_BYTES)
        self._start = time.monotonic()
        previous = status_of(path)
        again = bool(identity) and previous.get("identity") == identity
        self.previous = previous if again else {}
        """The status that the previous attempt left; {} where there was none."""
        self.attempt = self.previous.get("attempt", 0) + 1
        self.status = {name: self.previous[name] for name in _KEPT if name in self.previous} | {
            "status": "RUNNING",
            "kind": kind,
            "run_key": self.previous.get("run_key", new_run_key()),
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
        self._write_status()  # before all else: by it the folder is known to be ours

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def write_config(self, config: dict[str, Any]) -> None:
        with atomic_file(self.path / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))

    def note(self, **facts: Any) -> None:
        """Add facts to status.json."""
        self.status |= facts
        self._write_status()

    def end(self, status: str, error: str | None = None) -> None:
        """Write the final status: FINISHED, FAILED or KILLED."""
        (self.path / _SPARE).unlink(missing_ok=True)
        facts: dict[str, Any] = {"status": status, "ended": _now()}
        facts["seconds"] = round(time.monotonic() - self._start, 2)
        facts["peak_memory_gb"] = peak_memory_gb()
        self.note(**facts, **({"error": error} if error else {}))

    def _write_status(self) -> None:
        write_json(self.path / "status.json", self.status)


@contextmanager
def open_run(
    path: Path, config: dict[str, Any], identity: str = "", kind: str = ""
) -> Iterator[RunFolder]:
    """A locked run folder whose status is true when the block ends, however it ends.

    identity: what attempts at the same run have in common. kind: train, report,
    simulation or shard.

    Raises InputError where another process is writing to the folder, and where it holds something
    else than earlier attempts at this run; nothing is then written or deleted.
    """
    check_ours(path)
    with locked(make_folder(path), wait=_WAIT_SECONDS), writing(path):
        _check_run(path, identity, kind)
        remove_half_written(path)
        folder = RunFolder(path, identity, kind)
        try:
            with stopped_by_signals(), writing(path):
                make_folder(folder.figures)
                folder.write_config(config)
                yield folder
        except BaseException as error:
            # Where the disk is so full that even this fails, the lock still says that it has ended.
            with suppress(InputError, OSError):
                folder.end(ended_as(error), in_one_line(error))
            raise
        folder.end("FINISHED")


def is_ours(path: Path) -> bool:
    """Whether a run may write to this folder: it is new or empty, or a run has written to it."""
    return not path.exists() or "status" in status_of(path) or not _foreign(path)


def check_ours(path: Path) -> None:
    """Raise InputError, naming hydra.run.dir, where a run would write among a user's files."""
    if not is_ours(path):
        names = ", ".join(_foreign(path)[:3])
        raise InputError(
            "hydra.run.dir",
            f"{path} is no folder of a run, and holds other files ({names}); give a new or empty "
            f"one",
        )


def check_parent(path: Path, key: str) -> None:
    """Raise InputError, naming `key`, where several runs would go among a user's files."""
    if not path.exists() or not _foreign(path):
        return
    settings = path / "multirun.yaml"  # of Hydra, with the name of our callback
    ours = settings.is_file() and "jne.runs.sweep" in settings.read_text(errors="replace")
    if not ours and not any("status" in status_of(job) for job in path.iterdir()):
        names = ", ".join(_foreign(path)[:3])
        raise InputError(
            key,
            f"{path} is no folder of runs, and holds other files ({names}); give a new or empty "
            f"one",
        )


def _foreign(path: Path) -> list[str]:
    """What is in a folder that no run leaves which has not written its status yet."""
    return sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name not in (".lock", _SPARE)
        and not entry.name.endswith(".log")
        and not is_temporary(entry.name)
    )


def _check_run(path: Path, identity: str, kind: str) -> None:
    """Look again, now that no other process writes to the folder: is it still that of this run?"""
    check_ours(path)
    status = status_of(path)
    if (status.get("identity") or identity) != identity or status.get("kind", kind) != kind:
        raise InputError(
            "hydra.run.dir", f"{path} holds another run; give each run a folder of its own"
        )
    if kind == "train" and status.get("status") == "FINISHED":
        raise InputError(
            "hydra.run.dir", f"another process has finished this run meanwhile, in {path}"
        )


def earlier_attempts(folders: Iterable[Path], identity: str) -> list[Path]:
    """The folders that hold an attempt at the run with this identity, finished ones first."""
    attempts = [folder for folder in folders if status_of(folder).get("identity") == identity]
    return sorted(attempts, key=lambda folder: finished_status(folder) is None)


def free_folder(path: Path, identity: str = "") -> Path:
    """`path`; or a new name beside it if `path` holds other files, another or a finished run."""
    status = status_of(path)
    same = status.get("identity", identity) == identity and status.get("status") != "FINISHED"
    if same and is_ours(path):
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

    Writers wait a moment, because a process that only asks whether the folder is abandoned holds
    the lock too.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(path / ".lock", wait))
        except TimeoutError as error:
            raise in_use(path / ".lock", f"writing to {path}") from error
        yield


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
