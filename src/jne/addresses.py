"""Addresses: of the documentation, and of sqlite files, as SQLAlchemy and MLflow read them.

That of a file is quoted: unquoted, `?` would begin its options, and `%20` be a space.
"""

import re
from importlib.metadata import PackageNotFoundError, metadata
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


def documentation() -> str:
    """A line that says where the documentation is: online, or in this checkout; or nothing."""
    try:
        links = metadata("jne").get_all("Project-URL") or []
    except PackageNotFoundError:  # a checkout that is not installed
        links = []
    addresses = dict(link.split(", ", 1) for link in links)
    folder = Path(__file__).parents[2] / "docs"
    if (folder / "index.md").exists():
        addresses.setdefault("Documentation", str(folder))
    return f"Documentation: {addresses['Documentation']}" if "Documentation" in addresses else ""
