"""Plot the windows of a watched model over time: quality, and shifts of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.records.format import percent
from tasks.records.monitoring import Signal, SignalFigures, WindowReport
from tasks.report.plots.style import CARD, INK, MODELS, MUTED, Layout, dress, figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS: dict[Signal, str] = {"quality": "quality", "agreement": "agreement with the root", "estimate": "estimated accuracy"}
COLOURS: dict[Signal, str] = {"quality": MODELS[0], "agreement": MODELS[2], "estimate": MODELS[4]}
BAD = MODELS[1]
DAYS = 8  # of windows, from which on dates suffice
TOPS = (0.35, 1.05)  # of the panel of shifts, at least and at most; larger shifts end there in an arrow


def timeline_svg(reports: Sequence[WindowReport], psi: float, layout: Layout = "wide") -> str | None:
    """Windows over time as an `<svg>` element; None where none was usable.

    Args:
        reports: By time.
        psi: Index from which a shift counts.
        layout: Wide or narrow.
    """
    shown = [report for report in reports if not report.unusable and report.signals]
    if not shown:
        return None
    drawing = figure((920, 520) if layout == "wide" else (340, 520))
    above, below = drawing.subplots(2, 1, height_ratios=[2.2, 1], sharex=True)
    places = [_time(report) for report in shown]
    _quality(above, shown, places, layout)
    _shifts(below, shown, places, psi)
    for axes in (above, below):
        _versions(axes, shown, places, named=axes is above)
    bits = shown[-1].metric == "bits_per_byte"
    dress(above, "", "bits per byte (lower is better)" if bits else "share in % (higher is better)")
    dress(below, "", "largest PSI")
    _dates(below, places, layout)
    handles, labels = above.get_legend_handles_labels()
    if labels:
        drawing.legend(
            handles, labels, loc="outside upper left", ncols=4 if layout == "wide" else 2, frameon=False, labelcolor=INK, fontsize=12
        )
    return svg(drawing, f"timeline-{layout}", _described(shown))


def _quality(axes: Axes, shown: Sequence[WindowReport], places: Sequence[datetime], layout: Layout) -> None:
    """Each signal with its interval, the reference and the threshold of its version, and triggers."""
    bits = shown[-1].metric == "bits_per_byte"
    signals: list[Signal] = ["quality"] if bits else [signal for signal in LABELS if any(signal in report.signals for report in shown)]
    for signal in signals:
        points = [(place, report.signals[signal]) for place, report in zip(places, shown, strict=True) if signal in report.signals]
        if not points:
            continue
        scale = 1 if bits else 100
        times: Any = [place for place, _ in points]
        values = [scale * each.value for _, each in points]
        main = signal == signals[0]
        axes.plot(times, values, color=COLOURS[signal], linewidth=1.8 if main else 1.1, marker="o" if main else None, markersize=4.5,
                  markeredgecolor=CARD, label="bits per byte" if bits else LABELS[signal], zorder=3 if main else 2)  # fmt: skip
        if main:
            ends = [_ends(each, scale) for _, each in points]
            axes.fill_between(times, [low for low, _ in ends], [high for _, high in ends], color=COLOURS[signal], alpha=0.14, linewidth=0)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= (high if bits else min(high, 100.0))])
    axes.set_ylim(low, high + 0.14 * (high - low))  # room for the names of versions
    first = signals[0]
    _levels(axes, [(place, report) for place, report in zip(places, shown, strict=True) if first in report.signals], first, bits)
    triggers = [(place, report) for place, report in zip(places, shown, strict=True) if report.trigger]
    if triggers:
        at: Any = [place for place, _ in triggers]
        values = [_shown_value(report, first, bits) for _, report in triggers]
        size = 13 if layout == "wide" else 11
        axes.plot(at, values, "v", color=BAD, markersize=size, markeredgecolor=CARD, label="trigger", zorder=5, linestyle="none")


def _levels(axes: Axes, points: Sequence[tuple[datetime, WindowReport]], signal: Signal, bits: bool) -> None:
    """Reference and threshold, a stretch for each version."""
    scale = 1 if bits else 100
    named = False
    for version in dict.fromkeys(report.version for _, report in points):
        own = [(place, report) for place, report in points if report.version == version]
        reference = own[-1][1].signals[signal].reference
        drop = own[-1][1].drop
        limit = reference * (1 + drop if bits else 1 - drop)
        ends: Any = [own[0][0], own[-1][0]]
        axes.plot(ends, [scale * reference] * 2, color=MUTED, linewidth=1.3, label=None if named else "at promotion", zorder=1)
        axes.plot(
            ends, [scale * limit] * 2, color=BAD, linewidth=1.3, linestyle=(0, (4, 3)), label=None if named else "threshold", zorder=1
        )
        named = True


def _shifts(axes: Axes, shown: Sequence[WindowReport], places: Sequence[datetime], psi: float) -> None:
    found = [max((shift.psi for shift in report.shifts), default=0.0) for report in shown]
    top = min(max(TOPS[0], 1.15 * max(found)), TOPS[1])
    values = [min(value, top / 1.05) for value in found]
    times: Any = list(places)
    axes.vlines(times, 0, values, color=MUTED, linewidth=2.2, alpha=0.45)
    for place, value, whole, report in zip(places, values, found, shown, strict=True):
        at: Any = place
        axes.plot(at, value, "^" if whole > value else "o", color=BAD if report.changed else MUTED, markersize=6 if report.changed else 4.5)
    axes.axhline(psi, color=BAD, linewidth=1.3, linestyle=(0, (4, 3)))
    axes.set_ylim(0, top)


def _versions(axes: Axes, shown: Sequence[WindowReport], places: Sequence[datetime], named: bool) -> None:
    """A line where another version begins, with its name."""
    before = None
    for place, report in zip(places, shown, strict=True):
        at: Any = place
        if report.version != before:
            if before is not None:
                axes.axvline(at, color=INK, linewidth=1.1, zorder=1)
            if named:
                axes.annotate(f" {report.version}", (at, 1), xycoords=("data", "axes fraction"), color=INK, fontsize=11.5, va="top")
        before = report.version


def _dates(axes: Axes, places: Sequence[datetime], layout: Layout) -> None:
    """Ticks at even distances, with the time of day where the windows span few days."""
    first, last = min(places), max(places)
    number = 1 if first == last else 6 if layout == "wide" else 3
    ticks: Any = [first + (last - first) * place / max(number - 1, 1) for place in range(number)]
    form = "%d %b\n%H:%M" if (last - first).days < DAYS else "%d %b\n%Y"
    axes.set_xticks(ticks, [tick.strftime(form) for tick in ticks])
    if first == last:
        edge: Any = [first - timedelta(hours=1), last + timedelta(hours=1)]
        axes.set_xlim(*edge)


def _ends(each: SignalFigures, scale: float) -> tuple[float, float]:
    half = 1.96 * each.sd / max(each.rows, 1) ** 0.5
    return scale * (each.value - half), scale * (each.value + half)


def _shown_value(report: WindowReport, signal: Signal, bits: bool) -> float:
    found = report.signals.get(signal) or next(iter(report.signals.values()))
    return found.value if bits else 100 * found.value


def _time(report: WindowReport) -> datetime:
    return datetime.fromisoformat(report.ended or report.looked).astimezone(UTC)


def _described(shown: Sequence[WindowReport]) -> str:
    """The figures of the first and the last window, for those who do not see the picture."""
    parts = []
    for report in (shown[0], shown[-1]):
        figures = ", ".join(
            f"{LABELS[signal]} {f'{each.value:.3f}' if each.unit == 'bits_per_byte' else percent(each.value)}"
            for signal, each in report.signals.items()
            if signal in LABELS
        )
        parts.append(f"{report.window}: {figures}")
    triggers = [report.window for report in shown if report.trigger]
    return f"Windows over time. {'; '.join(parts)}. " + (f"Triggers at {', '.join(triggers)}." if triggers else "No trigger.")
