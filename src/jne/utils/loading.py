"""The first line of a command, before the imports that take seconds."""

import os
import sys

from jne import __version__

_ONLY_PRINT = {
    *("-h", "--help", "--hydra-help", "--version", "-i", "--info", "-c", "--cfg"),
    *("-sc", "--shell-completion"),
}
"""Options of Hydra that print and end, nearly at once."""
_DONE = "JNE_LOADING"  # environment variable: the processes that a sweep starts do not repeat it


def say_loading() -> None:
    """Say on a terminal that the command is loading: nothing else appears for seconds.

    On stderr, and nowhere but on a terminal: what is piped, logged or completed stays as it is.
    """
    only_prints = any(word.partition("=")[0] in _ONLY_PRINT for word in sys.argv[1:])
    if only_prints or _DONE in os.environ or not (sys.stderr and sys.stderr.isatty()):
        return
    os.environ[_DONE] = "done"
    print(f"jne {__version__}: loading", file=sys.stderr, flush=True)
