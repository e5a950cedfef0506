"""The console, and progress bars for the long stages, with a rate and the time left.

The names of subjects, ROIs and runs may look like rich's markup or like the code of an emoji. What
holds a name is printed with `say` or `print_table`, which show text as it is.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

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
from rich.table import Column, Table
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


class ConsoleHandler(logging.StreamHandler):
    """What is logged, to stdout as that is at the time: beside a bar, rich prints it above the bar.

    A record with a field `on_terminal` is shown as that.
    """

    def __init__(self, stream: object = None) -> None:
        """stream: Hydra's, which is stdout as it was at the start."""
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def format(self, record: logging.LogRecord) -> str:
        return getattr(record, "on_terminal", None) or super().format(record)


class _Rate(ProgressColumn):
    """Units per second; the task's field `unit` names them, "" for no rate."""

    def render(self, task: Task) -> Text:
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        return Text(f"{speed:.1f} {unit}/s" if speed and unit else "", style="dim")


class _Step(ProgressColumn):
    """What is being done just now: the task's field `step`, where it has one."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", max_width=24))

    def render(self, task: Task) -> Text:
        return Text("" if task.finished else task.fields.get("step", ""), style="dim")


def training_progress() -> Progress:
    """Epochs done, their rate and a field `note`; no time left, since early stopping decides it."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("training         epoch"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        _Rate(),
        console=console,
        disable=_hidden.get(),
        refresh_per_second=4,
    )


def stage_progress() -> Progress:
    """A bar with a rate and the time left; a task needs a field `unit`, and may have one `step`."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        _Step(),
        console=console,
        disable=_hidden.get(),
        refresh_per_second=4,
    )
