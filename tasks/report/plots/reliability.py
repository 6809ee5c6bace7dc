"""Plot the reliability diagram: accuracy against confidence."""

from __future__ import annotations

from tasks.records.run import RunRecord
from tasks.report.plots.kept import kept
from tasks.report.plots.style import CARD, GRID, MARKERS, MODELS, MUTED, Layout, dress, figure, short, svg

SHOWN = 6  # students whose lines can be told apart
FEW = 10  # rows below which a bin says nothing


@kept
def reliability_svg(record: RunRecord, layout: Layout = "wide") -> str | None:
    """Accuracy against confidence in 15 bins, a line for each of the last students, as an `<svg>` element; None where none was audited."""
    places = [(i, model, model.audit) for i, model in enumerate(record.models) if model.audit is not None and model.audit.reliability]
    if not places:
        return None
    drawing = figure((920, 400) if layout == "wide" else (340, 400))
    axes = drawing.subplots()
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for i, model, audit in places[-SHOWN:]:
        colour, total = MODELS[i % len(MODELS)], sum(each.rows for each in audit.reliability)
        bars = [each for each in audit.reliability if each.rows >= FEW]
        x, y = [100 * each.confidence for each in bars], [100 * each.accuracy for each in bars]
        axes.plot(x, y, color=colour, linewidth=1.5, label=short(model.name), zorder=2)
        sizes = [18 + 160 * each.rows / total for each in bars]
        axes.scatter(x, y, s=sizes, marker=MARKERS[i % len(MARKERS)], color=colour, edgecolors=CARD, linewidths=1, zorder=3, clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    dress(axes, "confidence in %", "right in %")
    axes.legend(loc="upper left", frameon=True, facecolor=CARD, edgecolor=GRID, labelcolor=MUTED, fontsize=12)
    errors = ", ".join(_ece(model.name, audit.figures["ece"].value) for _, model, audit in places[-SHOWN:] if "ece" in audit.figures)
    return svg(drawing, f"reliability-{layout}", f"Accuracy against confidence in 15 bins; expected calibration error: {errors}")


def _ece(name: str, value: float | None) -> str:
    return f"{name} {'too few examples' if value is None else f'{value:.3f}'}"
