"""How a run is asked to stop: by a person who cancels it, or by SIGTERM or Ctrl-C. One request a process, as signals are the process's.

A training under way ends at its next step, with a checkpoint; whatever else the run does is broken off at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from conf.errors import RunCancelled

Reason = Literal["cancelled", "interrupted"]
KNOCK = signal.SIGUSR2  # from our own watching thread to the main one, where alone an exception can end what the run is doing


@dataclass
class _Request:
    """The state of the process: what is asked of the run, and what it is doing."""

    reason: Reason | None = None
    alive: bool = False  # a run is under way that nothing has ended yet
    training: bool = False  # the loop asks after each step
    cancelled: Callable[[], bool] = lambda: False  # asks Prefect's server


_request = _Request()


def requested() -> bool:
    """Whether the training under way is asked to stop; `models.training.loop.train` asks after each step."""
    return _request.reason is not None


def begin(cancelled: Callable[[], bool]) -> None:
    """A run begins: from now on it can be cancelled.

    Args:
        cancelled: Asks Prefect's server whether somebody has cancelled the run: its runner tells the process by SIGTERM alone.
    """
    global _request
    _request = _Request(alive=True, cancelled=cancelled)
    if threading.current_thread() is threading.main_thread():
        signal.signal(KNOCK, _on_knock)  # stays for the life of the process: the default would kill it


def end(error: BaseException | None) -> Reason | None:
    """The run has come to an end, by itself or by `error`; tells why it was broken off, if it was."""
    _request.alive = False
    if isinstance(error, RunCancelled):
        return "cancelled"
    if error is None or isinstance(error, Exception):
        return None
    return "cancelled" if _request.cancelled() else "interrupted"


def cancel() -> None:
    """Ask the run to stop because a person has cancelled it; called from the watching thread, again and again until it has."""
    _request.reason = "cancelled"
    listening = signal.getsignal(KNOCK) is _on_knock  # not where a flow runs outside the main thread, which nothing can break off
    if listening and _request.alive and not _request.training:
        signal.pthread_kill(threading.main_thread().ident or 0, KNOCK)


@contextmanager
def training(name: str) -> Iterator[None]:
    """While a training is under way SIGTERM and Ctrl-C, as well as a cancellation, wait for its next step; a second signal does not.

    Raises:
        RunCancelled: A person has cancelled the run.
        KeyboardInterrupt: The process was asked to end.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _on_signal) for number in (signal.SIGTERM, signal.SIGINT)} if main else {}
    _request.training = True
    stopped: RunCancelled | None = None
    try:
        yield
    except RunCancelled as error:
        stopped = error
    finally:
        _request.training = False
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped or requested():
        _break_off(f"cancelled in the training of {name}" + (f", {stopped}" if stopped else ""))


def _on_signal(number: int, frame: object) -> None:
    if _request.reason is not None:
        raise KeyboardInterrupt
    _request.reason = "interrupted"


def _on_knock(number: int, frame: object) -> None:
    if _request.alive and not _request.training:
        _break_off("cancelled")


def _break_off(text: str) -> None:
    if _request.reason == "interrupted" and not _request.cancelled():
        raise KeyboardInterrupt
    _request.alive = False
    if threading.current_thread() is threading.main_thread():
        # Prefect's runner sends SIGTERM for what we know already; it must not break into the writing of the run's end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RunCancelled(text)
