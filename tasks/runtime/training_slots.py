"""One training at a time: a machine's cores and memory serve one training well and two of them badly.

A slot is a kernel lock in a folder that all runs of a user on this machine share, whatever their `LADDER_HOME`, so a process that is
killed cannot keep it (docs/adr/0008). A run takes one of the first `compute.at_once` slots.
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
    """Hold the right to train on this machine, after waiting for it.

    Args:
        at_once: Trainings that may run at once; None: no limit, and nothing is held.
        run: Name of the run, told to those that wait.
        wait: Whether to wait where all slots are taken.

    Raises:
        BusyError: All slots are taken, and nobody was to wait.
        LadderError: The folder of the slots belongs to somebody else.
    """
    if at_once is None:
        yield
        return
    folder = slots_folder()
    lock = _wait([FileLock(folder / f"training-{i}.lock") for i in range(at_once)], wait)
    holder = _note_of(lock)
    try:
        holder.write_text(run)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def slots_folder() -> Path:
    """The folder of the locks: one for each user, since nobody can take the locks of another.

    Raises:
        LadderError: Somebody else has made it, who could then hold up our trainings or lead our writing elsewhere.
    """
    folder = Path(tempfile.gettempdir()) / f"ladder-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise LadderError(f"{folder} is not a folder of this user; remove it, or set TMPDIR to a folder of your own.")
    return folder


def _wait(locks: list[FileLock], wait: bool) -> FileLock:
    """The first lock that gets free. Polled, since any of them will do; a signal, which is how a run is cancelled, ends it at once."""
    said = None
    while True:
        for lock in locks:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return lock
        if not wait:
            raise BusyError(f"another training or measurement runs on this machine{_holders(locks)}")
        if said is None or time.monotonic() - said >= REMIND_SECONDS:
            said = time.monotonic()
            log.info("waiting for its turn: another training runs on this machine%s", _holders(locks))
        time.sleep(POLL_SECONDS)


def _holders(locks: list[FileLock]) -> str:
    """Which runs hold the slots, as far as they have said so already."""
    names = []
    for lock in locks:
        with suppress(FileNotFoundError):
            names.append(_note_of(lock).read_text())
    known = sorted({name for name in names if name})
    return f" ({', '.join(known)})" if known else ""


def _note_of(lock: FileLock) -> Path:
    return Path(lock.lock_file).with_suffix(".run")
