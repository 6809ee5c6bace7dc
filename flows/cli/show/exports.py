"""Text of `ladder export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.records.export import ExportRecord
from tasks.report.export_table import HEADERS, rows, stages_of
from tasks.report.terminal import WIDE, table_of, text_of


def exports_text(exports: Sequence[ExportRecord], to: Path | None) -> str:
    """The table of each student's exports, and where they are."""
    lines: list[Any] = []
    for stage in stages_of(exports):
        own = [each for each in exports if each.stage == stage]
        lines.append(f"{stage}, {own[0].difference.rows:,} held-out rows; {own[0].machine}")
        lines.append(table_of(HEADERS, rows(exports, stage), ("verdict",)))
    lines.append("")
    for each in (each for each in exports if not each.refused):
        place = each.folder if to is None else str(to if len(exports) == 1 else to / each.name)
        lines.append(f"{each.name}: {place}{' (found in the store)' if each.reused else ''}")
    return text_of(*lines, width=WIDE + 20, soft_wrap=True)
