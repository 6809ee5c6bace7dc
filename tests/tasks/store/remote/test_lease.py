"""Leases: one machine computes, a dead one's lease passes on, and one that was stopped overwrites nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.store.manifest import SHOWN
from tasks.store.remote.lease import Lease
from tests.machine import ROOT, kill, read_line
from tests.tasks.store.remote.conftest import Shared
from tests.tasks.store.remote.machines import MACHINE
from tests.tasks.store.results import FINGERPRINT

pytestmark = pytest.mark.processes
LEASE, PATIENT = 1.5, 5.0  # seconds; a busy machine must get to renew the second in time
NAME = f"leases/{FINGERPRINT[:SHOWN]}"


@pytest.fixture
def lease(shared: Shared) -> Callable[[str], Lease]:
    def make(run: str) -> Lease:
        return Lease(shared.bucket, FINGERPRINT, run, LEASE, shared.said.append)

    return make


@contextmanager
def machine(environment: dict[str, str], home: Path, run: str, how: str = "at once") -> Iterator[subprocess.Popen[str]]:
    variables = {**os.environ, **environment, "PYTHONPATH": str(ROOT), "LADDER_STORE_LEASE": str(PATIENT)}
    command = [sys.executable, "-c", MACHINE, str(home), run, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            kill(process)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_lease_is_held_renewed_and_let_go(lease: Callable[[str], Lease], shared: Shared, objects: Callable[[], dict[str, bytes]]) -> None:
    first = lease("one")
    first.acquire()
    began = json.loads(objects()[f"{NAME}/1"])
    assert (began["run"], began["pid"], began["renewed"], began["released"]) == ("one", os.getpid(), 0, False)
    wait_until(lambda: json.loads(objects()[f"{NAME}/1"])["renewed"] >= 2)
    first.release()
    assert json.loads(objects()[f"{NAME}/1"])["released"]
    began_second = time.monotonic()
    second = lease("two")
    second.acquire()
    assert time.monotonic() - began_second < LEASE  # it did not wait for the end of the first
    second.release()
    assert set(objects()) == {f"{NAME}/1", f"{NAME}/2"}
    assert shared.said == []


def test_a_second_one_waits_as_long_as_the_first_renews(shared: Shared) -> None:
    first, second = (Lease(shared.bucket, FINGERPRINT, run, PATIENT, shared.said.append) for run in ("one", "two"))
    entered, began = threading.Event(), time.monotonic()
    first.acquire()
    waiter = threading.Thread(target=lambda: (second.acquire(), entered.set()))
    waiter.start()
    wait_until(lambda: time.monotonic() - began > 1.2 * PATIENT and first._content["renewed"] > 2)
    assert not entered.is_set()
    assert [line.partition(" on ")[0] for line in shared.said] == ["one"]
    assert shared.said[0].endswith(f"computes {FINGERPRINT[:12]}; waiting for it")
    first.release()
    assert entered.wait(60)
    second.release()
    waiter.join()


def test_one_of_many_gets_a_lease_that_is_free(lease: Callable[[str], Lease]) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work(name: str) -> None:
        nonlocal inside, most
        mine = lease(name)
        mine.acquire()
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        with lock:
            inside -= 1
        mine.release()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_a_lease_that_nobody_renews_passes_on_whatever_the_clocks_say(lease: Callable[[str], Lease], shared: Shared) -> None:
    dead = {"run": "dead", "host": "far", "pid": 1, "seconds": LEASE, "token": "x", "renewed": 7, "released": False}
    shared.bucket.write(f"{NAME}/1", json.dumps(dead).encode())
    began, mine = time.monotonic(), lease("alive")
    mine.acquire()
    assert time.monotonic() - began > LEASE
    mine.release()
    assert mine.number == 2
    assert [line.partition(",")[0] for line in shared.said] == [
        f"dead on far computes {FINGERPRINT[:12]}; waiting for it",
        "dead on far did not renew its lease of " + FINGERPRINT[:12] + "; it is computed here",
    ]


def test_a_holder_that_lost_its_lease_says_so_and_leaves_it(lease: Callable[[str], Lease], shared: Shared) -> None:
    mine = lease("slow")
    mine.acquire()
    taken = {"run": "fast", "host": "far", "pid": 1, "seconds": 60, "token": "x", "renewed": 0, "released": False}
    shared.bucket.write(f"{NAME}/2", json.dumps(taken).encode())
    wait_until(lambda: mine.lost)
    assert shared.said[0].startswith(f"fast on far has taken over {FINGERPRINT[:12]}")
    mine.release()
    assert json.loads(shared.bucket.read(f"{NAME}/2") or b"")["run"] == "fast"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"seconds": "x"}', b"\xff"])
def test_a_lease_that_cannot_be_read_holds_nobody_up(lease: Callable[[str], Lease], shared: Shared, content: bytes) -> None:
    shared.bucket.write(f"{NAME}/1", content)
    mine = lease("one")
    mine.acquire()
    assert mine.number == 2
    mine.release()


def test_the_lease_of_a_killed_machine_passes_on_and_others_take_the_result(environment: dict[str, str], tmp_path: Path) -> None:
    with machine(environment, tmp_path / "a", "run-a", "wait") as first:
        assert read_line(first) == "computing"
        with machine(environment, tmp_path / "b", "run-b", "wait") as second:
            assert read_line(second).startswith("run-a on ")
            kill(first)
            assert "did not renew its lease" in read_line(second)
            assert read_line(second) == "computing"
            with machine(environment, tmp_path / "c", "run-c") as third:
                assert read_line(third).startswith("run-b on ")
                (tmp_path / "b.go").touch()
                assert read_line(second) == "made run-b"
                assert read_line(third) == "reused run-b"


def test_a_machine_that_was_stopped_does_not_overwrite(
    environment: dict[str, str], tmp_path: Path, objects: Callable[[], dict[str, bytes]]
) -> None:
    with machine(environment, tmp_path / "a", "run-a", "wait") as first:
        assert read_line(first) == "computing"
        first.send_signal(signal.SIGSTOP)
        with machine(environment, tmp_path / "b", "run-b") as second:
            lines = [read_line(second) for _ in range(4)]
        assert lines[0].startswith("run-a on ")
        assert "did not renew its lease" in lines[1]
        assert lines[2:] == ["computing", "made run-b"]
        before = objects()
        (tmp_path / "a.go").touch()
        first.send_signal(signal.SIGCONT)
        lines = [read_line(first), read_line(first)]
        while not lines[-1].startswith(("made", "reused")):
            lines.append(read_line(first))
    assert lines[-1] == "reused run-b"
    assert any("run-b has published it first" in line for line in lines)
    stage = {name: content for name, content in objects().items() if name.startswith("stage/")}
    assert stage == {name: content for name, content in before.items() if name.startswith("stage/")}
