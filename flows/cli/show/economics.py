"""Text of `ladder economics`, within 80 columns."""

from __future__ import annotations

from typing import Any

from tasks.planning.costs.economics import WORDS, Bar, BreakEven, Report, verdict
from tasks.records.format import amount, days_text
from tasks.report.terminal import table_of, text_of


def economics_text(report: Report) -> str:
    """The verdict, its basis, every student, and the tornado."""
    main, currency = report.main, report.currency
    lines: list[Any] = [verdict(main, currency), ""]
    if report.assumed:
        lines.append("Price and traffic are defaults that nobody has stated: give price_per_hour=..., requests_per_day=...")
    lines += [*report.basis, "", f"What it costs once, and saves, in {currency}", table_of(*_students(report.students)), _breakdown(main)]
    lines += ["", f"What decides it: net saving of a cycle ({currency}), each input moved alone", table_of(*_tornado(report.tornado))]
    return text_of(*lines)


def _students(results: tuple[BreakEven, ...]) -> tuple[list[str], list[list[str]]]:
    headers = ["student", "cost", "saved a day", "a month", "net a cycle", "break-even"]
    rows = []
    for result in results:
        amounts = (result.total, result.saving_per_day, result.saving_per_month, result.net_per_cycle)
        rows.append([result.student, *map(amount, amounts), _days(result.break_even_days)])
    return headers, rows


def _breakdown(result: BreakEven) -> str:
    costs = result.costs
    shown = {"training": costs.training, "search": costs.search, "signals": costs.signals, "data": costs.data} | {
        "evaluation": costs.evaluation
    }
    parts = [f"{name} {amount(value)}" for name, value in shown.items() if value]
    return f"Of the cost of {result.student}: {', '.join(parts)}." if parts else f"{result.student} cost nothing."


def _tornado(bars: tuple[Bar, ...]) -> tuple[list[str], list[list[str]]]:
    headers = ["input", "low", "high", "net at low", "at high", "days at low", "at high"]
    return headers, [
        [
            WORDS[bar.input],
            *(f"{value:.3g}" for value in (bar.low, bar.high)),
            *map(amount, (bar.net_low, bar.net_high)),
            *map(_days, (bar.days_low, bar.days_high)),
        ]
        for bar in bars
    ]


def _days(days: float | None) -> str:
    """Days for a narrow column."""
    if days is None:
        return "never"
    text = days_text(days)
    for long, short in ((" days", " d"), (" hours", " h"), (" minutes", " min"), (" years", " y"), ("less than a minute", "< 1 min")):
        text = text.replace(long, short)
    return text
