"""Section of the model table and the verdicts of the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.run import RunRecord
from tasks.report import tables
from tasks.report.plots.style import looks

REASONS = 6  # gates whose reasons are shown at once


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """Every model of the run, done or not, with the key of its colour."""
    headers, rows = tables.rows(record)
    models = record.models
    keys = [look.variable for look in looks(len(models))] + [None] * (len(rows) - len(models))
    judged = [model for model in models if model.gate_reasons]
    return {"headers": headers, "rows": list(zip(keys, rows, strict=True)), "judged": judged, "folded": len(judged) > REASONS}
