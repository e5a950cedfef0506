"""The console, and progress bars for the long stages, with a rate and the time left."""

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
from rich.text import Text

console = Console()


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
        TextColumn("{task.fields[note]}"),
        _Rate(),
        console=console,
        refresh_per_second=4,
    )


def stage_progress() -> Progress:
    """A bar with a rate and the time left; each task needs a field `unit`."""
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
