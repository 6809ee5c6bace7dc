"""The common look of the pictures: colours, markers, axes, and SVG for the page.

Drawn with matplotlib's object interface, without pyplot's global state. A figure's point is a CSS pixel, so the report shows one SVG
for wide windows and one for narrow ones at the size they were drawn for. Colours become CSS variables with the drawn colour as their
fallback: inside the report the pictures follow its light or dark theme, outside it they stand for themselves.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tasks.records.format import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Layout = Literal["wide", "narrow"]
INK, MUTED, GRID, CARD = "#1d2530", "#5d6875", "#e1e6ec", "#fdfdfe"
MODELS = ("#0072b2", "#d55e00", "#008f68", "#a8478a", "#8a6a00", "#4d5b9e", "#7a4a21", "#555555")
MARKERS = "so^DvPX*"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", CARD: "--card", **{colour: f"--model-{i}" for i, colour in enumerate(MODELS)}}
MANY = 12  # models; of more, only some are named and coloured
NAMED = 8


class Look(NamedTuple):
    """Appearance of a model in every picture and beside its name in a table."""

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
        figure: The drawing.
        prefix: Unique on the page.
        label: Content of the picture, its figures included, for those who do not see it: plain text.
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
