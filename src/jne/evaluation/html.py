"""Parts of the report's page: the templates, and tables and figures as they take them."""

import base64
import re
import struct
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from jne.columns import label

DPI = 150  # of the figures; the page shows them at 100

# Of columns that several sections have
_HEADINGS = {
    "n_voxels": "voxels",
    "n_analysed": "analysed",
    "n_stimuli": "stimuli",
    "p_holm": "p (Holm)",
}


def render(context: Mapping[str, Any]) -> str:
    """The page, from the templates beside this module."""
    environment = Environment(
        loader=PackageLoader("jne.evaluation", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("report.html.j2").render(context)


def figure(png: Path, caption: str, alt: str, folded: str = "") -> dict[str, Any]:
    """A picture to be embedded. folded: what stands in its place until the reader opens it."""
    content = png.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # the first fields of its header
    return {
        "png": base64.b64encode(content).decode(),
        "caption": caption,
        "alt": alt,
        "folded": folded,
        "file": png.stem,
        "width": width * 100 // DPI,
        "height": height * 100 // DPI,
    }


def table(
    title: str, content: pd.DataFrame, headings: Mapping[str, str], file: str = ""
) -> dict[str, Any]:
    """A table with the headings of its columns; columns without any value are left out.

    file: what it is called when it is saved from the page.
    """
    content = content.dropna(axis="columns", how="all")
    titles = {**_HEADINGS, **headings}
    columns = [
        {
            "name": name,
            "title": titles.get(str(name)) or label(str(name)),
            "number": pd.api.types.is_numeric_dtype(content[name])
            and not pd.api.types.is_bool_dtype(content[name]),
        }
        for name in content
    ]
    return {
        "title": title,
        "rows": content.to_dict("records"),
        "columns": columns,
        "file": file or anchor(title),
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        if not np.isfinite(value):
            return "–"
        if value == int(value) and abs(value) >= 1000:
            return str(int(value))
        return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return str(value)


def anchor(title: str) -> str:
    """A title as the name of an anchor."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


@cache
def docs_url(document: str) -> str:
    """The address of a document, from the package's metadata; empty where they have none."""
    try:
        named = metadata("jne").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    for line in named:
        label, _, url = line.partition(", ")
        if label == "Documentation":
            return f"{url.rstrip('/')}/{document.removesuffix('.md')}/"
    return ""
