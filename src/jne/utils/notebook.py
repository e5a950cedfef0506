"""Pieces of HTML for a notebook, of numbers and text alone: no pandas, no matplotlib."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS, _WIDTH, _HEIGHT = 30, 300, 70  # of a histogram; in pixels
_FEW = 10  # values, which the quartiles show as well as a histogram would


def heading_html(title: str, note: str = "") -> str:
    """A line, and a small one below it."""
    return f"<p><b>{escape(title)}</b><br><small>{escape(note)}</small></p>"


def table_html(table: Any) -> str:
    """A DataFrame of text."""
    return str(table.to_html(border=0, notebook=True))


def image_html(png: bytes) -> str:
    """A picture, embedded."""
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return f'<img src="{source}" style="max-width: 100%">'


def summary_text(title: str, measures: Mapping[str, NDArray]) -> str:
    """One line: the quartiles of each measure (V,) over voxels."""
    parts = [title]
    for name, values in measures.items():
        n, low, *quartiles, high = _cells(values)
        parts.append(f"{name} {low} to {high}, quartiles {', '.join(quartiles)} (n = {n})")
    return f"<{'; '.join(parts)}>"


def summary_html(title: str, measures: Mapping[str, NDArray]) -> str:
    """Quartiles of each measure (V,) over voxels, and a histogram of the first."""
    head = "".join(f"<th>{name}</th>" for name in ("", "n", *_QUANTILES))
    right = '<tr style="text-align: right">'
    rows = "".join(
        f"{right}<th>{escape(name)}</th><td>{'</td><td>'.join(_cells(values))}</td></tr>"
        for name, values in measures.items()
    )
    name, values = next(iter(measures.items()))
    table = f"<table><thead>{right}{head}</tr></thead><tbody>{rows}</tbody></table>"
    return heading_html(title) + table + histogram_svg(values, name)


_QUANTILES = {"min": 0.0, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "max": 1.0}


def _cells(values: NDArray) -> list[str]:
    values = np.atleast_1d(values)  # of one voxel, it may be a number
    finite = values[np.isfinite(values)]
    if not len(finite):
        return ["0", *["-"] * len(_QUANTILES)]
    return [str(len(finite)), *(f"{q:.3g}" for q in np.quantile(finite, [*_QUANTILES.values()]))]


def histogram_svg(values: NDArray, label: str) -> str:
    """How many voxels have which value, (V,); empty of few voxels, or of equal ones."""
    values = np.atleast_1d(values)
    finite = values[np.isfinite(values)]
    if len(finite) < _FEW or np.ptp(finite) == 0:
        return ""
    counts, edges = np.histogram(finite, bins=_BINS)
    width = _WIDTH / _BINS
    bars = _bars(counts, width)
    texts = (
        (0, "start", f"{edges[0]:.3g}"),
        (_WIDTH / 2, "middle", f"{label}, n = {len(finite)}"),
        (_WIDTH, "end", f"{edges[-1]:.3g}"),
    )
    captions = "".join(
        f'<text x="{x:g}" y="{_HEIGHT + 14}" text-anchor="{anchor}">{escape(text)}</text>'
        for x, anchor, text in texts
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT + 20}" '
        f'font-size="11" font-family="sans-serif" fill="currentColor">'
        f'<g fill="#0072B2">{bars}</g>{captions}</svg>'
    )


def _bars(counts: Sequence[int] | NDArray, width: float) -> str:
    heights = _HEIGHT * np.asarray(counts) / np.max(counts)
    return "".join(
        f'<rect x="{k * width:.1f}" y="{_HEIGHT - height:.1f}" width="{width - 1:.1f}" '
        f'height="{height:.1f}"/>'
        for k, height in enumerate(heights)
    )
