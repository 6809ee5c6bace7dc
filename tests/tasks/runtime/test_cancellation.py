"""Real signals stop a training at its next step, and anything else at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conf.errors import RunCancelled, RunInterrupted
from tasks.runtime import cancellation as stopping

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGALRM)


def raise_timeout(number: int, frame: object) -> None:
    raise TimeoutError


@pytest.fixture(autouse=True)
def a_run() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGTERM, raise_timeout)  # stands for Prefect's own
    stopping.begin(lambda: False)
    yield
    stopping.begin(lambda: False)  # no request is left for the tests that follow
    stopping.end(None)
    for number, handler in before.items():
        signal.signal(number, handler)


def soon(act: Callable[[], object]) -> None:
    """Do something from another thread, once this one sleeps."""
    threading.Timer(0.1, act).start()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train(*acts: Callable[[], object]) -> None:
    with stopping.training("two"):
        for act in acts:
            act()


def see_the_request() -> None:
    assert stopping.requested()


def stop() -> None:
    raise RunCancelled("at step 3 of 9")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_next_step_of_a_training(number: signal.Signals) -> None:
    steps: list[float] = []
    with pytest.raises(RunInterrupted, match=r"^interrupted in the training of two, at step 3 of 9$"):
        train(lambda: os.kill(os.getpid(), number), lambda: time.sleep(0.1), lambda: steps.append(1), see_the_request, stop)
    assert steps == [1]
    assert signal.getsignal(signal.SIGTERM) is raise_timeout


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt):
        train(terminate, terminate, lambda: pytest.fail("it waited"))


def test_a_signal_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(RunInterrupted, match=r"^interrupted in the training of two$"):
        train(terminate)


def test_the_signal_of_a_runner_is_known_as_a_cancellation() -> None:
    stopping.begin(lambda: True)
    with pytest.raises(RunCancelled, match=r"^cancelled in the training of two, at step 3 of 9$") as caught:
        train(terminate, stop)
    assert stopping.end(caught.value) == "cancelled"
    terminate()  # the runner's, late: it must not break into the writing of the end


def test_outside_a_training_a_signal_does_what_it_did_before() -> None:
    with pytest.raises(TimeoutError):
        terminate()
    assert stopping.end(KeyboardInterrupt()) == "interrupted"
    assert stopping.end(ValueError()) is None


@pytest.fixture
def handled() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopping.on_signal)


def in_the_engine(*acts: Callable[[], object]) -> None:
    with stopping.own_code(), stopping.engine_code(patience=0.1):
        for act in acts:
            act()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("act", [terminate, interrupt])
def test_a_signal_waits_for_the_end_of_the_engines_code(act: Callable[[], object]) -> None:
    done: list[str] = []
    with stopping.own_code():
        with stopping.engine_code():
            act()
            done.append("the engine's")
        with pytest.raises(KeyboardInterrupt), stopping.engine_code(), stopping.own_code():
            done.append("the next step's")
    assert done == ["the engine's"]
    assert isinstance(stopping.stopped(), RunInterrupted)
    with stopping.own_code():
        assert not stopping.requested(), "the next flow of the process"


@pytest.mark.usefixtures("handled")
def test_a_signal_interrupts_our_own_code_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stopping.own_code():
        terminate()
    stopping.begin(lambda: True)
    with pytest.raises(KeyboardInterrupt), stopping.own_code(), stopping.engine_code(), stopping.own_code():
        interrupt()
    assert type(stopping.stopped()) is RunCancelled, "the server knows of a person's request"


@pytest.mark.usefixtures("handled")
def test_an_engine_that_hangs_is_interrupted_nevertheless() -> None:
    with pytest.raises(KeyboardInterrupt):
        in_the_engine(interrupt, lambda: time.sleep(30))
    stopping.begin(lambda: False)
    with pytest.raises(KeyboardInterrupt):
        in_the_engine(interrupt, interrupt, lambda: pytest.fail("it waited"))


@pytest.mark.usefixtures("handled")
def test_a_signal_does_not_break_into_the_end_of_a_run() -> None:
    with stopping.own_code():
        stopping.end(None)
        with stopping.engine_code(patience=None):
            terminate()
            time.sleep(0.2)
            see_the_request()


def test_a_cancellation_interrupts_anything_but_a_training() -> None:
    began = time.monotonic()
    soon(stopping.cancel)
    with pytest.raises(RunCancelled, match=r"^cancelled$"):
        time.sleep(30)
    assert time.monotonic() - began < 5


def test_a_cancellation_interrupts_no_step_of_a_training() -> None:
    with pytest.raises(RunCancelled, match="at step 3"):
        train(lambda: soon(stopping.cancel), lambda: time.sleep(0.5), see_the_request, stop)


def test_nothing_is_interrupted_after_the_end() -> None:
    stopping.end(None)
    soon(stopping.cancel)
    time.sleep(0.3)


def test_a_run_outside_the_main_thread_is_asked_and_not_killed() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    thread = threading.Thread(target=stopping.begin, args=(lambda: False,))
    thread.start()
    thread.join()
    stopping.cancel()
    see_the_request()


def test_a_new_run_is_asked_for_nothing() -> None:
    with pytest.raises(RunInterrupted, match=r"^interrupted in the training of two$"):
        train(terminate)
    stopping.begin(lambda: False)
    assert not stopping.requested()
    train(lambda: None)
