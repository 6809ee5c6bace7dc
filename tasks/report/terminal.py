"""Tables and sentences as plain text for a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.records.format import lines_of

if TYPE_CHECKING:
    from rich.table import Table

WIDTH, WIDE = 80, 100  # columns


def text_of(*renderables: Any, width: int = WIDTH, soft_wrap: bool = False) -> str:
    """Tables and sentences as plain text, no wider than `width`; with `soft_wrap` sentences are lines, but on a terminal."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, highlight=False)
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for renderable in renderables:
        text = "\n".join(lines_of(renderable, terminal)) if terminal and soft_wrap and isinstance(renderable, str) else renderable
        console.print(text, markup=False, soft_wrap=soft_wrap and isinstance(renderable, str))
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
