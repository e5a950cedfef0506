"""Panels that several figures share."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from jne.plots import panels
from jne.plots.style import COLOURS, OTHER_COLOUR, subplots


def test_limits_show_zero_and_all_finite_values():
    low, high = panels.limits_of(pd.Series([0.2, np.nan, 0.5]), pd.Series([1.0]))
    assert (low, high) == (pytest.approx(-0.03), pytest.approx(1.03))
    assert panels.limits_of(pd.Series([-1.0])) == (pytest.approx(-1.033), pytest.approx(0.133))
    assert panels.limits_of(pd.Series([np.nan])) == (0, 1)


def test_few_values_are_points_and_many_are_a_density():
    rng = np.random.default_rng(0)
    for n, n_lines, n_densities in ((400, 1, 0), (401, 0, 1)):
        _, axes = subplots()
        panels.points(axes, *rng.uniform(size=(2, n)), (0.0, 1.0))
        assert (len(axes.lines), len(axes.collections)) == (n_lines, n_densities)
        assert axes.get_xlim() == axes.get_ylim() == (0, 1)
        if n_densities:
            assert axes.collections[0].get_array().sum() == n


def test_violins_show_points_medians_and_names():
    _, axes = subplots()
    samples = [pd.Series([1.0, 2.0, 6.0]), pd.Series([3.0]), pd.Series(dtype=float)]
    panels.violins(axes, samples, ["V1", "elsewhere", ""])
    panels.name_groups(axes, ["V1", "elsewhere", ""])
    shown = [sorted(line.get_ydata()) for line in axes.lines]
    assert shown == [[1, 2, 6], [3], []]
    assert [line.get_color() for line in axes.lines[:2]] == [COLOURS["V1"], OTHER_COLOUR]
    lines = [drawn for drawn in axes.collections if isinstance(drawn, LineCollection)]
    medians = [line.get_segments()[0][0, 1] for line in lines]
    assert medians == [2, 3]
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["V1", "elsewhere", "all voxels"]
    assert to_hex(labels[0].get_color()).upper() == COLOURS["V1"]
