"""Size limit of a home's results: the object store keeps what is removed here.

Removed are the results that were used longest ago, that the object store holds in the same bytes, and that nothing uses: no process has
their lock, no run that is under way began before they were used last, and nobody used them in the last hour.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conf.errors import RemoteStoreError
from conf.home import Home
from conf.locks import is_held, job_began
from models.base.files import read_json
from tasks.store.manifest import MANIFEST, SHOWN, foreign_files
from tasks.store.remote.results import Remote

IN_USE_SECONDS = 3600.0  # a command without a run may read a result that it has found
OPENING_SECONDS = 600.0  # a run looks for models before its record is written
NO_RESULTS = ("set-aside", "writing", "checkpoints")


def trim(home: Home, remote: Remote, limit: int) -> int:
    """Remove results until those of a home take at most `limit` bytes, or none is left that may be removed; returns the bytes removed."""
    sizes = {folder: folder_bytes(folder) for folder in _results(home)}
    excess, removed = sum(sizes.values()) - limit, 0
    if excess <= 0:
        return 0
    before = min(time.time() - IN_USE_SECONDS, *_starts(home))
    used = {folder: moment for folder in sizes if (moment := _last_use(folder)) is not None and moment < before}
    with suppress(RemoteStoreError):  # away: nothing is removed
        for folder in sorted(used, key=lambda each: used[each]):
            if removed >= excess:
                break
            if _remove(home, remote, folder, before):
                removed += sizes[folder]
    return removed


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            total += folder_bytes(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
    return total


def _results(home: Home) -> Iterator[Path]:
    return (path.parent for path in home.store.glob(f"*/*-{'?' * SHOWN}/{MANIFEST}") if path.parent.parent.name not in NO_RESULTS)


def _last_use(folder: Path) -> float | None:
    try:
        return folder.stat().st_mtime
    except OSError:
        return None


def _starts(home: Home) -> list[float]:
    """Moments at which the runs that are under way began."""
    starts = []
    for path in home.locks.glob("run-*.lock"):
        if is_held(path):
            run, started = path.name.removeprefix("run-").removesuffix(".lock"), job_began(path) or time.time() - OPENING_SECONDS
            with suppress(OSError, ValueError, LookupError, TypeError):
                started = datetime.fromisoformat(read_json(home.runs / run / "record.json")["started"]).timestamp()
            starts.append(started)
    return starts or [time.time()]


def _remove(home: Home, remote: Remote, folder: Path, before: float) -> bool:
    """Remove a result, under its lock; False: it is in use, or is not in the object store as it is here."""
    lock = FileLock(home.locks / f"{folder.name[-SHOWN:]}.lock")
    try:
        with lock.acquire(timeout=0):
            moment, manifest = _last_use(folder), _manifest(folder)
            if moment is None or moment >= before or manifest is None or not _is_safe(remote, folder, manifest):
                return False
            temporary = home.store / "writing" / f"{folder.name[-SHOWN:]}-{os.getpid()}"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.parent.mkdir(exist_ok=True)
            folder.rename(temporary)  # a whole folder: no reader sees half of it
            shutil.rmtree(temporary)
            return True
    except Timeout:
        return False


def _is_safe(remote: Remote, folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether the object store has all that the folder has."""
    kind = folder.parent.name
    if not remote.is_noted(kind, manifest, same=True) or foreign_files(folder, manifest):
        return False
    held = remote.look(kind, manifest["fingerprint"])
    return held is not None and held.fault is None and held.manifest["files"] == manifest["files"]


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        return found if {"files", "fingerprint"} <= set(found) else None
    except (OSError, ValueError, TypeError):
        return None
