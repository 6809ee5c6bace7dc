"""Section of the picture of quality against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tasks.records.run import RunRecord
from tasks.report.plots.quality import Control, Interval, quality_svg


def section(
    record: RunRecord, controls: Sequence[Control] = (), intervals: Mapping[str, Interval] | None = None
) -> Mapping[str, Any] | None:
    """The picture, for wide and for narrow windows, with the control arms and the intervals that other sections know of."""
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := quality_svg(record, layout, controls, intervals))]
    note = "Hollow: control arms, beside one another where they have the same size." if controls else None
    return {"heading": "Quality against parameters", "plots": plots, "note": note} if plots else None
