"""Kernel locks as signs of life: a process holds one as long as it lives, and the kernel lets it go however the process ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock of a file; nobody holds a file that is not there."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
