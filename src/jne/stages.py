"""The store of stages: what several runs need is computed once, and kept under all it depends on.

A stage is a function of plain values whose result is one folder:

    stages/fit/1f0c.../             whole, or not there
        stage.json                  kind, the values, when and in how many seconds it was made
        ...                         what the function wrote
    stages/fit/.1f0c....partial/    while it is made; after a kill it is continued
    stages/fit/.1f0c....lock        one process makes it, the others wait

Values are those of the config, and digests of arrays and files. A run notes its stages in
status.json, so `jne stages` can say who uses one, and delete those that no run uses.
"""

import hashlib
import inspect
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jne.errors import InputError
from jne.utils.files import atomic_folder, make_folder, write_json
from jne.utils.locks import locked_file
from jne.utils.plain import read_json
from jne.utils.reading import UNREADABLE

_ABOUT = "stage.json"
_WINGS = ("analysis", "data", "encoders", "fitting", "jacobian", "measuring")


def digest_of(values: Any) -> str:
    """A digest of plain values: text, numbers, true, false, None, lists and dicts of these."""
    text = json.dumps(values, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A digest of what a file holds."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def code_digest(classes: Iterable[Callable[..., Any]]) -> str:
    """A digest of the files that define classes or functions of a user's, which may change.

    One that no file defines is never the same twice.
    """
    files = set()
    for kind in classes:
        if kind.__module__.partition(".")[0] not in ("jne", "torch", "builtins"):
            try:
                files.add(inspect.getsourcefile(kind))
            except (TypeError, OSError):
                return secrets.token_hex(8)
    return digest_of([file_digest(Path(file)) for file in sorted(filter(None, files))])


@cache
def _program() -> str:
    """A digest of the parts of this program that compute what stages hold."""
    package = Path(__file__).parent
    files = (path for wing in _WINGS for path in (package / wing).rglob("*.py"))
    return digest_of([file_digest(path) for path in sorted(files)])


@dataclass
class Stages:
    """The stages below one folder, `root`, which is made when the first is."""

    root: Path
    on_use: Callable[[list[str]], None] = lambda _: None
    """Called with `used` whenever another stage is asked for, before it is made."""
    used: list[str] = field(default_factory=list)
    """KIND/DIGEST of each stage that was asked for."""

    def make(self, kind: str, values: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
        """The folder of a stage, made now if it is not there.

        kind: names the function. values: what the result depends on, plain; a digest of this
        program is added. write: called with an empty folder, or with what it left there when it was
        interrupted.

        Raises InputError where `root` cannot be written to, and what `write` raises.
        """
        about = {"kind": kind, "program": _program(), "values": dict(values)}
        folder = self.root / kind / digest_of(about)
        name = f"{kind}/{folder.name}"
        if name not in self.used:
            self.used.append(name)
            self.on_use(self.used)
        if not folder.exists():
            start = time.monotonic()
            with atomic_folder(folder, resume=True) as partial:
                if partial is not None:
                    write(partial)
                    seconds = round(time.monotonic() - start, 2)
                    made = datetime.now(UTC).isoformat(timespec="seconds")
                    write_json(partial / _ABOUT, about | {"made": made, "seconds": seconds})
        return folder


@dataclass(frozen=True)
class Stored:
    """A stage in a store, or prepared data."""

    path: Path
    n_bytes: int
    made: float
    """Seconds since 1970."""
    users: list[Path]
    """The folders of runs that used it."""
    is_whole: bool
    """False for one that was interrupted, or is being made."""


def stored(output: Path) -> list[Stored]:
    """All stages and prepared data below a folder `output`, and who uses them.

    Runs elsewhere that use this output folder cannot be seen.
    """
    users: dict[str, list[Path]] = {}
    for path in output.rglob("status.json"):
        try:
            status = read_json(path)
            names = [*status.get("stages", []), Path(status.get("prepared") or "").name]
        except (*UNREADABLE, AttributeError, TypeError):
            continue
        for name in filter(None, names):
            users.setdefault(str(name), []).append(path.parent)
    result = []
    for path in sorted([*output.glob("stages/*/*"), *output.glob("stages/*/.*.partial")]):
        if path.is_dir():
            digest = path.name.removeprefix(".").removesuffix(".partial")
            name = f"{path.parent.name}/{digest}"
            result.append(_stored(path, users.get(name, []), path.name == digest))
    for path in sorted(output.glob("prepared/*/")):
        result.append(_stored(path, users.get(path.name, []), is_whole=True))
    return result


def prune(stages: list[Stored]) -> list[Stored]:
    """Delete the stages and prepared data that no run uses; return those that were deleted.

    One that a process is making stays.
    """
    deleted = []
    for stage in stages:
        if not stage.users and _delete(stage.path):
            deleted.append(stage)
    return deleted


def _stored(path: Path, users: list[Path], is_whole: bool) -> Stored:
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return Stored(path, sum(sizes), path.stat().st_mtime, users, is_whole)


def _delete(folder: Path) -> bool:
    """Delete a folder under the lock of those who make it; False where one of them has it."""
    name = folder.name.removeprefix(".").removesuffix(".partial")
    lock = folder.with_name(f".{name}.lock")
    try:
        with locked_file(make_folder(lock.parent) / lock.name, wait=0.0, keep=False):
            shutil.rmtree(folder, ignore_errors=True)
    except TimeoutError:
        return False
    except InputError:  # of another user, or read-only
        return False
    return not folder.exists()
