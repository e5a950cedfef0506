"""Figures of a large report, written by other processes while the next are drawn."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from jne.plots.style import STYLE, save
from jne.utils.slurm import allocated_cores

_MAX_PROCESSES = 4


@contextmanager
def figure_writer(dpi: float, in_processes: bool) -> Iterator[Callable[[Figure, Path], None]]:
    """A function that writes a figure as PNG, and as PDF beside it, in the package's style.

    in_processes: whether others write, which take two seconds to start. Then the files are whole at
    the end of the block. Raises what `save` raises.
    """
    if not in_processes:
        with matplotlib.rc_context(STYLE):
            yield lambda figure, path: _write(figure, path, dpi)
        return
    n_processes = min(allocated_cores() or os.cpu_count() or 1, _MAX_PROCESSES)
    # Not by fork: torch has threads, whose locks a forked process would wait for.
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _start)
    written: list[Future[None]] = []
    try:
        with matplotlib.rc_context(STYLE):
            yield lambda figure, path: written.append(pool.submit(_write, figure, path, dpi))
        for future in written:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Of a process that writes: Ctrl-C is for the one that draws, which ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    matplotlib.rcParams.update(STYLE)


def _write(figure: Figure, path: Path, dpi: float) -> None:
    save(figure, path, dpi=dpi, pdf=True)
