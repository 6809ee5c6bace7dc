"""Section of quality: every figure of each model, drawn against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tasks.records import format as fmt
from tasks.records.run import RunRecord
from tasks.report import tables
from tasks.report.plots.quality import Control, Interval, quality_svg

# Figure -> header, by the metric that the models are judged by.
FIGURES = {
    tables.BITS.key: {"bits_per_byte": "bits/byte", "perplexity": "perplexity a token", "nll": "nll, nats/token", "accuracy": "next token"},
    tables.ACCURACY.key: {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "nll, nats", "ece": "ECE"},
}
SHARES = frozenset({"accuracy", "macro_f1"})


def section(
    record: RunRecord, controls: Sequence[Control] = (), intervals: Mapping[str, Interval] | None = None
) -> Mapping[str, Any] | None:
    """The picture, for wide and for narrow windows, with the control arms and the intervals that other sections know of; the figures."""
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := quality_svg(record, layout, controls, intervals))]
    note = "Hollow: control arms, beside one another where they have the same size." if controls else None
    if not plots:
        return None
    return {"heading": "Quality against parameters", "plots": plots, "tables": [_figures(record)], "note": note}


def _figures(record: RunRecord) -> dict[str, Any]:
    shown = FIGURES[tables.quality_of(record).key]
    known = [(model.name, model.metrics) for model in record.models]
    guess = tables.baseline_of(record)
    rows = [[name, *(_shown(key, figures.get(key)) for key in shown)] for name, figures in [*known, *([guess] if guess else [])]]
    return {"headers": ["model", *shown.values()], "rows": rows, "sums": 1 if guess else 0}


def _shown(key: str, value: float | None) -> str:
    if value is None:
        return fmt.NONE
    return fmt.percent(value) if key in SHARES else f"{value:,.3f}"
