"""A run as a terminal and a notebook show it: what it is, its regions, and the summary figure."""

from typing import TYPE_CHECKING

import pandas as pd

from jne.columns import label
from jne.utils.notebook import heading_html, image_html, table_html

if TYPE_CHECKING:
    from jne.results.reader import Results

_SHOWN = ("r2", "r2_ridge", "nonlinear_share", "validated_share", "jne")
_MAX_ROWS = 12  # ROIs; `Results.regions` has all


def as_text(run: "Results") -> str:
    """Two lines and a table."""
    return f"{_title(run)}\n{run.path}\n{_regions(run).to_string()}"


def as_html(run: "Results") -> str:
    """The same, and the summary figure."""
    from jne.plots.style import as_png  # matplotlib: half a second
    from jne.plots.summary import run_figure

    picture = image_html(as_png(run_figure(run)))
    return heading_html(_title(run), str(run.path)) + table_html(_regions(run)) + picture


def _title(run: "Results") -> str:
    return (
        f"{run.name}: {run.config['data']['name']}, {run.config['subject']}, "
        f"{len(run.voxels)} voxels, {len(run.stimuli)} test stimuli"
    )


def _regions(run: "Results") -> pd.DataFrame:
    """The text of each cell; of many ROIs, those with the highest mean JNE."""
    regions = run.regions
    if len(regions) - 1 > _MAX_ROWS:
        strongest = regions[:-1].nlargest(_MAX_ROWS, "jne").index.sort_values()
        regions = regions.loc[[*strongest, regions.index[-1]]]
    cells = {"voxels": regions["n_voxels"].astype(str)}
    for name in (name for name in _SHOWN if name in regions):
        cells[label(name)] = regions[name].map(lambda value: f"{value:z.3f}")
    return pd.DataFrame(cells).set_axis(regions["roi"].rename(None))
