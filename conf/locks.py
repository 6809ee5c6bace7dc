"""Kernel locks that show whether a process is alive.

A process holds its lock as long as it lives; the kernel releases it however the process ends.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

JOB = "run-job-"  # with the moment at which it began, in seconds since 1970, and a process id: its lock's file may be touched by who asks


def job_lock(folder: Path) -> FileLock:
    """The lock of a job of a run of another machine, which begins now."""
    return FileLock(folder / f"{JOB}{int(time.time())}-{os.getpid()}.lock")


def job_began(path: Path) -> float | None:
    """Start of the job of a lock file, in seconds since 1970; None for the lock file of a run."""
    moment = path.name.removeprefix(JOB).partition("-")[0]
    return float(moment) if path.name.startswith(JOB) and moment.isdecimal() else None


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock of a file; False where there is no such file."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
