"""Training slots: a machine runs at most `compute.at_once` trainings at a time.

A slot is a kernel lock in a folder that all runs of a user on this machine share, whatever their `LADDER_HOME`, so a process that is
killed cannot keep it (docs/adr/0008).
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from conf.errors import LadderError
from tasks.runtime.logs import log

POLL_SECONDS = 0.25
REMIND_SECONDS = 60.0


class BusyError(LadderError):
    """Every slot is taken."""


@contextmanager
def training_slot(at_once: int | None, run: str, wait: bool = True) -> Iterator[None]:
    """Wait for a free slot and hold it.

    Args:
        at_once: Trainings that may run at once; None: no limit, and nothing is held.
        run: Name of the run, shown to runs that wait.
        wait: Whether to wait where all slots are taken.

    Raises:
        BusyError: All slots are taken, and `wait` is False.
        LadderError: The folder of the slots belongs to another user.
    """
    if at_once is None:
        yield
        return
    folder = slots_folder()
    lock = _wait([FileLock(folder / f"training-{i}.lock") for i in range(at_once)], wait)
    holder = _note_of(lock)
    try:
        holder.write_text(run, encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def slots_folder() -> Path:
    """The folder of the locks: one for each user, since a user cannot lock the files of another.

    Raises:
        LadderError: Another user owns it, who could block our trainings or redirect our writes by a link.
    """
    folder = Path(tempfile.gettempdir()) / f"ladder-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise LadderError(f"{folder} is not a folder of this user; remove it, or set TMPDIR to a folder of your own.")
    return folder


def _wait(locks: list[FileLock], wait: bool) -> FileLock:
    """The first lock that is released. Polled, since any of them serves; a cancellation interrupts the wait by its signal."""
    reminded = None
    while True:
        for lock in locks:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        if not wait:
            raise BusyError(f"another training or measurement runs on this machine{_holders(locks)}")
        if reminded is None or time.monotonic() - reminded >= REMIND_SECONDS:
            reminded = time.monotonic()
            log.info("waiting for its turn: another training runs on this machine%s", _holders(locks))
        time.sleep(POLL_SECONDS)


def _holders(locks: list[FileLock]) -> str:
    """Names of the runs that hold the slots, in brackets; empty while none has written its name."""
    names = []
    for lock in locks:
        with suppress(FileNotFoundError):
            names.append(_note_of(lock).read_text(encoding="utf-8"))
    holders = sorted({name for name in names if name})
    return f" ({', '.join(holders)})" if holders else ""


def _note_of(lock: FileLock) -> Path:
    return Path(lock.lock_file).with_suffix(".run")
