"""The console, and progress bars for the long stages, with a rate and the time left.

The names of subjects, ROIs and runs may look like rich's markup or like the code of an emoji. What
holds a name is printed with `say` or `print_table`, which show text as it is.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

console = Console(emoji=False)
_hidden = ContextVar("_hidden", default=False)


@contextmanager
def without_progress() -> Iterator[None]:
    """Show no progress bars in this block, in this thread."""
    before = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(before)


def say(text: str, style: str | None = None, **settings: Any) -> None:
    """Print text as it is. settings: those of `rich.console.Console.print`."""
    console.print(text, style=style, markup=False, **settings)


def print_table(table: Table, to: Console = console) -> None:
    """Print a table whose title, headings and cells are shown as they are."""
    if isinstance(table.title, str):
        table.title = Text(table.title, style="table.title")
    to.print(table, markup=False)


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence what the logger `name`, and those below it, say short of a warning."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Rate(ProgressColumn):
    """Units per second; the task's field `unit` names them."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {task.fields['unit']}/s" if speed else "", style="dim")


def training_progress() -> Progress:
    """Epochs done, their rate and a field `note`; no time left, since early stopping decides it."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("training   epoch"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        _Rate(),
        console=console,
        disable=_hidden.get(),
        refresh_per_second=4,
    )


def stage_progress() -> Progress:
    """A bar with a rate and the time left; each task needs a field `unit`."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        disable=_hidden.get(),
        refresh_per_second=4,
    )
