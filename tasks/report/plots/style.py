"""How pictures are drawn here, and the picture of quality against parameters.

Drawn with matplotlib's object interface, without pyplot's global state. A figure's point is a CSS pixel, so the report shows one SVG
for wide windows and one for narrow ones at the size they were drawn for. Colours become CSS variables with the drawn colour as their
fallback: inside the report the pictures follow its light or dark theme, outside it they stand for themselves.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tasks.records.format import human
from tasks.records.run import RunRecord, StageRecord
from tasks.report.tables import ACCURACY, Quality, quality_of, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layout = Literal["wide", "narrow"]
Interval = tuple[float, float]
INK, MUTED, GRID, CARD = "#1d2530", "#5d6875", "#e1e6ec", "#fdfdfe"
MODELS = ("#0072b2", "#d55e00", "#008f68", "#a8478a", "#8a6a00", "#4d5b9e", "#7a4a21", "#555555")
MARKERS = "so^DvPX*"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", **{colour: f"--model-{i}" for i, colour in enumerate(MODELS)}}
MANY = 12  # models; of more, only some are named and coloured
NAMED = 8


class Control(NamedTuple):
    """What a control arm reaches, beside the models of the run.

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


class Look(NamedTuple):
    """How a model looks in every picture and beside its name in a table."""

    colour: str
    marker: str
    named: bool  # whether a picture has room for its name

    @property
    def variable(self) -> str:
        """The CSS variable of its colour."""
        return VARIABLES[self.colour]


def looks(number: int) -> list[Look]:
    """A look for each of so many models: a colour each, or, of more than `MANY`, for the first, the last and some between."""
    if number <= MANY:
        return [Look(MODELS[i % len(MODELS)], MARKERS[i % len(MARKERS)], named=True) for i in range(number)]
    chosen = {round(i * (number - 1) / (NAMED - 1)): i for i in range(NAMED)}
    return [
        Look(MODELS[chosen[i]], MARKERS[chosen[i]], named=True) if i in chosen else Look(MUTED, "o", named=False) for i in range(number)
    ]


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
    figure = _quality(record, layout, controls, intervals or {})
    return figure and svg(figure, f"quality-{layout}", _told(record, controls, intervals or {}))


def quality_png(record: RunRecord) -> bytes | None:
    """Quality against parameters as a PNG on white, 1840 pixels wide; None while no model is finished."""
    figure = _quality(record, "wide", (), {})
    if figure is None:
        return None
    figure.patch.set_facecolor("white")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def _told(record: RunRecord, controls: Sequence[Control], intervals: Mapping[str, Interval]) -> str:
    """The picture in words."""
    quality = quality_of(record)

    def words(name: str, parameters: int, value: float, ends: Interval | None) -> str:
        between = f" ({_score(quality, ends[0])} to {_score(quality, ends[1])})" if ends else ""
        return f"{name} {_score(quality, value)}{between} with {human(parameters)} parameters"

    models = [model for model in record.models if quality.key in model.metrics]
    said = [
        words(model.name, model.parameters, model.metrics[quality.key], intervals.get(model.name))
        + (", refused by its gate" if model.gate == "stopped" else "")
        for model, look in zip(models, looks(len(models)), strict=True)
        if look.named
    ]
    more = f"; and {len(models) - len(said)} between" if len(said) < len(models) else ""
    arms = [words(arm.name, arm.parameters, arm.quality, _ends(arm)) for arm in controls]
    return f"Quality against parameters, {quality.axis}: {'; '.join(said)}{more}." + (f" Controls: {'; '.join(arms)}." if arms else "")


def _score(quality: Quality, value: float) -> str:
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
    if quality is ACCURACY:
        axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
    plain_log(axes.xaxis)
    dress(axes, "parameters (log scale)", quality.axis)
    return drawing


def _point(axes: Axes, model: StageRecord, look: Look, value: float) -> None:
    face = CARD if model.gate == "stopped" else look.colour
    size: dict[str, Any] = (
        {"markersize": 10, "markeredgewidth": 2, "zorder": 4} if look.named else {"markersize": 4, "alpha": 0.6, "zorder": 2}
    )
    axes.plot(model.parameters, value, look.marker, color=look.colour, markerfacecolor=face, **size)


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
        axes.vlines(size, scale * ends[0], scale * ends[1], color=colour, linewidth=2, zorder=2)


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


def figure(pixels: tuple[int, int]) -> Figure:
    """An empty figure, width and height in CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(pixels[0] / 72, pixels[1] / 72), layout="constrained", facecolor="none")


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as counts (30k, 100k), as many as its range needs."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    subs = (1.0, 3.0) if high / low > 12 else (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: human(value) if value >= 10 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def dress(axes: Axes, x: str, y: str) -> None:
    """Give axes their labels, and the look of all pictures here."""
    axes.set_facecolor("none")
    axes.set_xlabel(x, color=MUTED, fontsize=12.5)
    axes.set_ylabel(y, color=MUTED, fontsize=12.5)
    axes.tick_params(colors=MUTED, labelsize=12, length=0, pad=6)
    axes.grid(True, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def short(name: str) -> str:
    """A name that fits into a picture."""
    return name if len(name) <= 20 else f"{name[:19]}…"


def svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an element for HTML: real text, theme colours, ids that no other picture on the page has.

    Args:
        figure: What was drawn.
        prefix: Unique on the page.
        label: What the picture shows, its figures included, for those who do not see it: plain text.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):  # savefig would draw it twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    view = re.search(r'viewBox="[^"]+"', text)
    assert view is not None
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} role="img" aria-label="{html.escape(label)}">'
    text = re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return text
