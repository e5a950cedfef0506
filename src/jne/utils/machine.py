"""How this process uses the machine: cores, memory, garbage collection."""

import atexit
import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jne.utils import slurm

# mallopt's names for these two, in glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
# of Linux's control groups, versions 2 and 1, as containers show them
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def use_allocated_cores() -> None:
    """Give torch as many threads as SLURM gave this job cores.

    OMP_NUM_THREADS takes precedence: joblib sets it to each job's share of the cores.
    """
    cores = slurm.allocated_cores()
    if cores and "OMP_NUM_THREADS" not in os.environ:
        import torch  # takes seconds to import; this module is used without it too

        torch.set_num_threads(cores)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Import without garbage collection, and exempt what was imported from later collections.

    torch, Lightning and MLflow create a million objects, nearly all of which stay. Searching them
    for garbage takes a tenth of a short job, and another fifth when the process ends: there they
    are left to the system. Only the first block in a process has this effect, because what one
    job leaves behind is garbage to the next.
    """
    if gc.get_freeze_count():
        yield
        return
    # Before the imports: it runs after what they register, which may have something to say.
    atexit.register(_hide_leaks_of_triton)
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _hide_leaks_of_triton() -> None:
    """Keep triton from listing, at exit, its objects that were not freed.

    Nothing but closing stderr stops it; triton's own processes do the same.
    """
    if "triton" in sys.modules:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed arrays instead of returning it to the system each time.

    glibc maps every array above 32 MB anew, and the system then clears it page by page, which
    takes longer than most computations on it: a fifth of an epoch at the size of a whole brain.
    The peak memory stays the same; memory below it is returned when the process ends. Without
    glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # never trim


def memory_bytes() -> int:
    """The memory that this process may use: that of the machine, or less in a container or job."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # another system, or the word `max`
            total = min(total, int(limit.read_text()))
    return total


def peak_memory_gb() -> float:
    """Peak resident memory of this process so far, in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 3)
