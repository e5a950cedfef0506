"""Files of a folder that may be anybody's: regular files in it, and plain values in them.

Plain values are text, numbers, true, false, null, and lists and dicts of these. They stay as they
are written: nothing that was read is resolved or made (docs/security.md). Their number and depth
are bounded before anything goes through them, so that a file cannot keep its reader busy.
"""

import json
import math
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from jne.errors import InputError

_MAX_DEPTH = 50
_MAX_VALUES = 4_000_000  # of JSON; seconds. A journal of a hundred thousand points has a tenth
_MAX_JSON = 2**26  # bytes
_MAX_YAML = 2**19  # of a config; a hundred times what a run writes
_MAX_YAML_VALUES = 50_000
_MAX_SCALAR = 2**14  # of YAML, which reads 1:11:11... as a number, in quadratic time
_HALF_A_SIGN = re.compile("[\ud800-\udfff]")  # JSON can name one: \\ud800
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is


def regular_file(
    path: Path, folder: Path | None = None, *, max_bytes: float = math.inf, key: str = ""
) -> Path:
    """`path`, if it is a regular file: one that ends, and that opens without waiting for anybody.

    folder: in which it must lie once links are resolved, for a folder that may be anybody's.
    Raises InputError with `key` for a FIFO, a device, a folder, a link that leads out of `folder`,
    and a file of more than `max_bytes`; OSError where there is no such file.
    """
    status = path.stat()
    if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            key, f"{path} is a link that leads out of its folder; put the file itself there"
        )
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InputError(key, f"{path} cannot be read (it is {kind})")
    if status.st_size > max_bytes:
        raise InputError(
            key,
            f"{path} cannot be read (it has {status.st_size / 1e6:.1f} MB, more than "
            f"{max_bytes / 1e6:.1f})",
        )
    return path


def read_json(path: Path) -> Any:
    """The plain values in a JSON file of a folder that may be anybody's.

    Raises InputError for what is not plain, and one of UNREADABLE for a file that cannot be read.
    """
    text = regular_file(path, path.parent, max_bytes=_MAX_JSON).read_text()
    if sum(map(text.count, ",[{")) > _MAX_VALUES:
        raise _too_many(path, _MAX_VALUES)
    return check_plain(json.loads(text), path)


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file. Raises as `read_json`."""
    text = regular_file(path, path.parent, max_bytes=_MAX_YAML).read_text()
    try:
        _check_size(text, path)
        return check_plain(yaml.load(text, Loader=_LOADER), path)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _check_size(text: str, path: Path) -> None:
    """Raise InputError where YAML is nested too deep, or holds too much once aliases are expanded.

    Before it is loaded: `<<: *name` copies what an alias stands for.
    """
    sizes: dict[str | None, int] = {}  # by anchor
    nodes: list[tuple[str | None, int]] = [(None, 0)]  # the open ones: anchor, values so far

    def close(anchor: str | None, n_values: int) -> None:
        sizes[anchor] = n_values
        nodes[-1] = (nodes[-1][0], nodes[-1][1] + n_values)
        if nodes[-1][1] > _MAX_YAML_VALUES:
            raise _too_many(path, _MAX_YAML_VALUES)

    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            nodes.append((event.anchor, 1))
            if len(nodes) > _MAX_DEPTH:
                raise _too_deep(path)
        elif isinstance(event, yaml.CollectionEndEvent):
            close(*nodes.pop())
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError("", f"{path} cannot be read (*{event.anchor} has no value yet)")
            close(event.anchor, sizes[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _MAX_SCALAR:
                raise InputError("", f"{path} cannot be read (one of its values is too long)")
            close(event.anchor, 1)


def not_plain(value: Any) -> str:
    """What a value is, if not text, true, false, null or a number that 64 bits can hold."""
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of more than 64 bits"
    if isinstance(value, str) and _HALF_A_SIGN.search(value):
        return "half a sign, which no file can hold"
    return "" if isinstance(value, str | int | float | None) else type(value).__name__


def _not_written(value: Any) -> str:
    """Also numbers that JSON does not have, and that no config and no status holds."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return not_plain(value) if is_finite else "a number that is not finite"


def check_plain(
    value: Any,
    path: Path,
    refused: Callable[[Any], str] = _not_written,
    keys: tuple[type, ...] = (str,),
    max_values: float = _MAX_VALUES,
) -> Any:
    """`value`, read from the file `path`, if it is made of dicts, lists and plain values.

    refused: says what a value in them is if it may not be there, else nothing. keys: the types of
    their keys. Raises InputError where it is not, where it is nested too deep, or stands for more
    than `max_values`.
    """
    level, n_values = [value], 1
    for _ in range(_MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for name in item:
                    if type(name) not in keys or refused(name):
                        raise InputError("", f"{path} must hold text as keys, found {name!r:.60}")
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif kind := refused(item):
                raise InputError("", f"{path} must hold plain values, found {kind}")
            if n_values + len(below) > max_values:  # pickles and YAML may name one list often
                raise _too_many(path, max_values)
        if not below:
            return value
        level, n_values = below, n_values + len(below)
    raise _too_deep(path)


def _too_many(path: Path, most: float) -> InputError:
    return InputError("", f"{path} cannot be read (it holds more than {most:,} values)")


def _too_deep(path: Path) -> InputError:
    return InputError("", f"{path} cannot be read (it is nested more than {_MAX_DEPTH} deep)")
