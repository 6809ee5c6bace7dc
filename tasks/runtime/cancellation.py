"""Stop a run: cancelled by a person, or by SIGTERM or Ctrl-C.

One request per process, since signals belong to the process. A training under way ends at its next step, with a checkpoint; anything
else is interrupted at once.
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
CANCEL_SIGNAL = signal.SIGUSR2  # from the watcher's thread to the main thread, the only one that an exception can interrupt


@dataclass
class _Request:
    """State of the process: the request to stop, and the run's phase."""

    reason: Reason | None = None
    alive: bool = False  # a run is under way and not yet interrupted
    training: bool = False  # the loop calls `requested` after each step
    cancelled: Callable[[], bool] = lambda: False  # asks Prefect's server


_request = _Request()


def requested() -> bool:
    """Whether the training under way shall stop; `models.training.loop.train` calls it after each step."""
    return _request.reason is not None


def begin(cancelled: Callable[[], bool]) -> None:
    """Begin a run, which can be cancelled from now on.

    Args:
        cancelled: Asks Prefect's server whether a person has cancelled the run; its runner sends the process only a SIGTERM.
    """
    global _request
    _request = _Request(alive=True, cancelled=cancelled)
    if threading.current_thread() is threading.main_thread():
        signal.signal(CANCEL_SIGNAL, _on_cancel)  # until the process ends: the default handler would kill it


def end(error: BaseException | None) -> Reason | None:
    """End the run, finished or failed with `error`; returns why it was interrupted, if it was."""
    _request.alive = False
    if isinstance(error, RunCancelled):
        return "cancelled"
    if error is None or isinstance(error, Exception):
        return None
    return "cancelled" if _request.cancelled() else "interrupted"


def cancel() -> None:
    """Stop the run because a person has cancelled it; called from the watcher's thread at every poll until it has stopped."""
    _request.reason = "cancelled"
    listening = signal.getsignal(CANCEL_SIGNAL) is _on_cancel  # not where a flow runs outside the main thread, which nothing can interrupt
    if listening and _request.alive and not _request.training:
        signal.pthread_kill(threading.main_thread().ident or 0, CANCEL_SIGNAL)


@contextmanager
def training(name: str) -> Iterator[None]:
    """Delay SIGTERM, Ctrl-C and a cancellation until the training's next step; a second signal interrupts at once.

    Raises:
        RunCancelled: A person has cancelled the run.
        KeyboardInterrupt: The process got SIGTERM or Ctrl-C.
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
        _interrupt(f"cancelled in the training of {name}" + (f", {stopped}" if stopped else ""))


def _on_signal(number: int, frame: object) -> None:
    if _request.reason is not None:
        raise KeyboardInterrupt
    _request.reason = "interrupted"


def _on_cancel(number: int, frame: object) -> None:
    if _request.alive and not _request.training:
        _interrupt("cancelled")


def _interrupt(text: str) -> None:
    if _request.reason == "interrupted" and not _request.cancelled():
        raise KeyboardInterrupt
    _request.alive = False
    if threading.current_thread() is threading.main_thread():
        # Prefect's runner sends SIGTERM for the same cancellation; it must not interrupt the recording of the run's end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RunCancelled(text)
