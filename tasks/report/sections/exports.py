"""Section of exports: formats with size, difference, quality and speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.export import read_exports
from tasks.records.run import RunRecord
from tasks.report.export_table import HEADERS, rows, stages_of

NOTE = (
    "Each format was loaded in a process of its own and compared with its student in PyTorch, row by row: KL is the mean divergence from "
    "the student's answers, in nats, and the largest is that of all differences of a log-probability. A request is one held-out example, "
    "of a language model a prompt with its continuation; the peak is the process's memory, libraries included."
)


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The exports, once there are any."""
    exports = read_exports(record)
    if not exports:
        return None
    tables = [
        {"title": f"{stage}, {_rows(exports, stage)} held-out rows", "headers": list(HEADERS), "rows": rows(exports, stage), "words": words}
        for words in [("format", "verdict")]
        for stage in stages_of(exports)
    ]
    refused = [f"{each.stage} as {each.name} was refused: {each.refused}." for each in exports if each.refused]
    return {"heading": "Exports", "tables": tables, "note": NOTE} | ({"sentence": " ".join(refused)} if refused else {})


def _rows(exports: tuple[Any, ...], stage: str) -> str:
    return f"{next(each for each in exports if each.stage == stage).difference.rows:,}"
