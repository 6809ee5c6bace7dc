"""Print for every command: a first line at once, then text or JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import typer


def begin(text: str) -> None:
    """Announce a command's work on standard error, before it imports heavy libraries."""
    from tasks.runtime.logs import log, show_logs

    show_logs()
    log.info("%s", text)


ADDRESS = re.compile(r"(?:https?|file)://[^\s'\"]+")


def clickable(text: str) -> str:
    """A text whose addresses a terminal opens with a click, also where it breaks them over two lines (OSC 8); elsewhere the same text."""
    if not sys.stdout.isatty():
        return text
    return ADDRESS.sub(lambda found: f"\x1b]8;;{found[0]}\x1b\\{found[0]}\x1b]8;;\x1b\\", text)


def show(document: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a document on standard output: as JSON, or as the text that `text` makes of it."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else clickable(text()))
