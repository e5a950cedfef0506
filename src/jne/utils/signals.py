"""Ctrl-C and SIGTERM end the program in order: `finally` blocks run; no traceback is printed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from jne.credentials import hide_credentials

TERMINATED = 128 + signal.SIGTERM  # exit code
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(SystemExit):
    """A signal ended the program; `code` is 128 + its number, as shells have it.

    A SystemExit, which no library takes for an error of its own.
    """

    def __str__(self) -> str:
        return _NAMES[signal.Signals(self.code - 128)]  # type: ignore[operator]


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` in this block on Ctrl-C and on SIGTERM, which schedulers send."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(128 + number)

    # A shell starts what runs in its background with Ctrl-C ignored; so it stays.
    before = {number: signal.getsignal(number) for number in _NAMES}
    taken = [n for n, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def ended_as(error: BaseException) -> str:
    """KILLED for Ctrl-C and SIGTERM, FAILED for all else; so also for code that calls sys.exit."""
    exits = isinstance(error, SystemExit) and not isinstance(error, Stopped)
    return "FAILED" if exits or isinstance(error, Exception) else "KILLED"


def in_one_line(error: BaseException) -> str:
    """What ended a run, for its status and its tag in MLflow."""
    if isinstance(error, Stopped):
        return str(error)
    if isinstance(error, SystemExit):
        return f"code of yours called sys.exit({error.code!r})"
    return hide_credentials(f"{type(error).__name__}: {error}")
