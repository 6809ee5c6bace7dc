"""Section of the last student's quality on each slice, against the root's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.records.run import RunRecord
from tasks.report import tables

FEW = {
    tables.BITS.key: 1000,
    tables.ACCURACY.key: 30,
    tables.SIMILARITY.key: 30,
}  # tokens or examples below which a slice's figure is mostly chance
SHOWN = 5  # worst and best ones, above the folded whole


class SliceRow(NamedTuple):
    """One slice of the held-out data, judged for the last student and the root teacher."""

    name: str
    size: int
    student: str
    root: str
    retention: float | None
    few: bool


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The slices, the worst and the best apart where there are many."""
    rows = slice_rows(record)
    if not rows:
        return None
    folded = len(rows) > 2 * SHOWN
    return {
        "rows": rows,
        "groups": [("Least kept", rows[:SHOWN]), ("Most kept", rows[-SHOWN:])] if folded else [("", rows)],
        "folded": folded,
        "few": FEW[tables.quality_of(record).key],
    }


def slice_rows(record: RunRecord) -> list[SliceRow]:
    """The slices of the last student, the least retained first; those whose root was not judged come last."""
    if not record.stages:
        return []
    quality, last = tables.quality_of(record), record.stages[-1]
    root = record.teacher.slices if record.teacher else {}
    found = []
    for name, metrics in last.slices.items():
        count = int(metrics.get("count", 0))
        theirs = root.get(name, {})
        found.append(
            SliceRow(
                name=name,
                size=count,
                student=tables.score(quality, metrics),
                root=tables.score(quality, theirs),
                retention=_kept(quality, metrics, theirs),
                few=count < FEW[quality.key],
            )
        )
    return sorted(found, key=lambda row: (row.retention is None, row.retention or 0.0, row.name))


def _kept(quality: tables.QualityMetric, student: Mapping[str, float], root: Mapping[str, float]) -> float | None:
    if quality is tables.ACCURACY:
        return student["accuracy"] / root["accuracy"] if root.get("accuracy") and "accuracy" in student else None
    if quality is tables.SIMILARITY:
        return student.get("similarity")
    return math.exp(root["nll"] - student["nll"]) if "nll" in root and "nll" in student else None
