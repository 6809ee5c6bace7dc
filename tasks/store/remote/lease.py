"""Leases: the right of a machine to compute a result; a dead one's passes on.

A lease is the object `leases/<fingerprint>/<number>`. It is created once, and only its holder writes it again, to renew it; who takes it
over creates the next number. So conditional creation is all that is asked of the store, and no clocks are compared: a waiter sees by its
own clock whether the object stays as it is for longer than the holder said. A holder that was stopped for long finds the next number. A
lease saves work, and does not protect results: those are safe by manifests that are created once.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from conf.errors import RemoteStoreError
from tasks.store.manifest import SHOWN
from tasks.store.remote.bucket import Bucket

LONGEST = 3600.0  # seconds, whatever an object says
RENEWALS = 3  # in the time of a lease
LEAST_POLL, MOST_POLL = 0.1, 5.0  # seconds between two looks at the lease of another


class Lease:
    """The lease of a fingerprint, held by this process.

    Args:
        bucket: Of the object store.
        fingerprint: Of the result that is to be computed.
        run: Which computes it, for people.
        seconds: After which it passes on unless it is renewed.
        say: Takes a line for people.
    """

    def __init__(self, bucket: Bucket, fingerprint: str, run: str, seconds: float, say: Callable[[str], None]) -> None:
        self.bucket, self.seconds, self.say = bucket, seconds, say
        self._hurried = Bucket(bucket.address, hurried=True)  # for what is tried again soon, or passes by itself
        self.short = fingerprint[:SHOWN]
        self.number = 0
        self.lost = False
        self._content: dict[str, Any] = {"run": run, "host": platform.node(), "pid": os.getpid(), "seconds": seconds}
        self._content |= {"token": secrets.token_hex(8), "renewed": 0, "released": False}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, name=f"lease-{self.short}", daemon=True)

    def acquire(self) -> None:
        """Take the lease; wait, and say so, while another machine holds it.

        Raises:
            RemoteStoreError: The store does not answer, or refuses.
        """
        number, content = self._newest(1)
        since, said = time.monotonic(), False
        while True:
            holder = _holder(content)
            if holder is None or holder["released"] or time.monotonic() - since > min(float(holder["seconds"]), LONGEST):
                self.number = number + 1
                if self.bucket.create(self._name(self.number), self._bytes()):
                    if said and holder and not holder["released"]:
                        self.say(f"{holder['run']} on {holder['host']} did not renew its lease of {self.short[:12]}; it is computed here")
                    self._thread.start()
                    return
            elif not said:
                self.say(f"{holder['run']} on {holder['host']} computes {self.short[:12]}; waiting for it")
                said = True
            if holder is not None and not holder["released"]:
                time.sleep(min(max(min(self.seconds, float(holder["seconds"])) / 10, LEAST_POLL), MOST_POLL))
            before = number, content
            number, content = self._newest(max(number, 1))
            if (number, content) != before:
                since = time.monotonic()

    def release(self) -> None:
        """Let others take it at once; where the store is away, it passes on by itself."""
        self._ended.set()
        self._thread.join()
        if not self.lost:
            self._content["released"] = True
            with suppress(RemoteStoreError):
                self._hurried.write(self._name(self.number), self._bytes())

    def _renew_until_end(self) -> None:
        renewed, said = time.monotonic(), False
        while not self._ended.wait(self.seconds / RENEWALS):
            try:
                taken = self._hurried.read(self._name(self.number + 1))
                if taken is not None:
                    self._give_up(taken)
                    return
                self._content["renewed"] += 1
                self._hurried.write(self._name(self.number), self._bytes())
                renewed, said = time.monotonic(), False
            except RemoteStoreError as error:
                if not said and time.monotonic() - renewed > self.seconds:
                    self.say(f"the lease of {self.short[:12]} cannot be renewed, and another machine may take it over: {error}")
                    said = True

    def _give_up(self, content: bytes) -> None:
        self.lost, holder = True, _holder(content)
        who = f"{holder['run']} on {holder['host']}" if holder else "another machine"
        self.say(
            f"{who} has taken over {self.short[:12]}, since this process did not renew its lease for {self.seconds:g} s; "
            "the result that is published first will be used by both"
        )

    def _newest(self, number: int) -> tuple[int, bytes | None]:
        """The highest number from this one on, and its content."""
        newest = None
        while (content := self.bucket.read(self._name(number))) is not None:
            newest, number = content, number + 1
        return number - 1, newest

    def _name(self, number: int) -> str:
        return f"leases/{self.short}/{number}"

    def _bytes(self) -> bytes:
        return json.dumps(self._content).encode()


@contextmanager
def leased(lease: Lease) -> Iterator[Lease]:
    """Hold a lease."""
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def _holder(content: bytes | None) -> dict[str, Any] | None:
    """Record of a lease's holder; None: there is none, or it is not valid."""
    try:
        found = json.loads(content or b"")
        return found if {"run", "host", "released"} <= set(found) and float(found["seconds"]) > 0 else None
    except (ValueError, TypeError, LookupError):
        return None
