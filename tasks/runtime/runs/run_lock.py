"""Locks of runs, held by their processes: which run lives, and how it is stopped."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from conf.home import Home
from conf.locks import is_held
from tasks.records.run import RunRecord


def lock_path(home: Home, run: str) -> Path:
    """The file whose lock the process of a run holds until it ends."""
    return home.locks / f"run-{run}.lock"


def is_alive(home: Home, run: str) -> bool:
    """Whether the process of a run lives."""
    return is_held(lock_path(home, run))


class RunLock:
    """Lock of a run, held by its process; the kernel releases it when the process ends, however it ends."""

    def __init__(self, home: Home, run: str) -> None:
        home.locks.mkdir(parents=True, exist_ok=True)
        self.run = run
        self.lock = FileLock(lock_path(home, run))

    def take(self) -> bool:
        """Try to lock; False while another process holds the lock."""
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        self.lock.release()


def ask_to_end(home: Home, record: RunRecord) -> bool:
    """Send SIGTERM to the process of a run; False where the process with its PID here does not hold the run's lock.

    The PID may belong to another process by now, or to another container that shares the home.
    """
    import psutil

    path = lock_path(home, record.run).resolve()
    try:
        process = psutil.Process(record.pid)
        ours = is_alive(home, record.run) and any(Path(file.path) == path for file in process.open_files())
        if ours:
            process.terminate()  # psutil refuses where the PID was reused since the line above
    except psutil.Error:
        return False
    return ours
