"""How the root scripts start and how they fail: bad input is told in one sentence."""

import os
import secrets
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jne.errors import InputError

# Part of a run folder's name: runs started in the same second must not share a folder.
OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), use_cache=True)


def run_script(main: Callable[[], None]) -> None:
    """Run a `hydra.main` function; exit 1 with one sentence where the input is at fault.

    Any other exception keeps its traceback: it is a bug, and the traceback is what to report.
    """
    # Hydra would print a trimmed traceback for everything and hide the cause.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {_one_sentence(str(error))}")


def _one_sentence(message: str) -> str:
    """Hydra's message without its layout; of an unknown key, its name and nothing else."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "is not in struct" in message:
        key = next(line for line in lines if line.startswith("full_key:")).split(":")[1].strip()
        return f"{key}: there is no such key"
    return " ".join(lines)
