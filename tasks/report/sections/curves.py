"""Section of the learning curves, and of the loss before and after training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasks.records.run import RunRecord
from tasks.report.plots.curves import NATS, Curve, curves_svg, read_curve


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The curves in the models' folders, drawn; and names of those that could not be drawn."""
    curves, damaged = _curves(record)
    order = [model.name for model in record.models]
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := curves_svg(curves, order, layout))]
    if not plots and not damaged:
        return None
    without = [name for name in order if name not in curves and name not in damaged]
    return {
        "plots": plots,
        "without": without,
        "damaged": damaged,
        "starts": starts(record, curves),
        "unit": next((curve.unit for curve in curves.values()), NATS),
    }


def starts(record: RunRecord, curves: dict[str, Curve]) -> list[dict[str, str]]:
    """Of each student, and of a root that was trained on: its first weights, its validation loss before and after, on the same examples."""
    found = []
    for stage in record.models:
        curve = curves.get(stage.name)
        before = stage.initial.get("nll", stage.initial.get("distance"))
        if before is not None and curve is not None and len(curve.valid):
            student = stage.identity.get("student", {})
            existing = "checkpoint" in stage.identity or student.get("source") == "checkpoint"
            how = "pilot" if "begins" in stage.identity else "checkpoint" if existing else student.get("initialisation", "-")
            found.append({"model": stage.name, "how": how, "before": f"{before:.3f}", "after": f"{curve.valid[-1, 1]:.3f}"})
    return found


def _curves(record: RunRecord) -> tuple[dict[str, Curve], list[str]]:
    """The curves that can be read, and the names of the models whose file is damaged."""
    curves, damaged = {}, []
    for model in record.models:
        try:
            curve = read_curve(Path(model.folder))
        except ValueError:
            damaged.append(model.name)
            continue
        if curve is not None:
            curves[model.name] = curve
    return curves, damaged
