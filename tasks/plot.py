"""The two pictures of a run: quality against parameters, and the learning curves.

Drawn with matplotlib's object interface, without pyplot's global state. A figure's point is a CSS pixel, so the report shows one SVG
for wide windows and one for narrow ones at the size they were drawn for. Colours become CSS variables with the drawn colour as their
fallback: inside the report the pictures follow its light or dark theme, outside it they stand for themselves.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.records import RunRecord
from tasks.tables import ACCURACY, finished, human, quality_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layout = Literal["wide", "narrow"]
INK, MUTED, GRID, CARD = "#1d2530", "#5d6875", "#e1e6ec", "#fdfdfe"
MODELS = ("#0072b2", "#d55e00", "#008f68", "#a8478a", "#8a6a00", "#4d5b9e", "#7a4a21", "#555555")
MARKERS = "so^DvPX*"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", **{colour: f"--model-{i}" for i, colour in enumerate(MODELS)}}
POINTS = 240  # of a drawn training curve: more than a narrow screen can show


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


@dataclass(frozen=True)
class Curve:
    """What one model's training logged, non-finite values left out.

    Attributes:
        train: (n, 2) step and loss, the objective's.
        valid: (m, 2) step and held-out nll, nats per token or example.
    """

    train: NDArray[np.float64]
    valid: NDArray[np.float64]


def read_curve(folder: Path) -> Curve | None:
    """The curve in `folder/curve.json`; None when there is none, as for an imported checkpoint.

    Raises:
        ValueError: The file is not the JSON that a training writes.
    """
    path = folder / "curve.json"
    if not path.is_file():
        return None
    raw = json.loads(path.read_text())
    try:
        return Curve(_pairs(raw["train"], "loss"), _pairs(raw["valid"], "nll"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a training curve ({error!r})") from error


def _pairs(points: list[dict[str, Any]], key: str) -> NDArray[np.float64]:
    kept = [(point["step"], point[key]) for point in points if point[key] is not None and math.isfinite(point[key])]
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def smooth(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The centred moving average of (n, 2) pairs over a 40th of them, thinned to at most `POINTS`."""
    half = len(pairs) // 80
    sums = np.concatenate([[0.0], np.cumsum(pairs[:, 1])])
    at = np.arange(len(pairs))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(pairs))
    averaged = np.column_stack([pairs[:, 0], (sums[high] - sums[low]) / (high - low)])
    return averaged[np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), POINTS)).round().astype(int))] if len(pairs) else pairs


def quality_svg(record: RunRecord, layout: Layout = "wide") -> str | None:
    """Quality against parameters as an `<svg>` element; None while no model is finished."""
    figure = _quality(record, layout)
    return figure and _svg(figure, f"quality-{layout}", "Quality against parameters, one point for each model")


def quality_png(record: RunRecord) -> bytes | None:
    """Quality against parameters as a PNG on white, 1840 pixels wide; None while no model is finished."""
    figure = _quality(record, "wide")
    if figure is None:
        return None
    figure.patch.set_facecolor("white")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def curves_svg(curves: dict[str, Curve], order: Sequence[str], layout: Layout = "wide") -> str | None:
    """Learning curves as an `<svg>` element; None when there are none.

    Args:
        curves: A curve for each model that has one.
        order: Names of all models, the root teacher first: their places give the colours, as in the other picture.
        layout: Whether the two panels stand side by side or one under the other.
    """
    drawn = {name: curve for name, curve in curves.items() if len(curve.train) or len(curve.valid)}
    if not drawn:
        return None
    figure = _figure((920, 370) if layout == "wide" else (340, 610))
    left, right = figure.subplots(1, 2) if layout == "wide" else figure.subplots(2, 1)
    for name, curve in drawn.items():
        look = {"color": MODELS[order.index(name) % len(MODELS)], "label": _short(name)}
        left.plot(*smooth(curve.train).T, linewidth=1.3, **look)
        marker = MARKERS[order.index(name) % len(MARKERS)]
        right.plot(*curve.valid.T, linewidth=1.8, marker=marker, markersize=4.5, markevery=max(1, len(curve.valid) // 8), **look)
    left.set_yscale("log")
    _plain_log(left.yaxis)
    for axes, title, unit in ((left, "Training", "loss, smoothed (log scale)"), (right, "Validation", "nll in nats (lower is better)")):
        _dress(axes, "step", unit)
        axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold")
    handles, labels = right.get_legend_handles_labels()
    columns = max(1, (900 if layout == "wide" else 320) // (46 + 8 * max(map(len, labels))))
    by_row = [i for column in range(columns) for i in range(column, len(labels), columns)]  # matplotlib fills columns first
    figure.legend(
        [handles[i] for i in by_row],
        [labels[i] for i in by_row],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        fontsize=12.5,
    )
    return _svg(figure, f"curves-{layout}", "Training loss and validation loss of each model against the step")


def _quality(record: RunRecord, layout: Layout) -> Figure | None:
    quality = quality_of(record)
    places = [(i, model) for i, model in enumerate(finished(record)) if quality.key in model.metrics]
    if not places:
        return None
    figure = _figure((920, 380) if layout == "wide" else (340, 330))
    axes = figure.subplots()
    scale = 100 if quality is ACCURACY else 1
    sizes = [model.parameters for _, model in places]
    scores = [scale * model.metrics[quality.key] for _, model in places]
    axes.plot(sizes, scores, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    for (i, model), size, value in zip(places, sizes, scores, strict=True):
        colour, refused = MODELS[i % len(MODELS)], model.gate == "stopped"
        face = CARD if refused else colour
        axes.plot(size, value, MARKERS[i % len(MARKERS)], color=colour, markerfacecolor=face, markersize=10, markeredgewidth=2)
        label = f"{_short(model.name)}, refused" if refused else _short(model.name)
        left = size * size <= min(sizes) * max(sizes)  # a label leans inwards, on the side that the chain's line leaves free
        above = left == ((scores[0] - scores[-1]) * (sizes[0] - sizes[-1]) <= 0)
        look = {
            "ha": "left" if left else "right",
            "va": "bottom" if above else "top",
            "color": colour,
            "fontsize": 12.5,
            "fontweight": "bold",
        }
        axes.annotate(label, (size, value), (9 if left else -9, 5 if above else -5), textcoords="offset points", **look)
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 1.9, max(sizes) * 1.9)
    axes.margins(y=0.28)
    if quality is ACCURACY:
        axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
    _plain_log(axes.xaxis)
    _dress(axes, "parameters (log scale)", quality.axis)
    return figure


def _figure(pixels: tuple[int, int]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(pixels[0] / 72, pixels[1] / 72), layout="constrained", facecolor="none")


def _plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as counts (30k, 100k), as many as its range needs."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    subs = (1.0, 3.0) if high / low > 12 else (1.0, 2.0, 5.0) if high / low > 4 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: human(value) if value >= 10 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes, x: str, y: str) -> None:
    axes.set_facecolor("none")
    axes.set_xlabel(x, color=MUTED, fontsize=12.5)
    axes.set_ylabel(y, color=MUTED, fontsize=12.5)
    axes.tick_params(colors=MUTED, labelsize=12, length=0, pad=6)
    axes.grid(True, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def _svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an element for HTML: real text, theme colours, ids that no other picture on the page has."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} role="img" aria-label="{label}">', svg, count=1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable}, {colour})")
    return svg
