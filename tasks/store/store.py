"""Content-addressed folders, durable and verified before every reuse.

A result is written aside and renamed into `store/<kind>/<name>-<fingerprint>/`, with a `manifest.json` that is written last and lists
every file's size and SHA-256, the identity that was hashed, and the run that made it. A folder without a valid manifest does not count,
and a file that the manifest lacks is moved out of the folder.
The name is for people; only the fingerprint is looked up. Locks are kernel locks: a dead process cannot hold one (they are not
reliable on NFS).
With `LADDER_STORE` an object store is behind it, which several machines share: a result that is not here is fetched from there, verified,
and one that was made here is uploaded (tasks/store/remote).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from conf.atomic import fsync
from conf.errors import RemoteStoreError, reason_of
from conf.home import Home, disk_errors
from models.base.files import checkpoint_steps, fsync_tree, read_json
from tasks.store.manifest import MANIFEST, SHOWN, Found, Manifest, foreign_files, list_files, verify
from tasks.store.remote.address import cache_bytes
from tasks.store.remote.cache import trim
from tasks.store.remote.held import Held
from tasks.store.remote.results import open_remote

Check = Callable[[Path], object]  # reads the records in a folder, and raises where they are not what they should be


class Store:
    """The store under a home."""

    def __init__(self, home: Home, say: Callable[[str], None] = lambda text: None) -> None:
        self.home = home
        self.say = say
        self.remote = open_remote(home, say)

    def find(self, kind: str, fingerprint: str, check: Check | None = None, *, closed: bool = True) -> Found | None:
        """The result with this fingerprint, after its files were verified; a damaged one is named and set aside.

        Args:
            kind: Sub-folder of the store.
            fingerprint: Hash of its identity.
            check: Reads its records: files may be as they were written, by another version, and yet not be what this one reads.
            closed: Whether files that the manifest lacks do not belong there; they are moved out, and named.
        """
        for folder in (self.home.store / kind).glob(f"*-{fingerprint[:SHOWN]}"):
            fault, manifest = verify(folder, fingerprint)
            fault = fault or _misfit(folder, check)
            if fault is None:
                if closed:
                    self._move_foreign(folder, manifest)
                os.utime(folder)  # it is in use: `ladder clean` goes by this time, and asks again under the fingerprint's lock
                if self.remote is not None:
                    self.remote.keep(kind, folder, manifest)
                return Found(folder, manifest)
            aside = self.set_aside(folder)
            self.say(f"damaged result {folder}: {fault}; set aside as {aside}, it will be computed again")
        return self.fetch(kind, fingerprint, check)

    def fetch(self, kind: str, fingerprint: str, check: Check | None = None) -> Found | None:
        """The result from the object store, verified and put into this one; None: it has none that is whole, or there is no object store.

        Raises:
            RemoteStoreError: The object store does not answer, or refuses.
            StoreError: The disk is full.
        """
        held = None if self.remote is None else self.remote.look(kind, fingerprint)
        return None if held is None else self._take(held, fingerprint, check)

    def _take(self, held: Held, fingerprint: str, check: Check | None = None) -> Found | None:
        """Copy a result from the object store; a damaged one is named, and not used."""
        assert self.remote is not None
        with self._writing(fingerprint) as temporary:
            fault = self.remote.fetch(held, temporary, held.manifest.get("files", ())) or _misfit(temporary, check)
            if fault is not None:
                address = self.remote.bucket.address
                self.say(f"damaged result {held.kind}/{fingerprint[:SHOWN]} in {address}: {fault}; it is not used")
                return None
            final = self._reveal(temporary, held.kind, held.folder_name, fingerprint)
        self.remote.note(held.kind, held.manifest)
        self._trim()
        return Found(final, held.manifest)

    def _trim(self) -> None:
        """Keep to the size limit of `LADDER_STORE_CACHE`."""
        limit = cache_bytes()
        if self.remote is not None and limit is not None:
            trim(self.home, self.remote, limit)

    def peek(self, kind: str, fingerprint: str, check: Check | None = None, *, whole: bool = False) -> Found | None:
        """The result with this fingerprint, judged by its manifest, file sizes and records alone; changes nothing. For plans.

        Of a result that the object store alone has, its small files are fetched, records among them; of data, which plans read, all,
        unless another process has their lock.

        Args:
            kind: Sub-folder of the store.
            fingerprint: Hash of its identity.
            check: As of `find`.
            whole: Whether all files are wanted; a result whose large ones the object store alone has is none then.
        """
        for folder in (self.home.store / kind).glob(f"*-{fingerprint[:SHOWN]}"):
            fault, manifest = verify(folder, fingerprint, hashes=False)
            if fault is None and _misfit(folder, check) is None:
                return Found(folder, manifest)
        held = None if self.remote is None else self.remote.peek(kind, fingerprint)
        if self.remote is None or held is None or held.fault is not None:
            return None
        if kind == "data":
            return self._fetch_unlocked(held, fingerprint, check)
        if whole and not held.is_small:
            return None
        folder = self.remote.fetch_records(held)
        return None if folder is None or _misfit(folder, check) else Found(folder, held.manifest)

    def _fetch_unlocked(self, held: Held, fingerprint: str, check: Check | None) -> Found | None:
        self.home.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home.locks / f"{fingerprint[:SHOWN]}.lock")
        try:
            with lock.acquire(timeout=0):
                return self._take(held, fingerprint, check)
        except (Timeout, RemoteStoreError):
            return None

    def set_aside(self, folder: Path) -> Path:
        """Move a folder out of the way without losing it."""
        aside = self._aside(folder)
        folder.rename(aside)
        return aside

    def _aside(self, folder: Path) -> Path:
        aside = self.home.store / "set-aside" / f"{folder.name}-{time.time_ns()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        return aside

    def _move_foreign(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Move out what was put into a result after its publication: a library might read it as part of a model."""
        foreign = foreign_files(folder, manifest)
        if not foreign:
            return
        aside = self._aside(folder)
        for path in foreign:
            place = aside / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
        names = ", ".join(path.relative_to(folder).as_posix() for path in foreign[:8])
        more = f" and {len(foreign) - 8} more" if len(foreign) > 8 else ""
        self.say(f"{folder} holds files that no run put there: {names}{more}; moved to {aside}, the result is used as it was")

    def publish(
        self, kind: str, name: str, identity: dict[str, Any], fingerprint: str, made: dict[str, str], write: Callable[[Path], object]
    ) -> Found:
        """Make a result visible under its final name, whole or not at all; the caller holds the fingerprint's lock.

        Args:
            kind: Sub-folder of the store: data, teacher, stage, evaluation.
            name: For people.
            identity: The parts that were hashed.
            fingerprint: Its hash.
            made: `run` and `ladder` that computed it.
            write: Fills the empty folder that it is given.

        Raises:
            StoreError: The disk is full or cannot be written.
        """
        with self._writing(fingerprint) as temporary:
            (self.home.store / kind).mkdir(parents=True, exist_ok=True)
            write(temporary)
            manifest = {"fingerprint": fingerprint, "identity": identity, "name": name, **made, "files": list_files(temporary)}
            fsync_tree(temporary)
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            final = self._reveal(temporary, kind, f"{name}-{fingerprint[:SHOWN]}", fingerprint)
        return self._upload(kind, Found(final, manifest))

    @contextmanager
    def _writing(self, fingerprint: str) -> Iterator[Path]:
        """An empty folder, removed at the end unless it was renamed; the caller holds the fingerprint's lock."""
        temporary = self.home.store / "writing" / f"{fingerprint[:SHOWN]}-{os.getpid()}"
        with disk_errors(self.home):
            for left in temporary.parent.glob(f"{fingerprint[:SHOWN]}-*"):
                shutil.rmtree(left, ignore_errors=True)  # of a process that died while it wrote: whoever publishes holds the lock
            temporary.mkdir(parents=True)
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _reveal(self, temporary: Path, kind: str, name: str, fingerprint: str) -> Path:
        """Give a whole folder its final name; an older result is set aside."""
        final = self.home.store / kind / name
        final.parent.mkdir(exist_ok=True)
        fsync_tree(temporary)
        for old in final.parent.glob(f"*-{fingerprint[:SHOWN]}"):
            self.set_aside(old)
        temporary.rename(final)
        fsync(final.parent)
        return final

    def _upload(self, kind: str, found: Found) -> Found:
        """Put a new result into the object store; where another machine was faster, its result takes the place of ours."""
        if self.remote is None:
            return found
        try:
            while (winner := self.remote.publish(kind, found.folder, found.manifest)) is not None:
                taken = self._take(winner, found.manifest["fingerprint"])
                if taken is not None:
                    self.say(f"{taken.folder.name}: {winner.manifest['run']} has published it first; its result is used, ours is set aside")
                    return Found(taken.folder, taken.manifest, adopted=True)
        except RemoteStoreError as error:
            self.remote.rest(error)
        self._trim()
        return found

    def latest(self, kind: str, name: str, ladder: str) -> dict[str, Any] | None:
        """Manifest of the newest result of this name in this ladder, to show later changes."""
        newest: tuple[float, dict[str, Any]] | None = None
        for path in (self.home.store / kind).glob(f"{name}-{'?' * SHOWN}/{MANIFEST}"):
            try:
                moment, manifest = path.stat().st_mtime, read_json(path)
                Manifest.model_validate(manifest)
            except (OSError, ValueError):
                continue  # damaged; `find` will name it when it is asked for
            if manifest["ladder"] == ladder and (newest is None or moment > newest[0]):
                newest = (moment, manifest)
        return newest[1] if newest else None

    def checkpoints(self, fingerprint: str) -> Path:
        """Folder for checkpoints of a computation that is under way."""
        return self.home.store / "checkpoints" / fingerprint[:SHOWN]

    def resumable(self, fingerprint: str) -> int | None:
        """Step of the newest checkpoint of an interrupted computation."""
        steps = checkpoint_steps(self.checkpoints(fingerprint))
        return steps[-1] if steps else None

    @contextmanager
    def lock(self, fingerprint: str) -> Iterator[None]:
        """Hold the right to compute a fingerprint; wait, and say so, while another process does."""
        with disk_errors(self.home):
            self.home.locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home.locks / f"{fingerprint[:SHOWN]}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.say(f"another process computes {fingerprint[:12]}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def lease(self, fingerprint: str, run: str) -> Iterator[None]:
        """Hold the right to compute a fingerprint among the machines that share an object store; without one, at once.

        Args:
            fingerprint: Of a result; the caller holds its lock.
            run: Which would compute it, for the others' messages.

        Raises:
            RemoteStoreError: The object store does not answer, or refuses.
        """
        if self.remote is None:
            yield
            return
        with self.remote.lease(fingerprint, run):
            yield


def _misfit(folder: Path, check: Check | None) -> str | None:
    """Why the records of a verified folder cannot be used; None: they can."""
    try:
        if check is not None:
            check(folder)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        return f"its records are not what this version of Ladder reads ({reason_of(error)})"
    return None
