"""Section of training costs, model by model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tasks.records import format as fmt
from tasks.records.run import RunRecord, StageRecord
from tasks.report import tables
from tasks.report.sections.outcome import ROWS

COLUMNS = ("model", "steps", "tokens", "FLOPs", "speed", "time", "origin")
NOTE = Markup("FLOPs include the teacher's forward passes. Time is that of training, over all attempts of a resumed model.")


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The costs, once there are any."""
    if not record.models:
        return None
    unit = ROWS[tables.quality_of(record).key]
    headers = {"tokens": unit, "speed": f"{unit}/s"}
    rows = [[line[key] for key in COLUMNS] for line in costs(record)]
    return {
        "heading": "Cost",
        "tables": [{"headers": [headers.get(key, key) for key in COLUMNS], "rows": rows, "words": ("model", "origin"), "sums": 2}],
        "note": NOTE,
    }


def costs(record: RunRecord) -> list[dict[str, str]]:
    """Costs of each model, and last two sums: of the computed models, and of the reused ones."""

    def line(name: str, models: list[StageRecord], note: str = "", extra: float = 0.0) -> dict[str, str]:
        spent, tokens = sum(model.seconds for model in models), sum(model.tokens for model in models)
        return {
            "model": name,
            "steps": f"{sum(model.steps for model in models):,}",
            "tokens": fmt.human(tokens),
            "FLOPs": fmt.operations(sum(model.flops for model in models)),
            "speed": fmt.rate(tokens / spent) if spent and tokens else fmt.NONE,
            "time": fmt.duration(spent + extra),
            "origin": note,
        }

    done = record.models
    lines = [line(model.name, [model], tables.origin(model)) for model in done]
    data = record.data
    if data:
        lines.insert(0, {**dict.fromkeys(("steps", "tokens", "FLOPs", "speed"), fmt.NONE), "model": "data"})
        lines[0] |= {"time": fmt.duration(data.seconds), "origin": "reused" if data.reused else "computed"}
    if lines:
        for label, reused in (("computed in this run", False), ("reused", True)):
            extra = data.seconds if data and data.reused is reused else 0.0
            lines.append(line(f"Sum {label}", [model for model in done if model.reused is reused], extra=extra))
    return lines
