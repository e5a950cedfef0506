"""How figures look, and how they are written.

The scripts make figures with `matplotlib.figure.Figure`, not with pyplot, so that importing the
package chooses no backend and no figure outlives its use. In a notebook pyplot shows what it made:
there, and only where a user gives no axes, `drawing` takes it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterSciNotation

from jne.roi import TIERS
from jne.utils.files import atomic_file

# Okabe and Ito's colours, which colour-blind readers can tell apart.
TIER_COLOURS = {"PVC": "#0072B2", "IVC": "#009E73", "HVC": "#D55E00"}
OTHER_COLOUR = "#7F7F7F"
COLOURS = TIER_COLOURS | {roi: TIER_COLOURS[tier] for tier, rois in TIERS.items() for roi in rois}
# Paul Tol's muted scheme, which they can tell apart, too
_QUALITATIVE = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip
STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "text.parse_math": False,  # a name with two `$` is not mathematics
}
"""For `matplotlib.rc_context`, around the drawing and the writing of a figure."""


def short(name: str, length: int = 30) -> str:
    """A name for a figure: on one line, and without its middle if it is longer than `length`."""
    line = "".join(c if c.isprintable() else " " for c in name)
    half = length // 2
    return line if len(line) <= length else f"{line[:half]}…{line[1 - half :]}"


def qualitative(n: int) -> list[str]:
    """n colours without an order; of more than ten, neighbours are alike."""
    if n <= len(_QUALITATIVE):
        return list(_QUALITATIVE[:n])
    return [to_hex(colour) for colour in matplotlib.colormaps["turbo"](np.linspace(0, 1, n))]


def subplots(rows: int = 1, columns: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A figure and its axes, as `matplotlib.pyplot.subplots` gives them, without pyplot.

    Parameters
    ----------
    rows, columns : int
    **settings
        figsize and layout are the figure's, all others those of its axes.

    Returns
    -------
    Figure, Axes or array of Axes
    """
    own = {name: settings.pop(name) for name in ("figsize", "layout") if name in settings}
    figure = Figure(**own)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **settings)


@contextmanager
def drawing(axes: Any, columns: int = 1, **settings: Any) -> Iterator[Any]:
    """The axes to draw into: those given, as they are, or new ones in the package's style.

    Parameters
    ----------
    axes : Axes, array of Axes or None
    columns : int
        How many to make, side by side.
    **settings
        Of `matplotlib.pyplot.subplots`, for new ones.

    Yields
    ------
    Axes or array of Axes
    """
    if axes is not None:
        yield axes
        return
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(STYLE):
        yield plt.subplots(1, columns, layout="constrained", **settings)[1]


def as_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
    return file.getvalue()


def save(figure: Figure, path: Path, *, dpi: float = 200, pdf: bool = False) -> Path:
    """Write a figure as PNG, whole or not at all.

    Parameters
    ----------
    figure : Figure
    path : Path
        Its suffix becomes .png.
    dpi : float
    pdf : bool
        Whether to write a PDF beside it.

    Returns
    -------
    Path
        `path`.
    """
    bounds: str | None = "tight"
    _label_powers(figure)
    if engine := figure.get_layout_engine():  # only once: it costs more than the drawing
        engine.execute(figure)
        figure.set_layout_engine(None)  # "none" would draw everything twice
        bounds = None  # "constrained" leaves nothing to trim
    for suffix in (".png", ".pdf") if pdf else (".png",):
        with atomic_file(path.with_suffix(suffix)) as temporary:
            metadata = {"CreationDate": None} if suffix == ".pdf" else None
            figure.savefig(
                temporary, format=suffix[1:], bbox_inches=bounds, dpi=dpi, metadata=metadata
            )
    return path


class _Powers(LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain text, 2×10⁻³: STYLE reads no text as mathematics.

    It also takes a tenth of the time of a figure to read mathematics.
    """

    def __call__(self, x: float, pos: int | None = None) -> str:
        formula = super().__call__(x, pos)  # $\mathdefault{2\times10^{-3}}$
        text = formula.replace(r"$\mathdefault{", "").replace("}$", "").replace(r"\times", "×")
        return re.sub(r"\^{(.*)}", lambda power: power[1].translate(_SUPERSCRIPTS), text)


_SUPERSCRIPTS = str.maketrans("-0123456789.", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹·")


def _label_powers(figure: Figure) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(_Powers())
                axis.set_minor_formatter(_Powers())
