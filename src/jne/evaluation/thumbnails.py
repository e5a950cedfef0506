"""The images of test stimuli, drawn small."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from jne.errors import InputError
from jne.features.images import Images, open_images
from jne.plots.style import short, subplots
from jne.results import Results
from jne.utils.progress import say

_WIDTH, _HEIGHT, _PIXELS = 6.6, 0.92, 160  # inches of a figure, and of a row of seven
CELL_COLOURS = "inferno"


def stimulus_images(run: Results, stimuli: pd.DataFrame) -> Images:
    """The images of a run's stimuli, which are in their column `image`.

    Raises InputError where they cannot be found.
    """
    if run.images_path is None:
        raise InputError("", f"the run in {run.path} did not record where its images are")
    if not run.images_path.exists():
        raise InputError("", f"the images of {run.path} are no longer at {run.images_path}")
    images = open_images(run.images_path)
    absent = sorted(set(stimuli["image"].astype(str)).difference(images.names))
    if absent:
        raise InputError(
            "", f"{len(absent)} images are not in {run.images_path}, such as {absent[0]}"
        )
    return images


@contextmanager
def without_images(subject: str, what: str) -> Iterator[None]:
    """Say in one sentence that the report lacks `what`, where images cannot be read."""
    try:
        yield
    except (InputError, OSError) as error:
        sentence = f"{subject}: the report shows no {what} ({error})"
        say(sentence, style="yellow", highlight=False)


def draw_rows(
    rows: Mapping[str, Sequence[str]],
    images: Images,
    cells: Mapping[str, Mapping[str, NDArray]] | None = None,
    label: str = "",
) -> Figure:
    """Rows of images by their labels, all with as many columns as the longest.

    rows: names of images; an empty one leaves its place empty. cells: by row and image,
    (g, g) values to draw over the square at the image's centre; label: what these are. Raises
    InputError and OSError where an image cannot be read.
    """
    columns = max(map(len, rows.values()))
    figure, axes = subplots(
        len(rows),
        columns,
        figsize=(_WIDTH, 0.2 + _HEIGHT * 7 / columns * len(rows)),
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.06},
    )
    number = {name: i for i, name in enumerate(images.names)}
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    highest = max((np.max([*row.values()]) for row in (cells or {}).values()), default=1.0)
    over: AxesImage | None = None
    for panels, (row, names) in zip(axes, rows.items(), strict=True):
        for panel, name in zip(panels, names, strict=False):
            if name:
                image = images.read(number[name])
                image.thumbnail((_PIXELS, _PIXELS))
                if cells is None:
                    panel.imshow(image)
                else:
                    panel.imshow(image.convert("L"), cmap="gray")  # colours are of the cells
                    over = _draw_over(panel, cells[row][name], image.size, highest)
        panels[0].set_ylabel(short(row), rotation=0, ha="right", va="center")
    if over is not None:
        figure.colorbar(over, ax=axes, label=label, fraction=0.02, pad=0.02)
    return figure


def _draw_over(panel: Axes, grid: NDArray, size: tuple[int, int], highest: float) -> AxesImage:
    """Colours of the cells over the square at the centre of an image of this width and height."""
    width, height = size
    left, top = (width - min(size)) / 2 - 0.5, (height - min(size)) / 2 - 0.5  # of pixels' edges
    panel.autoscale(False)  # the whole image stays in view
    return panel.imshow(
        grid,
        cmap=CELL_COLOURS,
        vmin=0,
        vmax=highest,
        alpha=0.55,
        extent=(left, left + min(size), top + min(size), top),
    )
