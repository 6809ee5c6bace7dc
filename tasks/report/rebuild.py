"""Rewrite pages from records: the report of a run, the comparison of two."""

from __future__ import annotations

from pathlib import Path

from conf.home import Home
from tasks.records.run import RunRecord
from tasks.report.comparison.compare import RunComparison, compare_runs
from tasks.report.comparison.page import write_comparison
from tasks.report.page import write_report
from tasks.report.plots.kept import keeping
from tasks.runtime.runs.run_registry import load_run


def rebuild_report(home: Home, run: str | None) -> Path:
    """Write the report of a run, or of the last one, from its record, however the run has ended.

    Raises:
        UserError: There is no such run.
        StoreError: The report could not be written.
    """
    record = load_run(home, run)
    with keeping(home.figures):
        return write_report(record, settings_of(home, record), home.runs / record.run)


def settings_of(home: Home, record: RunRecord) -> str:
    """The resolved settings of a run, as it keeps them."""
    path = home.runs / record.run / "ladder.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else "# not kept\n"


def compare(home: Home, a: str, b: str) -> tuple[RunComparison, Path]:
    """Compare two runs and write the page.

    Raises:
        UserError: There is no such run, they are the same, or their models are judged by different things.
        StoreError: The page could not be written.
    """
    records = load_run(home, a), load_run(home, b)
    found = compare_runs(*records)
    return found, write_comparison(found, *records)
