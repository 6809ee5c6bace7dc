"""Plot quality against parameters: SVG for the report, PNG for Prefect."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.records.format import human
from tasks.records.run import RunRecord, StageRecord
from tasks.report.plots.kept import kept
from tasks.report.plots.style import CARD, INK, MARKERS, MUTED, Layout, Look, dress, figure, looks, plain_log, short, svg
from tasks.report.tables import ACCURACY, SPLIT, QualityMetric, quality_of, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float]


class Control(NamedTuple):
    """Quality of a control arm, beside the models of the run.

    Attributes:
        name: For readers.
        parameters: Its size.
        quality: A fraction for accuracy, bits per byte for language models; the mean over seeds where there are several.
        low: Lower end of its interval; None where it has none.
        high: Upper end.
    """

    name: str
    parameters: int
    quality: float
    low: float | None = None
    high: float | None = None


@kept
def quality_svg(
    record: RunRecord, layout: Layout = "wide", controls: Sequence[Control] = (), intervals: Mapping[str, Interval] | None = None
) -> str | None:
    """Quality against parameters as an `<svg>` element; None while no model is finished.

    Args:
        record: The run.
        layout: For wide windows or for narrow ones.
        controls: Control arms, drawn hollow.
        intervals: Model -> interval of its quality, in the unit of `Control.quality`.
    """
    drawing = _quality(record, layout, controls, intervals or {})
    return drawing and svg(drawing, f"quality-{layout}", _description(record, controls, intervals or {}))


@kept
def quality_png(record: RunRecord) -> bytes | None:
    """Quality against parameters as a PNG on white, 1840 pixels wide; None while no model is finished."""
    drawing = _quality(record, "wide", (), {})
    if drawing is None:
        return None
    drawing.patch.set_facecolor("white")
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def _description(record: RunRecord, controls: Sequence[Control], intervals: Mapping[str, Interval]) -> str:
    """The picture in words."""
    quality = quality_of(record)

    def words(name: str, parameters: int, value: float, ends: Interval | None) -> str:
        ends = ends and possible(ends, quality is ACCURACY)
        between = f" ({_score(quality, ends[0])} to {_score(quality, ends[1])})" if ends else ""
        return f"{name} {_score(quality, value)}{between} with {human(parameters)} parameters"

    models = [model for model in record.models if quality.key in model.metrics]
    described = [
        words(model.name, model.parameters, model.metrics[quality.key], intervals.get(model.name))
        + (", refused by its gate" if model.gate == "stopped" else "")
        for model, look in zip(models, looks(len(models)), strict=True)
        if look.named
    ]
    more = f"; and {len(models) - len(described)} between" if len(described) < len(models) else ""
    arms = [words(arm.name, arm.parameters, arm.quality, _ends(arm)) for arm in controls]
    told = f"Quality against parameters on the {SPLIT}, {quality.axis}: {'; '.join(described)}{more}."
    return told + (f" Controls: {'; '.join(arms)}." if arms else "")


def _score(quality: QualityMetric, value: float) -> str:
    return score(quality, {quality.key: value})


def _ends(arm: Control) -> Interval | None:
    return None if arm.low is None or arm.high is None else (arm.low, arm.high)


def _quality(record: RunRecord, layout: Layout, controls: Sequence[Control], intervals: Mapping[str, Interval]) -> Figure | None:
    quality = quality_of(record)
    models = [model for model in record.models if quality.key in model.metrics]
    if not models:
        return None
    drawing = figure((920, 380 + 30 * bool(controls)) if layout == "wide" else (340, 330 + 24 * len(controls)))
    axes = drawing.subplots()
    scale = 100 if quality is ACCURACY else 1
    sizes = [model.parameters for model in models]
    scores = [scale * model.metrics[quality.key] for model in models]
    axes.plot(sizes, scores, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for model, look in zip(models, looks(len(models)), strict=True):
        _point(axes, model, look, scale * model.metrics[quality.key])
        _bar(axes, model.parameters, intervals.get(model.name), scale, look.colour)
    _labels(axes, models, sizes, scores)
    _arms(axes, controls, scale, max(sizes) / min(sizes))
    if controls:
        columns = min(len(controls), 6) if layout == "wide" else 1
        drawing.legend(loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=12)
    shown = [*sizes, *(arm.parameters for arm in controls)]
    axes.set_xscale("log")
    axes.set_xlim(min(shown) / 1.9, max(shown) * 1.9)
    axes.margins(y=0.28)
    least, most = axes.get_ylim()
    axes.set_ylim(max(least, 0), min(most, 100) if quality is ACCURACY else most)
    plain_log(axes.xaxis)
    dress(axes, f"parameters (log scale); {SPLIT}" if layout == "wide" else f"parameters; {SPLIT}", quality.axis)
    return drawing


def possible(ends: Interval, share: bool) -> Interval:
    """An interval cut at what the figure can be: a share from 0 to 1, bits per byte from 0."""
    low, high = ends
    return max(low, 0.0), min(high, 1.0) if share else high


def _point(axes: Axes, model: StageRecord, look: Look, value: float) -> None:
    face = CARD if model.gate == "stopped" else look.colour
    size: dict[str, Any] = (
        {"markersize": 10, "markeredgewidth": 2, "zorder": 4} if look.named else {"markersize": 4, "alpha": 0.6, "zorder": 2}
    )
    axes.plot(model.parameters, value, look.marker, clip_on=False, color=look.colour, markerfacecolor=face, **size)


def _arms(axes: Axes, controls: Sequence[Control], scale: float, span: float) -> None:
    """Control arms, hollow; those of the same size beside one another."""
    for i, arm in enumerate(controls):
        alike = [j for j, other in enumerate(controls) if other.parameters == arm.parameters]
        size = arm.parameters * max(span, 2) ** (0.025 * (alike.index(i) - (len(alike) - 1) / 2))
        style: dict[str, Any] = {"color": MUTED, "markerfacecolor": CARD, "markersize": 8, "markeredgewidth": 1.5, "linestyle": "none"}
        axes.plot(size, scale * arm.quality, MARKERS[::-1][i % len(MARKERS)], label=short(arm.name), zorder=3, **style)
        _bar(axes, size, _ends(arm), scale, MUTED)


def _bar(axes: Axes, size: float, ends: Interval | None, scale: float, colour: str) -> None:
    if ends is not None:
        low, high = possible(ends, scale == 100)
        axes.vlines(size, scale * low, scale * high, color=colour, linewidth=2, zorder=2)


def _labels(axes: Axes, models: Sequence[StageRecord], sizes: Sequence[int], scores: Sequence[float]) -> None:
    """Names beside the points: they lean inwards, on the side that the chain's line leaves free."""
    for model, look, size, value in zip(models, looks(len(models)), sizes, scores, strict=True):
        if not look.named:
            continue
        label = f"{short(model.name)}, refused" if model.gate == "stopped" else short(model.name)
        left = size * size <= min(sizes) * max(sizes)
        above = left == ((scores[0] - scores[-1]) * (sizes[0] - sizes[-1]) <= 0)
        sides = {"ha": "left" if left else "right", "va": "bottom" if above else "top"}
        style = {"color": look.colour, "fontsize": 12.5, "fontweight": "bold"}
        axes.annotate(label, (size, value), (9 if left else -9, 5 if above else -5), textcoords="offset points", **sides, **style)
