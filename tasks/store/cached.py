"""Find a result in the store, or compute and publish it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.store.fingerprint import fingerprint
from tasks.store.manifest import Found
from tasks.store.store import Check, Store

Write = Callable[[Path], object]  # fills the empty folder that it is given

_reuse: ContextVar[str | None] = ContextVar("reuse", default=None)


@dataclass(frozen=True)
class Entry:
    """The place of a result in the store.

    Attributes:
        kind: Sub-folder of the store.
        name: For people.
        identity: All that the content depends on; it is hashed.
        check: Reads the records in its folder, and raises where they are not what they should be; the result is then computed anew.
    """

    kind: str
    name: str
    identity: dict[str, Any]
    check: Check | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the identity."""
        return fingerprint(self.identity)


@dataclass(frozen=True)
class StoredResult(Found):
    """A verified result, and whether it was in the store already."""

    reused: bool


def find_or_compute(
    store: Store,
    entry: Entry,
    made: dict[str, str],
    compute: Callable[[], Write],
    *,
    fresh: bool = False,
    finish: Callable[[], None] = lambda: None,
) -> StoredResult:
    """Find a result, verified, or compute and publish it; one process at a time does so for one fingerprint.

    So do machines that share an object store: one computes, the others wait and fetch its result.

    Args:
        store: The store.
        entry: Kind, name and identity of the result.
        made: `run` and `ladder` that would compute it.
        compute: Computes the result, before anything of it is written, and returns the function that writes it.
        fresh: Compute anew a result of another run (`--fresh`); a run does not make the same result twice.
        finish: Called once the result is published, still under the lock.

    Raises:
        StoreError: The disk is full or cannot be written.
        RemoteStoreError: The object store does not answer, or refuses, when it is asked for the result.
    """
    with store.lock(entry.fingerprint):
        found = store.find(entry.kind, entry.fingerprint, entry.check)
        if found is not None and not (fresh and found.manifest["run"] != made["run"]):
            return _reused(entry, found)
        with store.lease(entry.fingerprint, made["run"]):
            faster = store.fetch(entry.kind, entry.fingerprint, entry.check) if found is None else None
            if faster is not None:  # another machine, since the look before
                return _reused(entry, faster)
            write = compute()
            found = store.publish(entry.kind, entry.name, entry.identity, entry.fingerprint, made, write)
        finish()
        if found.adopted:
            return _reused(entry, found)
        note_reuse(None)
        return StoredResult(found.folder, found.manifest, reused=False)


def _reused(entry: Entry, found: Found) -> StoredResult:
    note_reuse(f"reused {entry.fingerprint[:12]} of {found.manifest['run']}")
    return StoredResult(found.folder, found.manifest, reused=True)


def find_stored(store: Store, kind: str, fingerprint: str, check: Check | None = None) -> Found | None:
    """A result, verified, if the store has it; found under its lock, so that `ladder clean` sees that it is in use."""
    with store.lock(fingerprint):
        return store.find(kind, fingerprint, check)


def note_reuse(message: str | None) -> None:
    """Note for the step under way which result it reused; None: its last result was computed."""
    _reuse.set(message)


def reuse_noted() -> str | None:
    """The last note."""
    return _reuse.get()
