"""Figures that other processes write are those that this one would write."""

import matplotlib
import numpy as np
import pytest

from jne.errors import InputError
from jne.plots.style import STYLE, subplots
from jne.plots.writers import figure_writer


def draw(k):
    with matplotlib.rc_context(STYLE):
        figure, axes = subplots(layout="constrained", figsize=(2, 2))
        axes.semilogy(np.arange(1, 5), np.arange(1, 5) ** (k + 1.0), "o", rasterized=True)
        axes.set(xlabel="$x and y$", ylabel=f"figure {k}")
    return figure


def test_other_processes_write_the_same_files(tmp_path):
    for in_processes in (False, True):
        with figure_writer(dpi=60, in_processes=in_processes) as write:
            for k in range(4):
                write(draw(k), tmp_path / f"{in_processes}_{k}.png")
    for k in range(4):
        for suffix in ("png", "pdf"):
            here, elsewhere = (tmp_path / f"{who}_{k}.{suffix}" for who in (False, True))
            assert here.read_bytes() == elsewhere.read_bytes()


def test_what_fails_in_another_process_is_raised_here(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((InputError, OSError)), figure_writer(60, in_processes=True) as write:
        write(draw(0), tmp_path / "file" / "figure.png")
