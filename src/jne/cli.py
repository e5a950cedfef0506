"""How the root scripts start and how they fail: bad input is told in one sentence."""

import errno
import os
import re
import secrets
import sys
import warnings
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jne.errors import InputError

# Part of a run folder's name: runs started in the same second must not share a folder.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), use_cache=True)

_CANNOT_WRITE = (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def run_script(main: Callable[[], None]) -> None:
    """Run a `hydra.main` function; exit 1 with one sentence where the input is at fault.

    Any other exception keeps its traceback: it is a bug, and the traceback is what to report.
    """
    # Lightning 2.6 under torch 2.15; nothing that a user can change.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
    # Hydra would print a trimmed traceback for everything and hide the cause.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {_one_sentence(str(error))}")
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        sys.exit(f"error: output: cannot write to {error.filename} ({error.strerror})")


def _one_sentence(message: str) -> str:
    """Hydra's message without its layout; of an unknown key, its name and nothing else."""
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown:
        return f"{unknown[1]}: there is no such key"
    return " ".join(line.strip() for line in message.splitlines() if line.strip())
