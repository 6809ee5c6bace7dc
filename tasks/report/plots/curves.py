"""Plot the learning curves of a run, read from the models' folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base.files import read_json
from tasks.report.plots.kept import kept
from tasks.report.plots.style import INK, MANY, Layout, Look, dress, figure, looks, plain_log, short, svg

POINTS = 240  # of a drawn training curve: more than a narrow screen can show
FEWEST = 24  # of many
NATS, DISTANCE = "nll in nats", "distance from the teacher"


@dataclass(frozen=True)
class Curve:
    """The logged values of one model's training, non-finite values left out.

    Attributes:
        train: (n, 2) step and loss, the objective's.
        valid: (m, 2) step and held-out nll, nats per token or example, or of embeddings the distance from the teacher's.
        unit: Of the validation.
    """

    train: NDArray[np.float64]
    valid: NDArray[np.float64]
    unit: str = NATS


def read_curve(folder: Path) -> Curve | None:
    """The curve in `folder/curve.json`; None when there is none, as for an imported checkpoint.

    Raises:
        ValueError: The file is not the JSON that a training writes.
    """
    path = folder / "curve.json"
    if not path.is_file():
        return None
    raw = read_json(path)
    try:
        if any("distance" in point for point in raw["valid"]):
            return Curve(_pairs(raw["train"], "loss"), _pairs(raw["valid"], "distance"), DISTANCE)
        return Curve(_pairs(raw["train"], "loss"), _pairs(raw["valid"], "nll"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a training curve ({error!r})") from error


def _pairs(points: list[dict[str, Any]], key: str) -> NDArray[np.float64]:
    kept = [(point["step"], point[key]) for point in points if point[key] is not None and math.isfinite(point[key])]
    return np.array(kept, dtype=np.float64).reshape(-1, 2)


def smooth(pairs: NDArray[np.float64], points: int = POINTS) -> NDArray[np.float64]:
    """The centred moving average of (n, 2) pairs over a 40th of them, thinned to at most so many points."""
    half = len(pairs) // 80
    sums = np.concatenate([[0.0], np.cumsum(pairs[:, 1])])
    at = np.arange(len(pairs))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(pairs))
    return thin(np.column_stack([pairs[:, 0], (sums[high] - sums[low]) / (high - low)]), points)


def thin(pairs: NDArray[np.float64], points: int = POINTS) -> NDArray[np.float64]:
    """At most so many of the pairs, evenly spaced, the first and the last among them."""
    return pairs[np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), points)).round().astype(int))] if len(pairs) else pairs


@kept
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
    own = dict(zip(order, looks(len(order)), strict=True))
    drawing = figure((920, 370) if layout == "wide" else (340, 610))
    left, right = drawing.subplots(1, 2) if layout == "wide" else drawing.subplots(2, 1)
    points = max(FEWEST, min(POINTS, POINTS * MANY // len(drawn)))
    for name, curve in drawn.items():
        _draw(left, right, curve, name, own[name], points)
    left.set_yscale("log")
    plain_log(left.yaxis)
    watched = next(iter(drawn.values())).unit
    for axes, title, unit in ((left, "Training", "loss, smoothed (log scale)"), (right, "Validation", f"{watched} (lower is better)")):
        dress(axes, "step", unit)
        axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold")
    handles, labels = right.get_legend_handles_labels()
    if labels:
        columns = max(1, (900 if layout == "wide" else 320) // (46 + 8 * max(map(len, labels))))
        by_row = [i for column in range(columns) for i in range(column, len(labels), columns)]  # matplotlib fills columns first
        in_rows = [handles[i] for i in by_row], [labels[i] for i in by_row]
        drawing.legend(*in_rows, loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=12.5)
    return svg(drawing, f"curves-{layout}", _told(drawn, own))


def _draw(left: Any, right: Any, curve: Curve, name: str, look: Look, points: int) -> None:
    """One model in both panels; where there are many, most are thin lines without a name."""
    train, valid = smooth(curve.train, points), thin(curve.valid, points)
    if not look.named:
        for axes, pairs in ((left, train), (right, valid)):
            axes.plot(*pairs.T, color=look.colour, linewidth=0.7, alpha=0.35, zorder=1)
        return
    style = {"color": look.colour, "label": short(name)}
    left.plot(*train.T, linewidth=1.3, **style)
    right.plot(*valid.T, linewidth=1.8, marker=look.marker, markersize=4.5, markevery=max(1, len(valid) // 8), **style)


def _told(drawn: dict[str, Curve], own: dict[str, Look]) -> str:
    """The picture in words."""
    named = {name: curve for name, curve in drawn.items() if own[name].named}
    described = [f"{name} {_course(curve.valid)}" for name, curve in named.items() if len(curve.valid)]
    more = f"; and {len(drawn) - len(named)} more" if len(named) < len(drawn) else ""
    unit = next(iter(drawn.values())).unit
    courses = f" Validation {'loss in nats' if unit == NATS else f'by {unit}'}: {'; '.join(described)}{more}." if described else ""
    return f"Training loss and validation loss of each model against the step.{courses}"


def _course(valid: NDArray[np.float64]) -> str:
    (first, begun), (last, ended) = valid[0], valid[-1]
    return f"{begun:.3f} at step {first:.0f}, {ended:.3f} at step {last:.0f}" if len(valid) > 1 else f"{ended:.3f} at step {last:.0f}"
