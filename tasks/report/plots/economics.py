"""Plot the economics of a ladder: payback curve and tornado."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.planning.costs.economics import WORDS, Report
from tasks.records.format import amount, days_text, money
from tasks.report.plots.kept import kept
from tasks.report.plots.style import GRID, INK, MODELS, MUTED, Layout, dress, figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOW, HIGH = MODELS[0], MODELS[1]  # colours of an input's two ends
SHOWN = 8  # inputs of the tornado: the strongest
LEAST = 0.005  # of the strongest one's span, below which a bar cannot be seen


@kept
def payback_svg(report: Report, layout: Layout = "wide") -> str:
    """The balance against the days since the student went to work, as an `<svg>` element."""
    main = report.main
    drawing = figure((920, 320) if layout == "wide" else (340, 290))
    axes: Axes = drawing.subplots()
    days, balances = zip(*report.curve, strict=True)
    axes.axhline(0, color=MUTED, linewidth=1)
    axes.plot(days, balances, color=MODELS[0], linewidth=2)
    period, reached = main.inputs.redistill_days, main.break_even_days
    axes.axvline(period, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    right = period > 0.6 * days[-1]
    style = {"color": MUTED, "fontsize": 11.5, "va": "bottom", "textcoords": "offset points"}
    axes.annotate("distilled again", (period, min(balances)), (-5 if right else 5, 3), ha="right" if right else "left", **style)
    if reached is not None and reached <= days[-1]:
        axes.plot(reached, 0, "o", color=INK, markersize=9)
        side = {"color": INK, "fontsize": 12.5, "fontweight": "bold", "textcoords": "offset points"}
        late = reached > 0.6 * days[-1]
        axes.annotate(days_text(reached), (reached, 0), (-8 if late else 8, -8), ha="right" if late else "left", va="top", **side)
    axes.margins(x=0.01, y=0.12)
    dress(axes, "days in service", f"saved, less what it cost ({report.currency})")
    end = money(balances[-1], report.currency)
    back = "never pays" if reached is None else f"pays back after {days_text(reached)}"
    description = (
        f"Payback of {main.student}: it costs {money(main.total, report.currency)}, {back}, and stands at {end} after {days_text(days[-1])}"
    )
    return svg(drawing, f"payback-{layout}", description)


@kept
def tornado_svg(report: Report, layout: Layout = "wide") -> str | None:
    """Net saving of a cycle as each input moves alone, the strongest at the top, as an `<svg>` element; None where nothing moves it."""
    spans = [abs(bar.net_high - bar.net_low) for bar in report.tornado[:SHOWN]]
    bars = [bar for bar, span in zip(report.tornado, spans, strict=False) if span >= LEAST * max(spans)]
    if not bars:
        return None
    wide, centre = layout == "wide", report.main.net_per_cycle
    drawing = figure((920 if wide else 340, 90 + 36 * len(bars)))
    axes: Axes = drawing.subplots()
    for place, bar in enumerate(reversed(bars)):
        for net, colour in ((bar.net_low, LOW), (bar.net_high, HIGH)):
            axes.barh(place, net - centre, left=centre, color=colour, height=0.62, linewidth=0, alpha=0.85)
    axes.set_yticks(range(len(bars)), [WORDS[bar.input] for bar in reversed(bars)])
    axes.axvline(centre, color=INK, linewidth=1.2)
    axes.axvline(0, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    for colour, name in ((LOW, "input low"), (HIGH, "input high")):
        axes.plot([], [], "s", color=colour, label=name, markersize=9)
    axes.margins(x=0.06)
    dress(axes, f"net saving of a cycle ({report.currency})", "")
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=8 if wide else 4)
    axes.axhline(-0.5, color=GRID, linewidth=1)
    drawing.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK, fontsize=12)
    description = "; ".join(
        f"{WORDS[bar.input]} from {bar.low:.3g} to {bar.high:.3g}: {amount(bar.net_low)} to {amount(bar.net_high)}" for bar in bars
    )
    return svg(
        drawing, f"tornado-{layout}", f"Net saving of a cycle, {amount(centre)} {report.currency}, as each input moves alone: {description}"
    )
