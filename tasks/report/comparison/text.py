"""Text of `ladder compare`, within 80 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tasks.report.comparison.compare import RunComparison
from tasks.report.terminal import text_of


def comparison_text(comparison: RunComparison) -> str:
    """Both runs, the settings that differ, and the figures of every model."""
    a, b = comparison.a, comparison.b
    settings = [f"  {line}" for line in comparison.settings] or ["  none"]
    lines = [f"A: {a.run} ({a.status})", f"B: {b.run} ({b.status})", "", "Settings that differ:", *settings, ""]
    return text_of(*lines, _figures(comparison), "", *(f"note: {note}" for note in comparison.notes))


def _figures(comparison: RunComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("model", overflow="fold", max_width=22)
    table.add_column("figure", no_wrap=True)
    for header in ("A", "B", "B against A"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for pair in comparison.models:
        for i, figure in enumerate(pair.told):
            cells = ["" if i else f"{pair.name}{pair.note}", figure.name, *figure.shown, figure.direction or ""]
            table.add_row(*map(Text, cells), end_section=i == len(pair.told) - 1)
    return table
