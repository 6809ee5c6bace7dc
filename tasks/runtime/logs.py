"""Log lines on standard error and in Prefect's run logs.

Standard output stays free for `--json`. Floods and passwords are kept out of both here.
"""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import TextIO

from rich.console import Console

from conf.secrets import masked
from tasks.records.format import lines_of

console = Console(stderr=True, highlight=False)
log = logging.getLogger("ladder")

NOT_ON_TERMINAL = {"not_on_terminal": True}  # for `extra=`, where a progress bar shows the same
LINES_A_SECOND = 1.0
ONCE = {"once": True}  # for `extra=`, where a line comes once in a run: never left out
BURST = 60  # lines that may come at once; a run of short stages writes about as many


class _RateLimit(logging.Filter):
    """Passes one line a second in the long run, and every error; masks passwords in addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed, self.last, self.dropped = float(BURST), time.monotonic(), 0

    def filter(self, record: logging.LogRecord) -> bool:
        moment = time.monotonic()
        self.allowed = min(BURST, self.allowed + (moment - self.last) * LINES_A_SECOND)
        self.last = moment
        if self.allowed < 1 and record.levelno < logging.ERROR and not getattr(record, "once", False):
            self.dropped += 1
            return False
        self.allowed -= 1
        text = masked(record.getMessage())
        if self.dropped:
            text += f" (left out before this line: {self.dropped})"
            self.dropped = 0
        record.msg, record.args = text, None
        return True


log.addFilter(_RateLimit())
log.setLevel(logging.INFO)  # also for served runs, which do not call `show_logs` but fill Prefect's run logs


class _TerminalHandler(logging.Handler):
    """Prints log lines with the time, above a progress bar on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "not_on_terminal", False):
            return
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        lines = lines_of(f"{stamp} {text}", console.width) if console.is_terminal else [f"{stamp} {text}"]
        console.print("\n".join(lines), markup=False, soft_wrap=True, style=_style(record.levelno))


def _style(level: int) -> str:
    return "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""


_logged: set[str] = set()


def log_warnings() -> None:
    """Log every Python warning of a computation once in this process: numpy's, scipy's, torch's. All others are ignored.

    Where all warnings are errors, as under `python -W error`, they stay errors.
    """
    if ("error", None, Warning, None, 0) in warnings.filters:
        return
    warnings.simplefilter("ignore")
    # Not "once": Python forgets the warnings that it has shown whenever any library changes the filters for a while.
    warnings.filterwarnings("always", category=RuntimeWarning)
    warnings.filterwarnings("always", category=UserWarning, module=r"(models|torch)(\.|$)")  # torch has no category of its own
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    text = f"{category.__name__}: {' '.join(str(message).split())}"
    if text not in _logged:
        _logged.add(text)
        log.warning("%s (%s, line %d)", text, Path(filename).name, lineno, extra=ONCE)


def show_logs() -> None:
    """Print log lines on the terminal; called once, by the command line."""
    log_warnings()
    if not any(isinstance(handler, _TerminalHandler) for handler in log.handlers):
        log.addHandler(_TerminalHandler())
    log.propagate = False
    logging.raiseExceptions = False  # otherwise Prefect's handlers print an error for every line that their server does not take
