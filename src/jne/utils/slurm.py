"""All contact with SLURM: this job's id and cores, and whether another job has ended."""

import os
import shutil
import subprocess
import time

_GRACE_SECONDS = 600  # longer than any grace period between the signal and the kill


def job_id() -> str | None:
    """The id of the SLURM job that this process belongs to; None outside of SLURM."""
    return os.environ.get("SLURM_JOB_ID")


def allocated_cores() -> int | None:
    """The number of cores that SLURM gave each task of this job; None if it did not say."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    return int(cores) if cores else None


def job_ended(job: str | None) -> bool:
    """Whether `job` (of an array: every job of it) is neither running nor queued.

    False if that cannot be known: without an id, or without the command squeue.
    """
    if job is None or shutil.which("squeue") is None:
        return False
    answer = subprocess.run(
        ["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False
    )
    return not answer.stdout.strip() and (
        answer.returncode == 0 or "Invalid job id" in answer.stderr
    )


def wait_for_kill() -> None:
    """Wait until SLURM kills this job.

    SLURM requeues a preempted job only if it has to kill it. A job that ends by itself within the
    grace period counts as completed.
    """
    time.sleep(_GRACE_SECONDS)
