"""Print for every command: a first line at once, then text or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

WIDTH, WIDE = 80, 100  # columns


def begin(text: str) -> None:
    """Say on standard error what a command is about to do, before it imports what takes seconds."""
    from tasks.runtime.logs import log, show_logs

    show_logs()
    log.info("%s", text)


def show(document: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a document on standard output: as JSON, or as the text that `text` makes of it."""
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text())


def text_of(*renderables: Any, width: int = WIDTH, soft_wrap: bool = False) -> str:
    """Tables and sentences as plain text, no wider than `width`; with `soft_wrap` sentences stay on one line."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, highlight=False)
    for renderable in renderables:
        console.print(renderable, markup=False, soft_wrap=soft_wrap and isinstance(renderable, str))
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def table_of(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> Table:
    """A table whose first column, and those named in `left`, hold text and whose others hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="right" if place and header not in left else "left", overflow="fold", no_wrap=bool(place))
    for row in rows:
        table.add_row(*row)
    return table
