"""At most one training at a time on a machine; a dead process holds no slot."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.errors import LadderError, RunCancelled
from tasks.runtime import cancellation as stopping
from tasks.runtime import training_slots as slots
from tasks.runtime.training_slots import BusyError, slots_folder, training_slot
from tests.machine import read_line

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from tasks.runtime.training_slots import training_slot
with training_slot(int(sys.argv[1]) or None, sys.argv[2]):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
print("done", flush=True)
"""


@pytest.fixture(autouse=True)
def own_machine(calm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A temporary folder of the test's own: what else trains on this machine is not in its way."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    caplog.set_level(logging.INFO, "ladder")


@pytest.fixture
def holders() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def hold(started: list[subprocess.Popen[str]], at_once: int, run: str, seconds: float = 600) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(at_once), run, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    started.append(process)
    return process


@pytest.mark.processes
def test_the_second_waits_until_the_first_is_killed(holders: list[subprocess.Popen[str]], caplog: pytest.LogCaptureFixture) -> None:
    first = hold(holders, 1, "first-run")
    assert read_line(first) == "held"
    timer = threading.Timer(1.0, first.kill)
    timer.start()
    began = time.monotonic()
    with training_slot(1, "second-run"):
        waited = time.monotonic() - began
        assert (slots_folder() / "training-0.run").read_text() == "second-run"
    timer.join()
    print(f"took over {waited - 1.0:.2f} s after kill -9")
    assert 0.9 < waited < 5
    assert [r.getMessage() for r in caplog.records] == ["waiting for its turn: another training runs on this machine (first-run)"]
    assert not (slots_folder() / "training-0.run").exists()


@pytest.mark.processes
def test_the_error_names_the_runs_that_hold_the_slots(holders: list[subprocess.Popen[str]]) -> None:
    first = hold(holders, 1, "first-run")
    assert read_line(first) == "held"
    with (
        pytest.raises(BusyError, match=r"another training or measurement runs on this machine \(first-run\)"),
        training_slot(1, "second-run", wait=False),
    ):
        pytest.fail("it got a slot that another holds")
    with training_slot(2, "second-run", wait=False):
        pass


@pytest.mark.processes
def test_a_waiting_run_repeats_its_log_line(
    holders: list[subprocess.Popen[str]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "REMIND_SECONDS", 0.6)
    assert read_line(hold(holders, 1, "first-run", 1.5)) == "held"
    with training_slot(1, "second-run"):
        pass
    assert 2 <= len(caplog.records) <= 4


@pytest.mark.processes
def test_as_many_as_asked_for(holders: list[subprocess.Popen[str]]) -> None:
    assert read_line(hold(holders, 2, "first")) == "held"
    assert read_line(hold(holders, 2, "second")) == "held"
    third = hold(holders, 2, "third")
    unlimited = hold(holders, 0, "fourth")
    assert read_line(unlimited) == "held"
    time.sleep(1.0)
    assert not (slots_folder() / "training-2.lock").exists()
    holders[0].kill()
    assert read_line(third) == "held"


def test_threads_of_one_process_take_turns_too() -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work(index: int) -> None:
        nonlocal inside, most
        with training_slot(1, f"run-{index}"):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (inside, most) == (0, 1)


@pytest.mark.processes
def test_a_cancellation_ends_the_waiting_at_once(holders: list[subprocess.Popen[str]]) -> None:
    assert read_line(hold(holders, 1, "first-run")) == "held"
    began = time.monotonic()
    before = {number: signal.getsignal(number) for number in (stopping.CANCEL_SIGNAL, signal.SIGTERM)}
    timer = threading.Timer(0.5, stopping.cancel)
    try:
        stopping.begin(lambda: True)
        timer.start()
        with pytest.raises(RunCancelled), training_slot(1, "second-run"):
            pytest.fail("it got a slot that another holds")
        seconds = time.monotonic() - began
        assert stopping.end(RunCancelled()) == "cancelled"
    finally:
        timer.join()
        stopping.begin(lambda: False)  # no request is left for the tests that follow
        stopping.end(None)
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"ended {seconds - 0.5:.2f} s after the request")
    assert 0.4 < seconds < 2


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_at_once(holders: list[subprocess.Popen[str]], number: signal.Signals) -> None:
    assert read_line(hold(holders, 1, "first-run")) == "held"
    command = f"import signal, tempfile\nsignal.signal(signal.{number.name}, signal.default_int_handler)\nprint('ready', flush=True)\n"
    waiting = subprocess.Popen(
        [sys.executable, "-c", command + HOLD, "1", "second-run", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    holders.append(waiting)
    assert read_line(waiting) == "ready"
    time.sleep(2.0)
    began = time.monotonic()
    waiting.send_signal(number)
    out, err = waiting.communicate(timeout=30)
    seconds = time.monotonic() - began
    print(f"{number.name}: ended in {seconds:.2f} s")
    assert "KeyboardInterrupt" in err
    assert out == ""
    assert seconds < 5


def test_an_error_releases_the_slot() -> None:
    with pytest.raises(ZeroDivisionError), training_slot(1, "first"):
        raise ZeroDivisionError
    with training_slot(1, "second"):
        pass


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / f"ladder-{os.getuid()}").symlink_to(target)
    with pytest.raises(LadderError, match="is not a folder of this user"), training_slot(1, "run"):
        pass
    assert list(target.iterdir()) == []
