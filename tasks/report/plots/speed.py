"""Plot speed-up against size: measured, roofline, and the usual claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.bench.scaling import CLAIMED, Part
from tasks.report.plots.kept import kept
from tasks.report.plots.style import CARD, GRID, INK, MUTED, Layout, dress, figure, looks, plain_log, short, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@kept
def speed_svg(found: Sequence[Part], layout: Layout = "wide") -> str | None:
    """Speed-up against size as an `<svg>` element, a panel for each of at most two parts; None without a student."""
    drawn = [part for part in found if len(part.rows) > 1 and part.against_root][:2]
    if not drawn:
        return None
    drawing = figure((460 * len(drawn), 380) if layout == "wide" else (340, 360 * len(drawn)))
    axes = drawing.subplots(1, len(drawn), squeeze=False) if layout == "wide" else drawing.subplots(len(drawn), 1, squeeze=False)
    for place, part in zip(axes.flat, drawn, strict=True):
        _panel(place, part)
    return svg(drawing, f"speed-{layout}", "; ".join(_description(part) for part in drawn))


def _panel(axes: Axes, part: Part) -> None:
    ratios, speeds = [row.ratio for row in part.rows], [row.speed_up for row in part.rows]
    least, most = min(ratios) / 1.15, max(*ratios, 12.0) * 1.5
    axes.plot([1, most], [1, most], color=GRID, linewidth=1.4, zorder=1)
    top = max(*speeds, CLAIMED[1]) * 1.9
    axes.text(min(top, most) ** 0.72, min(top, most) ** 0.8, "as much faster\nas smaller", color=MUTED, fontsize=11, ha="right")
    axes.plot([10, 10], CLAIMED, color=MUTED, linewidth=7, alpha=0.35, solid_capstyle="butt", zorder=1)
    axes.text(10.7, (CLAIMED[0] * CLAIMED[1]) ** 0.5, "claimed", color=MUTED, fontsize=11, va="center")
    if part.exponent is not None:
        axes.plot([1, most], [1, most**part.exponent.value], color=INK, linewidth=1.6, zorder=2)
        if part.exponent.low is not None and part.exponent.high is not None:
            ends = [most**part.exponent.low, most**part.exponent.high]
            axes.fill([1, most, most], [1, *ends], color=MUTED, alpha=0.13, linewidth=0, zorder=1)
    lines = [(row.ratio, row.limit_speed_up) for row in part.rows if row.limit_speed_up is not None]
    if lines:
        axes.plot(*zip(*sorted(lines), strict=True), color=MUTED, linewidth=1.3, linestyle=(0, (4, 3)), marker="_", markersize=9, zorder=2)
    for row, look in zip(part.rows, looks(len(part.rows)), strict=True):
        axes.plot(row.ratio, row.speed_up, look.marker, color=look.colour, markersize=10, markeredgecolor=CARD, zorder=3)
        if look.named:
            style = {"color": look.colour, "fontsize": 12, "fontweight": "bold", "ha": "left", "va": "top"}
            axes.annotate(short(row.name), (row.ratio, row.speed_up), (7, -5), textcoords="offset points", **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, most)
    axes.set_ylim(min(*speeds, 1.0) / 1.5, top)
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    dress(axes, "times smaller than the root (log scale)", "times as fast (log scale)")
    axes.set_title(part.title, loc="left", color=INK, fontsize=13, fontweight="bold")


def _description(part: Part) -> str:
    """The figures of a panel as text, for screen readers."""
    students = ", ".join(f"{row.name} {row.ratio:.1f} times smaller and {row.speed_up:.2f} times as fast" for row in part.rows[1:])
    roof = ", ".join(f"{row.name} {row.limit_speed_up:.2f}" for row in part.rows[1:] if row.limit_speed_up is not None)
    return f"Speed-up against size for {part.title}: {students}" + (f"; the roofline leaves {roof}" if roof else "")
