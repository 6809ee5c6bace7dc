"""Show the seconds that pass while a server starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tasks.records.format import duration
from tasks.runtime.logs import console, log

LINE_SECONDS = 10.0


@contextmanager
def elapsed(what: str, line_seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Say that something starts, count its seconds, and say when it is ready.

    On a terminal a spinner and the time stand in the last line, until it is ready; elsewhere a log line comes from time to time.

    Args:
        what: Name of what starts.
        line_seconds: Time between two log lines.
    """
    began = time.monotonic()
    log.info("starting %s", what)
    with _spinner(what) if console.is_terminal else _lines(what, began, line_seconds):
        yield
    log.info("%s: ready after %s", what, duration(time.monotonic() - began))


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(f"starting {what}", total=None)
        yield


@contextmanager
def _lines(what: str, began: float, seconds: float) -> Iterator[None]:
    over = threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            log.info("%s: starting for %.0f s", what, time.monotonic() - began)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
