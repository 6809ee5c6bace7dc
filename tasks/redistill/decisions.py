"""Decisions about re-distillation on disk: one file each, numbered, under a lock.

The kernel releases the lock of a process that dies; the decision that it left as `running` is then gone on with by the next one for the
same cause.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conf.atomic import write_atomic
from conf.home import Home, disk_errors
from tasks.records.redistill import BEGUN, OPEN, Redistillation
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import now

WEEK = timedelta(days=7)
MONITOR = "monitor"  # `by` of what began by itself


def folder_of(home: Home, name: str) -> Path:
    """Folder of the decisions about a model, and of the rows of its windows."""
    return home.root / "redistill" / name


def decisions(home: Home, name: str) -> list[Redistillation]:
    """All decisions about a model, the newest first; one that says `running` while no process holds the lock is interrupted."""
    found = []
    for path in folder_of(home, name).glob("[0-9]*.json"):
        try:
            found.append(Redistillation.model_validate_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            log.warning("the decision %s cannot be read and is passed over: %s", path, error)
    return sorted(found, key=lambda each: each.number, reverse=True)


def names(home: Home) -> list[str]:
    """Models about which there are decisions."""
    return sorted(path.name for path in (home.root / "redistill").glob("*") if path.is_dir())


def add(home: Home, **fields: Any) -> Redistillation:
    """Write a new decision under the next free number; two processes never write the same one.

    Raises:
        StoreError: The disk is full.
    """
    folder = folder_of(home, fields["name"])
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        number = max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)
        while True:
            number += 1
            moment = now()
            made = Redistillation(**{"time": moment, "updated": moment, **fields, "number": number})
            temporary = folder / f".{number:05d}.{os.getpid()}.new"
            write_atomic(temporary, made.model_dump_json(indent=1))
            try:
                os.link(temporary, _path(home, made))
            except FileExistsError:
                continue
            finally:
                temporary.unlink(missing_ok=True)
            return made


def update(home: Home, decision: Redistillation, **fields: Any) -> Redistillation:
    """Replace a decision, in place."""
    changed = decision.model_copy(update={**fields, "updated": now()})
    with disk_errors(home):
        write_atomic(_path(home, changed), changed.model_dump_json(indent=1))
    return changed


def _path(home: Home, decision: Redistillation) -> Path:
    return folder_of(home, decision.name) / f"{decision.number:05d}.json"


@contextmanager
def claimed(home: Home, name: str) -> Iterator[bool]:
    """Hold the right to distil a model again; False where another process has it."""
    with disk_errors(home):
        home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.locks / f"redistill-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def open_decision(found: Sequence[Redistillation], cause: str) -> Redistillation | None:
    """The decision about a cause that is to be gone on with."""
    return next((each for each in found if each.cause == cause and each.outcome in OPEN), None)


def closed_decision(found: Sequence[Redistillation], cause: str, by: str) -> Redistillation | None:
    """The decision about a cause whose run has ended; a person may ask again for one that failed."""
    ended = set(BEGUN) - set(OPEN) - (set() if by == MONITOR else {"failed"})
    return next((each for each in found if each.cause == cause and each.outcome in ended), None)


def begun_this_week(found: Sequence[Redistillation], moment: str) -> list[Redistillation]:
    """Decisions of the monitor of the last seven days by which a run was begun."""
    since = datetime.fromisoformat(moment) - WEEK
    return [each for each in found if each.outcome in BEGUN and each.by == MONITOR and datetime.fromisoformat(each.time) > since]


def abandon_others(home: Home, found: Sequence[Redistillation], cause: str) -> None:
    """End decisions about other causes that a dead process has left: the newest drop holds the data of them all."""
    for each in found:
        if each.cause != cause and each.outcome in ("running", "interrupted"):
            with suppress(OSError):
                update(home, each, outcome="failed", reason=f"its process ended, and the cause {cause} came before it was gone on with")
