"""Addresses of sqlite files, as SQLAlchemy and MLflow read them.

An address is quoted like any other: unquoted, `?` would begin its options, and `%20` be a space.
"""

import re
from pathlib import Path
from urllib.parse import quote, unquote


def sqlite_address(file: Path) -> str:
    """The address of an sqlite file.

    One that needs quoting begins with sqlite+pysqlite: from the text of one that begins with
    sqlite:/// MLflow makes a folder of its own, without unquoting it.
    """
    path = str(file.absolute())
    quoted = re.sub("[%?#]", lambda character: quote(character[0]), path)
    return f"sqlite{'' if quoted == path else '+pysqlite'}:///{quoted}"


def sqlite_file(address: str) -> Path | None:
    """The file of an sqlite store; None for a server or another database."""
    path = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?.*)?", address, re.DOTALL)
    return Path(unquote(path[1])) if path else None
