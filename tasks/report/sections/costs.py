"""Section of training costs, model by model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tasks.records import format as fmt
from tasks.records.choice.route import PilotRecord, is_found
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
    """Costs of each model and of the pilots of a route, and last two sums: of what was computed, and of what was reused."""

    def line(
        name: str, models: list[StageRecord], note: str = "", extra: float = 0.0, pilots: Sequence[PilotRecord] = ()
    ) -> dict[str, str]:
        spent, tokens = sum(model.seconds for model in models), sum(model.tokens for model in models)
        extra += sum(pilot.seconds for pilot in pilots)
        return {
            "model": name,
            "steps": f"{sum(model.steps for model in models) + sum(sum(pilot.steps) for pilot in pilots):,}",
            "tokens": fmt.human(tokens) if models or not pilots else fmt.NONE,
            "FLOPs": fmt.operations(sum(each.flops for each in (*models, *pilots))),
            "speed": fmt.rate(tokens / spent) if spent and tokens else fmt.NONE,
            "time": fmt.duration(spent + extra),
            "origin": note,
        }

    done, piloted = record.models, record.route.pilots if record.route else []
    lines = [line(model.name, [model], tables.origin(model)) for model in done]
    data = record.data
    if data:
        lines.insert(0, {**dict.fromkeys(("steps", "tokens", "FLOPs", "speed"), fmt.NONE), "model": "data"})
        lines[0] |= {"time": fmt.duration(data.seconds), "origin": "reused" if data.reused else "computed"}
    if piloted:
        place = min(len(lines), 1 + bool(data))  # after the teacher
        lines.insert(place, line("pilots", [], f"of {len(piloted)} pilots, {sum(map(is_found, piloted))} reused", pilots=piloted))
    if lines:
        for label, reused in (("computed in this run", False), ("reused", True)):
            extra = data.seconds if data and data.reused is reused else 0.0
            known = [pilot for pilot in piloted if is_found(pilot) is reused]
            lines.append(line(f"Sum {label}", [model for model in done if model.reused is reused], extra=extra, pilots=known))
    return lines
