"""How the root scripts start and how they fail: bad input is told in one sentence."""

import errno
import os
import re
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jne import sweep
from jne.errors import InputError

# Part of a run folder's name: runs started in the same second must not share a folder.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), use_cache=True)


def _sweep_name(output: str, resume: bool) -> str:
    """A new name; to resume, that of the newest sweep below `output`, where there is one."""
    if resume:
        earlier = Path(output, "sweeps").glob("*/multirun.yaml")
        newest = max(earlier, key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None:
            return newest.parent.name
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"


# Hydra hands the cache on to the jobs, on whatever machine, so all of them give the same name.
OmegaConf.register_new_resolver("sweep_name", _sweep_name, use_cache=True)

_CANNOT_WRITE = (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def run_script(main: Callable[[], None]) -> None:
    """Run a `hydra.main` function; exit 1 with one sentence where the input is at fault.

    Any other exception keeps its traceback: it is a bug, and the traceback is what to report.
    """
    # Hydra would print a trimmed traceback for everything and hide the cause.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except Exception as error:
        # What ended a job of a sweep is in its log and in the sweep's table.
        if sweep.finish() is None:
            sys.exit(f"error: {_told(error)}")
        sys.exit(1)
    if sweep.finish() is False:
        sys.exit(1)


def _told(error: Exception) -> str:
    """The sentence for bad input. Raises `error` where the input is not at fault."""
    if isinstance(error, InputError):
        return str(error)
    if re.search(r"hydra/launcher/(joblib|submitit)|hydra_plugins", str(error)):
        return 'hydra/launcher: this launcher is not installed; pip install ".[launchers]"'
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _one_sentence(str(error))
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return f"output: cannot write to {error.filename} ({error.strerror})"
    raise error


def _one_sentence(message: str) -> str:
    """Hydra's message without its layout; of an unknown key, its name and nothing else."""
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown:
        return f"{unknown[1]}: there is no such key"
    return " ".join(line.strip() for line in message.splitlines() if line.strip())
