"""Whose data a run was on: the file data.json of a results folder."""

from pathlib import Path
from typing import Any

from jne.errors import InputError
from jne.utils.plain import read_json
from jne.utils.reading import reading


def read_about(folder: Path) -> dict[str, Any]:
    """Citation, licence and links.

    Raises InputError where the file holds anything else, or a link that is not https.
    """
    path = folder / "data.json"
    with reading(path, "runs"):
        about = read_json(path)
    if not _is_whole(about):
        raise InputError("", f"{path} must hold texts as `citation` and `licence`, and `links`")
    if not all(link.startswith("https://") for link in about["links"]):
        raise InputError("", f"{path} must hold links that start with https://")
    return {name: about[name] for name in ("citation", "licence", "links")}


def _is_whole(about: Any) -> bool:
    return (
        isinstance(about, dict)
        and isinstance(about.get("citation"), str)
        and isinstance(about.get("licence"), str)
        and isinstance(about.get("links"), list)
        and all(isinstance(link, str) for link in about["links"])
    )
