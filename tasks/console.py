"""The one terminal everything is shown on: standard error, so that standard output stays clean for `--json`."""

from __future__ import annotations

import logging
import time

from rich.console import Console

console = Console(stderr=True, highlight=False)
log = logging.getLogger("ladder")


class _Lines(logging.Handler):
    """Log lines above a moving bar on a terminal, plain lines with the time in a log."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        console.print(f"{stamp} {text}", markup=False, soft_wrap=True, style=_style(record.levelno))


def _style(level: int) -> str:
    return "red" if level >= logging.ERROR else "yellow" if level >= logging.WARNING else ""


def show_logs() -> None:
    """Show our log lines on the terminal; called once, by the command line."""
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())
    log.setLevel(logging.INFO)
    log.propagate = False
