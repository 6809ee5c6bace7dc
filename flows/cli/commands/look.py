"""`ladder runs`, `show`, `report` and `compare`: read the records of runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.cli import printing
from flows.cli.arguments import Json, LastRun, RunName, complete_run


class RunStatus(StrEnum):
    """The ends of a run, by which `ladder runs` selects."""

    running = "running"
    done = "done"
    failed = "failed"
    stopped = "stopped"
    interrupted = "interrupted"
    cancelled = "cancelled"
    unreadable = "unreadable"


def runs(
    ladder: Annotated[str | None, typer.Option("--ladder", metavar="NAME", help="Only runs of this ladder.")] = None,
    status: Annotated[list[RunStatus] | None, typer.Option("--status", help="Only runs that ended so; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest.")] = None,
    as_json: Json = False,
) -> None:
    """List the runs of this home, the newest first: kind, quality, share of the root's, cost, and below it its differences."""
    from conf.home import home
    from flows.cli.show.runs import run_row, runs_text, unreadable_row
    from tasks.runtime.runs.run_registry import list_runs, unreadable_runs

    records = list_runs(home())
    found = [*map(run_row, records), *map(unreadable_row, unreadable_runs(home(), records))]
    rows = sorted(found, key=lambda row: row["started"], reverse=True)
    chosen = [row for row in rows if (ladder is None or row["ladder"] == ladder) and (not status or row["status"] in status)][:limit]
    none = None if chosen or not rows else f"none of the {len(rows)} runs is so"
    printing.show(chosen, as_json, lambda: none or runs_text(chosen))


def show(run: LastRun = None, as_json: Json = False) -> None:
    """Show a run: its models, their quality and their folders."""
    from conf.home import home
    from flows.cli.show.runs import show_json, show_text
    from tasks.runtime.runs.run_registry import load_run

    record = load_run(home(), run)
    printing.show(show_json(record), as_json, lambda: show_text(record))


def report(run: LastRun = None) -> None:
    """Write a run's report.html again from its record, however the run ended."""
    from conf.home import home
    from tasks.runtime.runs.run_registry import load_run

    record = load_run(home(), run)
    printing.begin(f"{record.run}: writing its report; loading matplotlib")
    from tasks.report.rebuild import rebuild_report

    typer.echo(rebuild_report(home(), record.run))


def compare(
    a: RunName,
    b: Annotated[str, typer.Argument(metavar="RUN", help="Run that is compared with it.", autocompletion=complete_run)],
    as_json: Json = False,
) -> None:
    """Compare two runs: settings that differ, and each model's quality and cost."""
    from conf.home import home
    from tasks.report.comparison.text import comparison_text
    from tasks.report.rebuild import compare as compare_pages

    comparison, path = compare_pages(home(), a, b)
    document = {**comparison.model_dump(mode="json"), "page": str(path)}
    printing.show(document, as_json, lambda: f"{comparison_text(comparison)}\n\nPage: {path}")
