"""What a sweep must know of the launcher that runs its jobs.

A new launcher is a yaml file in conf/hydra/launcher/ and, unless the defaults suit it, a row here.
"""

import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from jne.errors import InputError
from jne.utils.slurm import job_ended

_POLL_SECONDS = 10


@dataclass(frozen=True)
class Launcher:
    """What a sweep must know of a launcher; the defaults are those of an unknown one."""

    shares_terminal: bool = False
    """Several jobs print to one terminal at once: they show no progress bars, and the sweep prints
    a line for each finished job."""
    wait: Callable[[Path], None] | None = None
    """Waits for jobs that may outlive the launcher; takes the sweep's folder."""
    program: str | None = None
    """What must be installed on the machine."""

    def check(self) -> None:
        """Raise InputError where its program is missing."""
        if self.program is not None and shutil.which(self.program) is None:
            raise InputError(
                "hydra/launcher",
                f"SLURM is not on this machine (no {self.program}); hydra/launcher=cores runs jobs "
                f"side by side here",
            )


def wait_for_slurm(folder: Path) -> None:
    """Wait until SLURM has no job of the sweep left; Ctrl-C ends the waiting.

    submitit gives up at the first job that was killed, while the others go on in the queue.
    """
    # Not what submitit leaves of jobs that SLURM did not take, whose names are random
    names = (re.match(r"\d+(?=_|$)", path.name) for path in folder.glob(".submitit/*"))
    arrays = {name[0] for name in names if name}
    with suppress(KeyboardInterrupt):
        while not all(job_ended(array) for array in arrays):
            time.sleep(_POLL_SECONDS)


# By the name of the launcher's class.
LAUNCHERS = {
    "JoblibLauncher": Launcher(shares_terminal=True),
    "SlurmLauncher": Launcher(wait=wait_for_slurm, program="srun"),
}


def launcher_of(config: DictConfig) -> Launcher:
    """The row of the launcher that `hydra/launcher` selects, or the defaults."""
    class_name = config.hydra.launcher._target_.rpartition(".")[2]
    return LAUNCHERS.get(class_name, Launcher())
