"""Results in an object store: files, then a manifest that is created once.

Objects of a result are `<kind>/<fingerprint>/<attempt>/<file>` and `<kind>/<fingerprint>/manifest-<generation>.json`. A manifest names its
attempt and is never written again, so a writer that was away for long damages nothing. A result that replaces another, since that one
is damaged or was computed anew, has the next generation. See ADR 55.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from conf.atomic import write_atomic
from conf.errors import RemoteStoreError, reason_of
from conf.home import Home
from models.base.files import file_sha256, read_json
from tasks.store.fingerprint import fingerprint as hash_of
from tasks.store.manifest import MANIFEST, SHOWN
from tasks.store.remote.address import cache_bytes, lease_seconds, remote_address
from tasks.store.remote.bucket import Bucket
from tasks.store.remote.held import ATTEMPT, Held, manifest_name, parse_manifest
from tasks.store.remote.lease import Lease, leased

AT_ONCE = 4  # files that are copied at the same time
TRIES = 3  # downloads of a file whose bytes are not those of its manifest
REST_SECONDS = 60.0  # after a failure, uploads that may wait are not tried for so long


_rests_until: dict[str, float] = {}  # store and home -> moment before which nothing is uploaded, after a failure


class Remote:
    """The object store behind the local store of a home."""

    def __init__(self, bucket: Bucket, home: Home, say: Callable[[str], None]) -> None:
        self.bucket, self.say = bucket, say
        self.notes = home.remote / hashlib.sha256(str(bucket.address).encode()).hexdigest()[:12]
        self._place = f"{bucket.address} {home.root}"
        self._seen: dict[tuple[str, str], int] = {}  # newest generation, when it was looked up last
        self._is_away = False  # for plans

    @cached_property
    def hurried(self) -> Bucket:
        """The same objects, for plans: tried once."""
        return Bucket(self.bucket.address, hurried=True)

    def look(self, kind: str, fingerprint: str, bucket: Bucket | None = None) -> Held | None:
        """The newest result with this fingerprint; None: there is none.

        Raises:
            RemoteStoreError: The store does not answer, or refuses.
        """
        bucket, key = bucket or self.bucket, (kind, fingerprint[:SHOWN])
        newest, generation = None, max(self._seen.get(key, 0), 1)
        while (content := bucket.read(manifest_name(*key, generation))) is not None:
            newest, generation = content, generation + 1
        self._seen[key] = generation - 1
        return None if newest is None else parse_manifest(kind, fingerprint, generation - 1, newest)

    def fetch(self, held: Held, folder: Path, files: Iterable[str], bucket: Bucket | None = None) -> str | None:
        """Copy files of a result into a folder, verified, and write its manifest; returns the damage (None: none).

        Raises:
            OSError: The local disk is full.
            RemoteStoreError: The store does not answer, or refuses.
        """
        if held.fault is not None:
            return held.fault
        source, prefix = bucket or self.bucket, f"{held.kind}/{held.manifest['fingerprint'][:SHOWN]}/{held.attempt}"

        def copy(name: str) -> str | None:
            file, known = folder / name, held.manifest["files"][name]
            file.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(TRIES):
                if not source.download(f"{prefix}/{name}", file, known["bytes"]):
                    return f"{name} is missing"
                if file.stat().st_size == known["bytes"] and file_sha256(file) == known["sha256"]:
                    return None
            return f"{name} has other bytes than its manifest says, {TRIES} times"

        fault = next((found for found in _together(copy, files) if found), None)
        if fault is None:
            (folder / MANIFEST).write_text(json.dumps(held.manifest, indent=1), encoding="utf-8")
        return fault

    def peek(self, kind: str, fingerprint: str) -> Held | None:
        """The newest result with this fingerprint, for a plan: asked once and briefly, and no more after the store was away."""
        if self._is_away:
            return None
        try:
            return self.look(kind, fingerprint, self.hurried)
        except RemoteStoreError as error:
            self._note_absence(error)
            return None

    def fetch_records(self, held: Held) -> Path | None:
        """A folder with the small files of a result, its records among them, for a plan; None: they are damaged, or the store is away."""
        folder = self.notes / "records" / held.kind / held.folder_name
        if _is_of(folder, held):
            return folder
        temporary = folder.with_name(f"{folder.name}-{os.getpid()}-{threading.get_ident()}")
        try:
            temporary.mkdir(parents=True)
            if self.fetch(held, temporary, held.small_files, self.hurried) is not None:
                return None
            if folder.exists() and not _is_of(folder, held):  # of an older generation, or half removed
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                temporary.rename(folder)
            return folder if _is_of(folder, held) else None  # perhaps put there by another plan
        except RemoteStoreError as error:
            self._note_absence(error)
        except OSError as error:
            self.say(f"planned without a result of the object store: {reason_of(error)}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return None

    def _note_absence(self, error: RemoteStoreError) -> None:
        self._is_away = True
        self.say(f"planned without the object store: {error}")

    def publish(self, kind: str, folder: Path, manifest: dict[str, Any]) -> Held | None:
        """Upload a local result and then its manifest; returns the result that another machine published meanwhile (None: ours is in).

        Raises:
            RemoteStoreError: The store does not answer, or refuses; nothing of ours is visible there.
        """
        key, attempt = (kind, manifest["fingerprint"][:SHOWN]), secrets.token_hex(8)
        if key not in self._seen:
            self.look(kind, manifest["fingerprint"])
        generation, prefix = self._seen[key] + 1, f"{key[0]}/{key[1]}/{attempt}"
        self.learn_conditional()
        names = list(manifest["files"])
        _together(lambda name: self.bucket.upload(folder / name, f"{prefix}/{name}"), names)
        content = json.dumps({**manifest, ATTEMPT: attempt}, indent=1).encode()
        if self.bucket.create(manifest_name(*key, generation), content):
            self._seen[key] = generation
            self.note(kind, manifest)
            return None
        self.bucket.remove(*(f"{prefix}/{name}" for name in names))
        return self.look(kind, manifest["fingerprint"])

    def lease(self, fingerprint: str, run: str) -> AbstractContextManager[Lease]:
        """The lease of a fingerprint, for the time of its computation; errors as `Lease.acquire`."""
        self.learn_conditional()
        return leased(Lease(self.bucket, fingerprint, run, lease_seconds(), self.say))

    def keep(self, kind: str, folder: Path, manifest: dict[str, Any]) -> None:
        """Upload a result of this home which the object store lacks, if it can be done now; it is asked once for each result."""
        if self.is_noted(kind, manifest) or time.monotonic() < _rests_until.get(self._place, 0.0):
            return
        try:
            held = self.look(kind, manifest["fingerprint"])
            other = held if held and not held.fault else self.publish(kind, folder, manifest)
        except RemoteStoreError as error:
            self.rest(error)
            return
        if other is not None and not other.fault:
            same = other.manifest["files"] == manifest["files"]
            self.note(kind, manifest, same=same)
            if not same:
                self.say(f"{folder} stays in use, though {self.bucket.address} has another one, of {other.manifest['run']}")

    def rest(self, error: RemoteStoreError) -> None:
        """Say why nothing was uploaded, and try no upload for a while that a later run can do."""
        _rests_until[self._place] = time.monotonic() + REST_SECONDS
        self.say(f"{error} The next run that finds a result here uploads it.")

    def note(self, kind: str, manifest: dict[str, Any], *, same: bool = True) -> None:
        """Remember that the object store holds a result of this home; `same`: in these bytes."""
        place = self._note(kind, manifest)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, json.dumps({"files": hash_of(manifest["files"]), "same": same}))

    def is_noted(self, kind: str, manifest: dict[str, Any], *, same: bool = False) -> bool:
        """Whether the object store was seen to hold this result; `same`: in the bytes that this home has."""
        try:
            known = read_json(self._note(kind, manifest))
            return known["files"] == hash_of(manifest["files"]) and (known["same"] or not same)
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def _note(self, kind: str, manifest: dict[str, Any]) -> Path:
        return self.notes / "held" / f"{kind}-{manifest['fingerprint'][:SHOWN]}.json"

    def learn_conditional(self, *, anew: bool = False) -> bool:
        """Whether the store honours conditional writes, learned once a home; without them, two machines may publish one result twice."""
        place, known = self.notes / "conditional.json", None
        with suppress(OSError, ValueError):
            known = None if anew else bool(read_json(place))
        if known is None:
            known = self.bucket.creates_once()
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, json.dumps(known))
            if not known:
                self.say(f"{self.bucket.address} has no conditional writes: two machines may compute the same result twice")
        self.bucket.once = known
        return known


def _is_of(folder: Path, held: Held) -> bool:
    """Whether a folder has the records of a result, whole."""
    with suppress(OSError, ValueError):
        return read_json(folder / MANIFEST) == held.manifest
    return False


def open_remote(home: Home, say: Callable[[str], None]) -> Remote | None:
    """The object store of `LADDER_STORE`; None where it is not set.

    Raises:
        UserError: It is no address.
    """
    address = remote_address()
    return None if address is None else Remote(Bucket(address), home, say)


def require_remote(home: Home) -> None:
    """Refuse to begin where the object store of `LADDER_STORE` cannot be used.

    Raises:
        UserError: A variable is wrong, or a package is missing.
        RemoteStoreError: The store does not answer, or refuses.
    """
    remote = open_remote(home, lambda text: None)
    if remote is not None:
        lease_seconds()
        cache_bytes()
        remote.bucket.read("probe/none")


def _together(work: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, names))
