"""What a case of `fuzz.py` is, and how scripts are tried in this process."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from helpers import TINY, TINY_COHORT, run_quietly

ROOT = Path(__file__).parents[1]
Case = tuple[str, Callable[[], object], bool]
"""What it is, what tries it, and whether it may be accepted."""


class Refused(Exception):
    """The program ended with one line."""


class Sprung(Exception):
    """A trap was sprung: a secret or a file of the machine was given away."""


class Busy(Exception):
    """It took longer than two seconds of this process."""


def script(home: Path, name: str, *overrides: str) -> list[Path]:
    """A script in this process; the folders it made. Raises Refused with its line, or anything."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            return run_quietly(home, f"sqlite:///{home / 'mlflow.db'}", name, *overrides)
    except SystemExit as end:
        raise Refused(str(end.code)) from end


def train(home: Path, *overrides: str) -> Path:
    cohort = () if any("data=" in o for o in overrides) else TINY_COHORT
    tiny = () if any("encoder=" in o for o in overrides) else TINY
    return script(home, "train.py", *cohort, *tiny, *overrides)[0]
