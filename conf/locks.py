"""Kernel locks that show whether a process is alive.

A process holds its lock as long as it lives; the kernel releases it however the process ends.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


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
