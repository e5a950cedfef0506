"""Figures of runs for notebooks and papers: plain functions, matplotlib axes in, axes out.

Each takes a `jne.Results`, draws into the axes that it is given, or into those of a new figure, and
returns them: change labels, limits and colours there, and save with `figure.savefig`. The figures
that train.py and evaluate.py write are drawn by the same functions.

plot_by_roi    a measure of every voxel, by region
plot_map       a measure on the brain
plot_summary   each region's nonlinearity, and how well it is predicted
plot_scatter   two runs, or two measures, voxel by voxel
plot_training  the curves of a training
"""

from typing import TYPE_CHECKING

from jne.plots.regions import plot_by_roi
from jne.plots.scatter import plot_scatter
from jne.plots.summary import plot_summary
from jne.plots.training import plot_training

if TYPE_CHECKING:
    from jne.plots.brain import plot_map

__all__ = ["plot_by_roi", "plot_map", "plot_scatter", "plot_summary", "plot_training"]


def __getattr__(name: str) -> object:
    if name != "plot_map":
        raise AttributeError(f"module 'jne.plotting' has no attribute {name!r}")
    from jne.plots import brain  # nilearn takes seconds to import

    return brain.plot_map


def __dir__() -> list[str]:
    return __all__
