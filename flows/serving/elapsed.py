"""Show the seconds of a server's start, and tell a slow start from a stuck one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tasks.records.format import duration
from tasks.runtime.logs import console, log

LINE_SECONDS = 10.0
SAMPLE_SECONDS, STUCK_SECONDS = 1.0, 60.0
LEAST_WORK = 0.5  # seconds of a processor; more than a process needs that only waits, less than one gets that computes on a busy machine
BYTES_A_SECOND = 2 * 2**20  # reading or writing so much counts as a second


class Patience:
    """Patience with starting processes: without limit while they work, however busy the machine."""

    def __init__(self, pids: Callable[[], Iterable[int]], seconds: float = STUCK_SECONDS) -> None:
        """Prepare.

        Args:
            pids: Gives the processes; while it gives none, nothing is known of them, and they are waited for.
            seconds: Time in which they must have done something.
        """
        self.pids, self.seconds = pids, seconds
        self._computed = self._done = 0.0
        self._since = self._sampled = time.monotonic()

    @property
    def work(self) -> str:
        """Work done so far, in words."""
        return f"{self._computed:.1f} s of a processor so far"

    def is_over(self) -> bool:
        """Whether they have been idle for `seconds`; checked once a second."""
        now = time.monotonic()
        if now - self._sampled < SAMPLE_SECONDS:
            return False
        self._sampled = now
        pids = list(self.pids())
        self._computed, moved = map(sum, zip((0.0, 0.0), *map(_work, pids), strict=True))
        done = self._computed + moved / BYTES_A_SECOND
        if not pids or abs(done - self._done) >= LEAST_WORK:  # less where one has ended
            self._done, self._since = done, now
        return now - self._since > self.seconds


def _work(pid: int) -> tuple[float, float]:
    """Seconds of a processor, and bytes read and written, of a process and its children; zero where it has ended."""
    import psutil

    seconds = moved = 0.0
    with suppress(psutil.Error):
        for process in (root := psutil.Process(pid), *root.children(recursive=True)):
            with suppress(psutil.Error):
                times, counts = process.cpu_times(), process.io_counters()
                seconds += times.user + times.system
                moved += counts.read_bytes + counts.write_bytes
    return seconds, moved


@contextmanager
def elapsed(what: str, detail: Callable[[], str] | None = None, line_seconds: float = LINE_SECONDS) -> Iterator[None]:
    """Log a start, count its seconds, and log its end.

    On a terminal a spinner and the time stand in the last line, until it is ready; elsewhere a log line comes from time to time.

    Args:
        what: Name of what starts.
        detail: Words for the present wait; asked for each time that something is shown.
        line_seconds: Time between two log lines.
    """
    began = time.monotonic()
    log.info("starting %s", what)

    def text(so_far: str) -> str:
        return f"{so_far} ({detail()})" if detail else so_far

    with _spinner(lambda: text(f"starting {what}")) if console.is_terminal else _lines(what, text, began, line_seconds):
        yield
    log.info("%s: ready after %s", what, duration(time.monotonic() - began))


@contextmanager
def _spinner(text: Callable[[], str]) -> Iterator[None]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(text(), total=None)
        with _repeatedly(lambda: progress.update(task, description=text()), SAMPLE_SECONDS):
            yield


@contextmanager
def _lines(what: str, text: Callable[[str], str], began: float, seconds: float) -> Iterator[None]:
    with _repeatedly(lambda: log.info("%s: %s", what, text(f"starting for {time.monotonic() - began:.0f} s")), seconds):
        yield


@contextmanager
def _repeatedly(act: Callable[[], object], seconds: float) -> Iterator[None]:
    over = threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
