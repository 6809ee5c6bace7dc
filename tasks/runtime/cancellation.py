"""Stop a run: cancelled by a person, or by SIGTERM or Ctrl-C.

One request per process, since signals belong to the process. A training under way ends at its next step, with a checkpoint. Prefect's
engine, which would record a crash, and the end of a run go on until our own code is next; anything else is interrupted at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from conf.errors import RunCancelled, RunInterrupted

Reason = Literal["cancelled", "interrupted"]
ENGINE_SECONDS = 5.0  # a signal waits no longer for Prefect's engine, which may wait for a server
CANCEL_SIGNAL = signal.SIGUSR2  # from the watcher's thread to the main thread, the only one that an exception can interrupt


@dataclass
class _Request:
    """State of the process: the request to stop, and the run's phase."""

    reason: Reason | None = None
    alive: bool = False  # a run is under way and not yet interrupted
    ended: bool = False  # the run ended by a request
    signals: int = 0  # SIGTERM and Ctrl-C
    training: bool = False  # the loop calls `requested` after each step
    cancelled: Callable[[], bool] = lambda: False  # asks Prefect's server


@dataclass
class _Main:
    """Kind of code that the main thread executes."""

    own: bool = False  # ours, and not that of Prefect's engine
    patience: float | None = ENGINE_SECONDS  # after which a signal interrupts code that is not ours; None: never


_request = _Request()
_OUTSIDE = _Main()
_main = _OUTSIDE


def requested() -> bool:
    """Whether the training under way shall stop; `models.training.loop.train` calls it after each step."""
    return _request.reason is not None


def ends_the_run() -> bool:
    """Whether the run was asked to stop, or has ended by that: an error of Prefect's engine that came after is not why."""
    return requested() or _request.ended


def begin(cancelled: Callable[[], bool]) -> None:
    """Begin a run, which can be cancelled from now on.

    Args:
        cancelled: Asks Prefect's server whether a person has cancelled the run; its runner sends the process only a SIGTERM.
    """
    global _request
    _request = _Request(alive=True, cancelled=cancelled)
    if _in_main_thread():
        signal.signal(CANCEL_SIGNAL, _on_cancel)  # until the process ends: the default handler would kill it


def end(error: BaseException | None) -> Reason | None:
    """End the run, finished or failed with `error`; returns why it was interrupted, if it was."""
    _request.alive = False
    if isinstance(error, RunCancelled):
        _request.ended = True
        return "interrupted" if isinstance(error, RunInterrupted) else "cancelled"
    if error is None or isinstance(error, Exception):
        return None
    return "cancelled" if _request.cancelled() else "interrupted"


def stopped() -> RunCancelled:
    """The error in place of a KeyboardInterrupt: a person has cancelled the run, or the process got SIGTERM or Ctrl-C."""
    return RunCancelled("cancelled") if _request.cancelled() else RunInterrupted("interrupted")


@contextmanager
def own_code() -> Iterator[None]:
    """Code of ours, within code of Prefect's engine: a signal interrupts it, also one that came before.

    Raises:
        KeyboardInterrupt: The process got SIGTERM or Ctrl-C.
    """
    if not _in_main_thread():
        yield
        return
    outermost = _main is _OUTSIDE
    try:
        with _code(own=True, patience=None):
            if _request.reason == "interrupted":
                raise KeyboardInterrupt
            yield
    finally:
        if outermost:  # the next flow of this process is asked for nothing
            _request.reason, _request.signals = None, 0


@contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C wait for code of ours, as SIGTERM does in Prefect's engine."""
    before = signal.signal(signal.SIGINT, on_signal) if _in_main_thread() else None
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def engine_code(patience: float | None = ENGINE_SECONDS) -> Iterator[None]:
    """Code of Prefect's engine, within ours: a signal waits for the next code of ours.

    Args:
        patience: Seconds for which it waits; None: any time. A second signal does not wait.
    """
    with _code(own=False, patience=patience):
        yield


@contextmanager
def _code(own: bool, patience: float | None) -> Iterator[None]:
    global _main
    if not _in_main_thread():
        yield
        return
    before, _main = _main, _Main(own, patience)
    try:
        yield
    finally:
        _main = before


def on_signal(number: int, frame: object) -> None:
    """Handle SIGTERM or Ctrl-C.

    Raises:
        KeyboardInterrupt: It is the second one, or interrupts code of ours that is no training.
    """
    _request.signals += 1
    waits = _request.training or not _main.own
    if _request.signals > 1 or not waits:
        raise KeyboardInterrupt
    _request.reason = _request.reason or "interrupted"
    if not _request.training and _main.patience is not None:
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_REAL, _main.patience)


def _on_alarm(number: int, frame: object) -> None:
    if not (_main.own or _main.patience is None):
        raise KeyboardInterrupt


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


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
        RunInterrupted: The process got SIGTERM or Ctrl-C.
    """
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)} if _in_main_thread() else {}
    _request.training = True
    ended: RunCancelled | None = None
    try:
        yield
    except RunCancelled as error:
        ended = error
    finally:
        _request.training = False
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended or requested():
        _interrupt(f" in the training of {name}" + (f", {ended}" if ended else ""))


def _on_cancel(number: int, frame: object) -> None:
    if _request.alive and not _request.training:
        _interrupt("")


def _interrupt(where: str) -> None:
    if _request.reason == "interrupted" and not _request.cancelled():
        raise RunInterrupted(f"interrupted{where}")
    _request.alive = False
    if _in_main_thread():
        # Prefect's runner sends SIGTERM for the same cancellation; it must not interrupt the recording of the run's end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise RunCancelled(f"cancelled{where}")
