"""Write the page of a watched model: time line, last window, history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from conf.home import Home
from tasks.monitoring.history import PAGE, folder_of
from tasks.records.format import NONE, moment, percent
from tasks.records.monitoring import SignalFigures, WindowReport
from tasks.records.promotion import Promotion
from tasks.records.redistill import Redistillation
from tasks.redistill.decisions import decisions
from tasks.report.markdown import escape
from tasks.report.page import templates, write_page
from tasks.report.plots.timeline import timeline_svg

NAMES = {
    "quality": "quality",
    "agreement": "agreement with the root teacher",
    "estimate": "accuracy estimated by confidence",
    "teacher": "the root teacher's own quality",
}
STATES = {"distil again": "failed", "refresh the teacher": "failed", "watch": "warned", "too few examples": "", "nothing": "passed"}
PSI = 0.1  # drawn where no window says another
SHIFTS = 12  # rows of a table


def write_monitoring_page(home: Home, name: str, reports: Sequence[WindowReport], psi: float = PSI) -> Path:
    """Write `monitoring/<name>/monitoring.html`, whole or not at all.

    Raises:
        StoreError: It could not be written.
    """
    html = render_monitoring(name, reports, promotions_of(home, name), decisions(home, name), psi)
    return write_page(html, folder_of(home, name) / PAGE)


def render_monitoring(
    name: str, reports: Sequence[WindowReport], promotions: Sequence[Promotion] = (), made: Sequence[Redistillation] = (), psi: float = PSI
) -> str:
    """The page's HTML."""
    timed = sorted(reports, key=lambda report: datetime.fromisoformat(report.ended or report.looked))
    usable = [report for report in timed if not report.unusable]
    plots = [(layout, Markup(drawn)) for layout in ("wide", "narrow") if (drawn := timeline_svg(timed, psi, layout))]
    last = usable[-1] if usable else None
    return (
        templates()
        .get_template("monitoring.html.j2")
        .render(
            name=name,
            last=last,
            state=STATES[last.diagnosis] if last else "",
            tiles=_tiles(usable),
            plots=plots,
            signals=[signal_row(each) for each in last.signals.values()] if last else [],
            signal_headers=SIGNAL_HEADERS,
            shifts=[_shift_row(shift) for shift in last.shifts[:SHIFTS]] if last else [],
            slices=[_slice_row(group, each, last.metric) for group, each in list(last.slices.items())[:SHIFTS]] if last else [],
            history=[history_row(report) for report in reversed(timed)],
            history_headers=HISTORY_HEADERS,
            states=[STATES[report.diagnosis] if not report.unusable else "" for report in reversed(timed)],
            problems=[(report.window, sentence) for report in reversed(timed) for sentence in report.problems][:30],
            promotions=[_promotion_row(each) for each in reversed(promotions)],
            decisions=[[moment(each.updated), each.outcome, each.reason, each.run or NONE, each.challenger or NONE] for each in made],
        )
    )


def promotions_of(home: Home, name: str) -> list[Promotion]:
    """Promotions of a model, the oldest first; damaged records are left out."""
    found = []
    for path in (home.root / "promotions" / name).glob("*.json"):
        try:
            found.append(Promotion.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return sorted((each for each in found if each.state == "done"), key=lambda each: datetime.fromisoformat(each.time))


SIGNAL_HEADERS = ["signal", "rows", "window", "at promotion", "drop", "95 % interval", "proven", "still needed"]
HISTORY_HEADERS = ["window", "until", "version", "rows", "labels", "quality", "proven drop", "diagnosis", "trigger"]


def signal_row(each: SignalFigures) -> list[str]:
    """A signal's cells under `SIGNAL_HEADERS`."""
    return [
        NAMES[each.signal],
        f"{each.rows:,}",
        amount(each, each.value),
        amount(each, each.reference),
        percent(each.drop),
        f"{percent(each.low)} to {percent(each.high)}",
        percent(each.proven) if each.proven else "none",
        NONE if each.needed is None else f"{each.needed:,} rows",
    ]


def history_row(report: WindowReport) -> list[str]:
    """A window's cells under `HISTORY_HEADERS`."""
    main = next((report.signals[signal] for signal in ("quality", "agreement", "estimate") if signal in report.signals), None)
    proven = max((report.signals[s].proven for s in ("quality", "agreement") if s in report.signals), default=0.0)
    return [
        report.window,
        moment(report.ended),
        report.version,
        f"{report.rows:,}",
        f"{report.labelled:,}",
        NONE if main is None else amount(main, main.value) + ("" if main.signal == "quality" else f" ({main.signal})"),
        percent(proven) if proven else NONE,
        "unusable" if report.unusable else report.diagnosis,
        "yes" if report.trigger else NONE,
    ]


def amount(each: SignalFigures, value: float) -> str:
    """A value of a signal: bits per byte with three decimals, shares in per cent."""
    return f"{value:.3f}" if each.unit == "bits_per_byte" else percent(value)


def window_markdown(report: WindowReport) -> str:
    """A window for an artifact of the flow run."""
    rows = [signal_row(each) for each in report.signals.values()]
    table = [SIGNAL_HEADERS, ["---"] * len(SIGNAL_HEADERS), *rows] if rows else []
    lines = [
        f"# {escape(report.version)}, window {escape(report.window)}: {'unusable' if report.unusable else report.diagnosis}",
        "",
        escape(report.why),
        "",
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
        *(f"- {escape(sentence)}" for sentence in report.problems),
    ]
    return "\n".join(lines)


def _tiles(usable: Sequence[WindowReport]) -> list[tuple[str, str]]:
    if not usable:
        return []
    last = usable[-1]
    main = last.signals.get("quality") or last.signals.get("agreement")
    tiles = [(f"{len(usable):,}", "windows judged"), (f"{sum(report.rows for report in usable):,}", "rows counted")]
    if main is not None:
        name = "last window" if main.signal == "quality" else "agreement with the root, last window"
        tiles.append((amount(main, main.value), f"{name}; at promotion {amount(main, main.reference)}"))
    proven = max((last.signals[s].proven for s in ("quality", "agreement") if s in last.signals), default=0.0)
    tiles.append((percent(proven) if proven else "none", f"proven drop; a trigger needs {percent(last.drop)}"))
    tiles.append((str(sum(report.trigger for report in usable)), "triggers"))
    return tiles


def _shift_row(shift: Any) -> list[str]:
    return [
        shift.feature,
        shift.slice or "all rows",
        "Kolmogorov-Smirnov" if shift.test == "ks" else "chi-square",
        f"{shift.p:.2g}",
        f"{shift.psi:.3f}",
        "yes" if shift.shifted else NONE,
    ]


def _slice_row(group: str, each: Any, metric: str) -> list[str]:
    bits = metric == "bits_per_byte"

    def shown(value: float | None) -> str:
        return NONE if value is None else f"{value:.3f}" if bits else percent(value)

    return [group, f"{each.rows:,}", shown(each.value), shown(each.reference)]


def _promotion_row(each: Promotion) -> list[str]:
    words = each.kind if not each.forced else f"{each.kind}, forced"
    return [moment(each.time), f"{each.name}/{each.version}", each.previous or NONE, words, each.reason or NONE]
