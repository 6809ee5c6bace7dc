"""Hashes of large files, remembered while a file stays as it was.

The identity of a corpus is a hash of all its content, which every run and plan needs. `hashes.json` in the home holds the hash of each
large file with its inode, size and times, as git's index does; it can be deleted at any time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from conf.atomic import write_atomic
from conf.errors import UserError
from models.base.files import file_sha256, read_json
from tasks.records.format import byte_size

FILE = "hashes.json"
LEAST = 2**20  # bytes of a file whose hash is remembered
KEPT = 100_000  # files
SETTLED_SECONDS = 2.0  # a file that was changed later than this before it is read may change again within the resolution of its times
PLANNED_BYTES = 2**30  # that a plan reads


class NotRead(UserError):
    """The data are there, and more than a plan reads."""


class KnownHashes:
    """Hashes of files by their absolute paths."""

    def __init__(self, file: Path | None = None, most: int | None = None) -> None:
        """Read what is remembered.

        Args:
            file: Where; none: nothing is remembered.
            most: Bytes that may be read of other files; none: all that there are.
        """
        self._file, self._most, self._new = file, most, False
        self._known: dict[str, list[object]] = {}
        if file is not None:
            with suppress(OSError, ValueError):  # not there yet, or damaged
                found = read_json(file)
                self._known = found if isinstance(found, dict) else {}

    def check(self, paths: Iterable[Path]) -> None:
        """Refuse to read too much.

        Raises:
            NotRead: The files that are not remembered have more bytes than may be read.
        """
        if self._most is None:
            return
        unread = 0
        for path in paths:
            with suppress(OSError):  # it is named when it is read
                unread += 0 if self._remembered(path) else path.stat().st_size
        if unread > self._most:
            raise NotRead(
                f"data: no run of this home has read {byte_size(unread)} of them yet; a plan does not, and takes them as not prepared"
            )

    def of(self, path: Path) -> str:
        """SHA-256 of a file.

        Raises:
            OSError: It cannot be read.
        """
        found = self._remembered(path)
        if found is not None:
            return found
        before, began = _state(path), time.time()
        content = file_sha256(path)
        size, *_, changed = before
        if self._file is not None and size >= LEAST and before == _state(path) and changed / 1e9 < began - SETTLED_SECONDS:
            self._known[os.path.abspath(path)] = [*before, content]
            self._new = True
        return content

    def save(self) -> None:
        """Keep what was learned; a home that is not there is not made."""
        if self._file is None or not self._new or not self._file.parent.is_dir():
            return
        kept = dict(list(self._known.items())[-KEPT:])
        with suppress(OSError):  # a full disk changes nothing
            write_atomic(self._file, json.dumps(kept, separators=(",", ":")))
        self._new = False

    def _remembered(self, path: Path) -> str | None:
        *state, content = self._known.get(os.path.abspath(path)) or [None]
        return content if isinstance(content, str) and state == _state(path) else None


def _state(path: Path) -> list[int]:
    """Size, inode and times of a file; the last is the time of its inode, which no program can set."""
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


_current: ContextVar[KnownHashes | None] = ContextVar("hashes", default=None)


def current_hashes() -> KnownHashes:
    """Those of the block that is under way; outside of one nothing is remembered."""
    return _current.get() or KnownHashes()


@contextmanager
def known_hashes(root: Path, most: int | None = None) -> Iterator[None]:
    """Remember hashes in a home while the block lasts; see `KnownHashes`."""
    hashes = KnownHashes(root / FILE, most)
    token = _current.set(hashes)
    try:
        yield
    finally:
        _current.reset(token)
        hashes.save()
