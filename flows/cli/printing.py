"""Print for every command: a first line at once, then text or JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer


def begin(text: str) -> None:
    """Announce a command's work on standard error, before it imports heavy libraries."""
    from tasks.runtime.logs import log, show_logs

    show_logs()
    log.info("%s", text)


ADDRESS = re.compile(r"(?:https?|file)://[^\s'\"]+|(?<!\S)/[^\s'\"]+")


def clickable(text: str) -> str:
    """A text whose addresses and files a terminal opens with a click, also where it breaks them over two lines; elsewhere the same text.

    By the control sequence OSC 8, which a terminal that calls itself dumb does not know.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return ADDRESS.sub(lambda found: _link(found[0]), text)


def _link(address: str) -> str:
    place = address
    if address.startswith("/"):
        if not Path(address).exists():
            return address
        place = Path(address).as_uri()
    return f"\x1b]8;;{place}\x1b\\{address}\x1b]8;;\x1b\\"


def show(document: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a document on standard output: as JSON, or as the text that `text` makes of it."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else clickable(text()))
