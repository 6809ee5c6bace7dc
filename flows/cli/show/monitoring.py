"""Text of `ladder monitor`: new windows, and the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.home import Home
from tasks.monitoring.history import PAGE, folder_of
from tasks.records.monitoring import WindowReport
from tasks.report.monitoring_page import HISTORY_HEADERS, SIGNAL_HEADERS, history_row, signal_row
from tasks.report.terminal import table_of, text_of

WORDS = ("until", "version", "diagnosis", "trigger")
SHORT = [SIGNAL_HEADERS[place] for place in (0, 1, 2, 3, 4, 6)]


def windows_text(reports: Sequence[WindowReport], home: Home) -> str:
    """Results of the windows that were judged now, as text."""
    if not reports:
        return "no new windows"
    lines: list[Any] = []
    for report in reports:
        lines += [f"{report.version}, window {report.window}: {'unusable' if report.unusable else report.diagnosis}", report.why]
        lines += [f"- {sentence}" for sentence in report.problems if sentence != report.why]
        if report.signals:
            cells = [signal_row(each) for each in report.signals.values()]
            lines.append(table_of(SHORT, [[row[place] for place in (0, 1, 2, 3, 4, 6)] for row in cells]))
        if report.trigger:
            lines.append(f"trigger: {report.cause}")
        lines.append("")
    return text_of(*lines, *_pages(reports, home), width=100, soft_wrap=True)


def history_text(reports: Sequence[WindowReport], home: Home) -> str:
    """All windows, the oldest look first, a line each."""
    if not reports:
        return "no windows yet: `ladder monitor` judges them"
    return text_of(table_of(HISTORY_HEADERS, [history_row(report) for report in reports], WORDS), "", *_pages(reports, home), width=130)


def _pages(reports: Sequence[WindowReport], home: Home) -> list[str]:
    return [f"Page: {folder_of(home, name) / PAGE}" for name in dict.fromkeys(report.name for report in reports)]
