"""What of the machine this process uses: its cores and its memory."""

import atexit
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's names for them, in glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def use_given_cores() -> None:
    """As many threads as SLURM gave the job cores. OMP_NUM_THREADS, where it is set, stands: joblib
    sets it to each job's share.
    """
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    if cores and "OMP_NUM_THREADS" not in os.environ:
        import torch  # its seconds are not for those who ask for the memory alone

        torch.set_num_threads(int(cores))


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports within look for no garbage, and no later search looks through what they made.

    torch, Lightning and MLflow make a million objects, nearly all of them to stay: a tenth of a
    short job is spent looking through them. Once a process: what a job leaves is garbage to the
    next.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
        atexit.register(gc.unfreeze)  # or triton tells at the end of all that was not freed
    finally:
        gc.enable()


def keep_freed_memory() -> None:
    """Have freed arrays used again, in place of giving them back to the system each time.

    glibc maps every array above 32 MB anew, and the system clears it page by page, which takes
    longer than most that is done with it: a fifth of an epoch at the size of a whole brain. The
    peak stays; memory below it is given back at the end. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # never


def peak_memory_gb() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 3)
