"""The images of test stimuli, drawn small."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
from matplotlib.figure import Figure

from jne.errors import InputError
from jne.features.images import Images, open_images
from jne.plots.style import short, subplots
from jne.results import Results
from jne.utils.progress import say

_WIDTH, _HEIGHT, _PIXELS = 6.6, 0.92, 160  # inches of a figure, and of a row of seven


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


def draw_rows(rows: Mapping[str, Sequence[str]], images: Images) -> Figure:
    """Rows of images by their labels, all with as many columns as the longest.

    rows: names of images; an empty one leaves its place empty. Raises InputError and OSError
    where an image cannot be read.
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
    for panels, (label, names) in zip(axes, rows.items(), strict=True):
        for panel, name in zip(panels, names, strict=False):
            if name:
                image = images.read(number[name])
                image.thumbnail((_PIXELS, _PIXELS))
                panel.imshow(image)
        panels[0].set_ylabel(short(label), rotation=0, ha="right", va="center")
    return figure
