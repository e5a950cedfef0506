"""The types of config keys that hold paths: each spelling of a path gives the same value.

So a prepared folder, whose name is a digest of the settings, does not depend on the spelling.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # pydantic reports a ValueError as the key's
        raise ValueError(f"there is no home folder {path.parts[0]}") from error


def _real_folder(path: Path) -> Path:
    return Path(os.path.realpath(_expanded(path)))


def _real_file(path: Path) -> Path:
    path = _expanded(path)
    # A link to a file keeps its name, whose suffix says how the file is read.
    return _real_folder(path.parent) / path.name


UserPath = Annotated[Path, AfterValidator(_expanded)]
"""A path that may start with ~; it may stay relative, to a folder in another key."""
Folder = Annotated[Path, AfterValidator(_real_folder)]
"""A folder: absolute, without symbolic links."""
File = Annotated[Path, AfterValidator(_real_file)]
"""A file: absolute, in a folder without symbolic links."""
