"""Progress bars of the functions that a user calls: where somebody sees them, and rich is there."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec


def has_viewer() -> bool:
    """Whether this is a terminal, or a notebook that can show bars; else they fill a log."""
    if "ipykernel" in sys.modules:
        return find_spec("ipywidgets") is not None  # in which rich draws there
    return sys.stdout.isatty()


@contextmanager
def progress_bar(name: str, verbose: int) -> Iterator[Callable[[float], None] | None]:
    """What takes the share done, from 0 to 1; None where nobody sees a bar.

    verbose: 0 for none.
    """
    if not verbose or not has_viewer() or find_spec("rich") is None:
        yield None
        return
    from jne.utils.progress import stage_progress

    with stage_progress() as progress:
        task = progress.add_task(name, total=100, unit="%")
        yield lambda share: progress.update(task, completed=round(100 * share))
