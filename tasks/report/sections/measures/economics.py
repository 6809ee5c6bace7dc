"""Section of the break-even: its basis and its sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.measures.economics import Economics
from tasks.planning.costs.economics import WORDS, Report, economics_of, verdict
from tasks.records.format import amount, days_text
from tasks.records.run import RunRecord
from tasks.report.plots.economics import payback_svg, tornado_svg


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The economics of a run whose ladder states prices or traffic: defaults are not shown as findings."""
    settings = _settings(record)
    if settings is None or settings == Economics():
        return None
    try:
        report = economics_of(record, settings)
    except UserError:
        return None  # no student, or neither a price nor a throughput
    layouts = ("wide", "narrow")
    return {
        "sentence": verdict(report.main, report.currency),
        "currency": report.currency,
        "basis": report.basis,
        "students": [_student(report, place) for place in range(len(report.students))],
        "costs": _costs(report),
        "payback": [(layout, Markup(payback_svg(report, layout))) for layout in layouts],
        "tornado": [(layout, Markup(svg)) for layout in layouts if (svg := tornado_svg(report, layout))],
        "bars": [
            [WORDS[bar.input], f"{bar.low:.3g}", f"{bar.value:.3g}", f"{bar.high:.3g}", amount(bar.net_low), amount(bar.net_high)]
            for bar in report.tornado
        ],
    }


def _settings(record: RunRecord) -> Economics | None:
    path = Path(record.folder) / "ladder.yaml"
    try:
        return load(str(path)).ladder.economics if path.is_file() else None
    except UserError:
        return None  # of another version


def _student(report: Report, place: int) -> list[str]:
    result = report.students[place]
    amounts = (result.total, result.saving_per_day, result.saving_per_month, result.net_per_cycle)
    return [result.student, *map(amount, amounts), "never" if result.break_even_days is None else days_text(result.break_even_days)]


def _costs(report: Report) -> dict[str, str]:
    """Costs of the main student by purpose, without those of 0."""
    costs = report.main.costs
    named = {"training": costs.training, "trial trainings": costs.search, "signals": costs.signals, "data": costs.data}
    named["evaluation"] = costs.evaluation
    return {name: amount(value) for name, value in named.items() if value}
