"""Dead runs are found by their locks; with real runs: tests/flows/test_crash.py."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from conf.home import Home
from tasks.lifecycle import dead_runs as reap
from tasks.lifecycle.dead_runs import attempt_of, restart_dead
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import ask_to_end, lock_path
from tasks.runtime.runs.run_registry import DIED, all_runs, note_restart, save, unfinished
from tests.factories import run_record

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
ALIVE = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.lifecycle.dead_runs import claim
from tasks.records.run import RunRecord
from tasks.runtime.runs.run_lock import RunLock
from tasks.runtime.runs.run_registry import save
home, record = Home(Path(sys.argv[1])), RunRecord.model_validate_json(sys.argv[2])
claim(home, record.prefect_run_id)
claim(home, record.prefect_run_id)  # a flow that is retried in its process
lock = RunLock(home, record.run)
lock.take()
save(home, record)
print("alive", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        yield


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def running(home: Home, **changed: object) -> RunRecord:
    own = {"folder": str(home.runs / "tiny-1"), "pid": os.getpid(), "prefect_run_id": str(uuid.uuid4())}
    return run_record(**{"status": "running", "planned": ("a", "b"), **own, **changed})


@contextmanager
def run(home: Home, record: RunRecord) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", ALIVE, str(home.root), record.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "alive\n"
            yield process
        finally:
            process.kill()


def test_a_living_run_is_left_alone_and_a_dead_one_is_marked_once(home: Home) -> None:
    record = running(home)
    with run(home, record) as process:
        assert reap.reap(home) == []
        assert all_runs(home)[0].status == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        (dead,) = reap.reap(home)
    assert (dead.run, dead.status, dead.error) == ("tiny-1", "interrupted", DIED)
    assert '"status": "interrupted"' in (home.runs / "tiny-1" / "record.json").read_text()
    assert reap.reap(home) == []
    assert unfinished(home, record.settings_hash, None, False) == dead


def test_a_restart_is_noted_unless_the_run_is_continued_by_now(home: Home) -> None:
    record = running(home)
    with run(home, record):
        note_restart(home, record.run, "x")
        assert all_runs(home)[0].restarted is None
    note_restart(home, record.run, "x")
    assert all_runs(home)[0].restarted is None, "its death is not written down"
    reap.reap(home)
    note_restart(home, record.run, "x")
    assert all_runs(home)[0].restarted == "x"


def test_only_the_process_that_holds_the_lock_of_a_run_is_asked_to_end(home: Home) -> None:
    record = running(home)
    with run(home, record) as process, subprocess.Popen(["sleep", "600"]) as other:
        try:
            assert not ask_to_end(home, record.model_copy(update={"pid": other.pid})), "another's process, under the number of the run"
            ended = subprocess.Popen(["true"])
            ended.wait()
            assert not ask_to_end(home, record.model_copy(update={"pid": ended.pid})), "none has the number any more"
            assert (process.poll(), other.poll()) == (None, None)
            assert ask_to_end(home, record.model_copy(update={"pid": process.pid}))
            assert process.wait(10) == -signal.SIGTERM
            descriptor = os.open(lock_path(home, record.run), os.O_RDWR)
            assert not ask_to_end(home, record), "it has the file open, and nobody holds the lock"
            os.close(descriptor)
        finally:
            other.kill()


def test_a_claim_stays_while_the_server_does_not_answer(home: Home) -> None:
    record = running(home)
    with run(home, record):
        pass
    assert len(reap.reap(home)) == 1
    assert [path.name for path in home.locks.glob("flow-*")] == [f"flow-{record.prefect_run_id}.lock"]


def test_it_costs_next_to_nothing_without_dead_runs(home: Home) -> None:
    for number in range(100):
        save(home, running(home, run=f"tiny-{number}", status="done"))
    began = time.monotonic()
    assert reap.reap(home) == []
    assert time.monotonic() - began < 1.0
    assert not home.locks.exists(), "it asks for no lock, and no server"


def test_attempts_are_counted_by_the_tag_of_the_restart() -> None:
    assert attempt_of([]) == attempt_of({"ladder:tiny", "restart:x"}) == 1
    assert attempt_of(["restart:1", "ladder:tiny"]) == 2
    assert attempt_of(["restart:1", "restart:12"]) == 13


DEAD = {"status": "interrupted", "error": DIED, "restarts": 2}


@pytest.mark.parametrize(
    "changed",
    [
        {"restarts": 0},
        {"attempt": 3},
        {"restarted": str(uuid.uuid4())},
        {"error": "interrupted in the training of two"},
        {"status": "failed"},
        {"prefect_run_id": None},
    ],
)
def test_the_record_says_that_a_run_is_not_to_be_restarted(
    home: Home, changed: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    save(home, running(home, **{**DEAD, **changed}))
    log = logging.getLogger("ladder")
    log.addHandler(caplog.handler)
    try:
        assert restart_dead(home) == []
        assert caplog.messages == [], "it asks the server for nothing, which would not answer here"
        save(home, running(home, run="tiny-2", **DEAD))
        assert restart_dead(home) == []
        assert "cannot be restarted yet" in caplog.text
    finally:
        log.removeHandler(caplog.handler)
    assert next(record for record in all_runs(home) if record.run == "tiny-2").restarted is None, "the next call tries again"
