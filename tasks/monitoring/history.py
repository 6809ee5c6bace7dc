"""The history of a model's windows: `LADDER_HOME/monitoring/<name>/`.

A window is one file, written whole or not at all: after a kill the next run goes on with the windows that have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from conf.atomic import write_atomic
from conf.home import Home, disk_errors
from tasks.records.monitoring import WindowEntry
from tasks.runtime.logs import log

PAGE = "monitoring.html"


def folder_of(home: Home, name: str) -> Path:
    """The folder of a model's history."""
    return home.monitoring / name


def names_of(home: Home) -> list[str]:
    """Models that have a history."""
    return sorted(path.parent.name for path in home.monitoring.glob("*/windows") if path.is_dir())


def read_history(home: Home, name: str) -> list[WindowEntry]:
    """All windows in the order of their looks; one whose file is damaged is named in the log and left out."""
    found = []
    for path in sorted((folder_of(home, name) / "windows").glob("*.json")):
        try:
            found.append(WindowEntry.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read, and is left out of the history: %s", path, str(error).splitlines()[0])
    return found


def write_entry(home: Home, entry: WindowEntry) -> None:
    """Keep a window, whole or not at all.

    Raises:
        StoreError: The disk is full or cannot be written.
    """
    report = entry.report
    folder = folder_of(home, report.name) / "windows"
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{report.number:06d}.json", entry.model_dump_json(indent=1))


def next_number(history: Sequence[WindowEntry]) -> int:
    """Number of the next look."""
    return 1 + max((entry.report.number for entry in history), default=0)


@contextmanager
def alone(home: Home, name: str) -> Iterator[None]:
    """Hold the right to add windows; wait, and say so, while another process does."""
    with disk_errors(home):
        home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.locks / f"monitoring-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process watches %s; waiting for it", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
