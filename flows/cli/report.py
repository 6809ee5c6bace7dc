"""`ladder report` and `ladder compare`: pages written again from the records, without computing anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.report.compare import RunComparison

WIDTH = 80


def report(run: Annotated[str | None, typer.Argument(help="Run, as `ladder runs` shows it; none: the last.")] = None) -> None:
    """Write a run's report.html again from its record, however the run has ended."""
    from conf.home import home
    from tasks.report.rebuild import rebuild_report

    typer.echo(rebuild_report(home(), run))


def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="Run, as `ladder runs` shows it.")],
    b: Annotated[str, typer.Argument(metavar="RUN", help="Run that is compared with it.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Put two runs side by side: settings that differ, and each model's quality and cost."""
    from conf.home import home
    from tasks.report.rebuild import compare as compare_pages

    found, path = compare_pages(home(), a, b)
    if as_json:
        typer.echo(json.dumps({**found.model_dump(mode="json"), "page": str(path)}, indent=1, ensure_ascii=False))
    else:
        typer.echo(f"{comparison_text(found)}\n\nPage: {path}")


def comparison_text(found: RunComparison) -> str:
    """The comparison for a terminal of 80 columns."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("model", overflow="fold", max_width=22)
    table.add_column("figure", no_wrap=True)
    for header in ("A", "B", "B against A"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for pair in found.models:
        for i, figure in enumerate(pair.told):
            cells = ["" if i else f"{pair.name}{pair.note}", figure.name, *figure.shown, figure.direction or ""]
            table.add_row(*map(Text, cells), end_section=i == len(pair.told) - 1)
    settings = [f"  {line}" for line in found.settings] or ["  none"]
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH, highlight=False)
    lines = [f"A: {found.a.run} ({found.a.status})", f"B: {found.b.run} ({found.b.status})", "", "Settings that differ:", *settings, ""]
    for part in (*lines, table, "", *(f"note: {note}" for note in found.notes)):
        console.print(part, markup=False)
    return buffer.getvalue().rstrip()
