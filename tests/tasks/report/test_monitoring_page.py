"""The page of a watched model: time line, thresholds, versions, what could not be used."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tasks.records.monitoring import ShiftFigures, SignalFigures, WindowReport
from tasks.records.promotion import Promotion
from tasks.report.monitoring_page import render_monitoring, window_markdown


def figures(value: float, proven: float = 0.0, unit: str = "accuracy") -> SignalFigures:
    drop = 1 - value / 0.9
    fields = {"signal": "quality", "unit": unit, "rows": 500, "value": value, "sd": 0.3, "reference": 0.9, "reference_rows": 5000}
    return SignalFigures.model_validate({**fields, "drop": drop, "low": drop - 0.03, "high": drop + 0.03, "proven": proven, "total": 500})


def report(number: int, value: float, version: str = "tiny/1", **changes: object) -> WindowReport:
    time = (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=number)).isoformat()
    shift = ShiftFigures(feature="rarity", test="ks", statistic=0.1, p=0.4, psi=0.02, rows=500, shifted=False)
    fields = {"name": "tiny", "version": version, "weights_sha256": "w", "workload": "sequence-classification", "metric": "accuracy"}
    more = {"window": f"h{number}", "content": str(number), "began": time, "ended": time, "looked": time, "number": number, "rows": 500}
    return WindowReport.model_validate(
        {**fields, **more, "signals": {"quality": figures(value)}, "shifts": [shift], "drop": 0.02, **changes}
    )


def test_windows_stand_by_time_with_thresholds_triggers_and_versions() -> None:
    late = report(2, 0.88, looked="2026-03-09T00:00:00+00:00")
    bad = report(4, 0.7, diagnosis="distil again", why="Accuracy has dropped.", trigger=True, cause="tiny/1:h4")
    promotion = Promotion(
        name="tiny", version="2", previous="1", state="done", time="2026-03-01T04:30:00+00:00", mlflow_uri="x", reason="better"
    )
    html = render_monitoring("tiny", [report(1, 0.9), report(3, 0.89), bad, late, report(5, 0.91, "tiny/2")], [promotion])
    assert html.count("<svg") == 2
    history = html[html.index("<h2>History") :]
    assert re.findall(r"<td>(h\d)</td>", history) == ["h5", "h4", "h3", "h2", "h1"]
    for text in ("threshold", "at promotion", "trigger", "tiny/2", "better", "distil again", "Triggers at h4."):
        assert text in html


def test_an_empty_history_and_unusable_windows() -> None:
    assert "No window has been judged yet." in render_monitoring("tiny", [])
    bad = report(1, 0.9, unusable=True, signals={}, shifts=[], problems=["It is empty."], why="It is empty.")
    html = render_monitoring("tiny", [bad])
    assert "It is empty." in html
    assert "unusable" in html
    assert "<svg" not in html


def test_free_text_is_escaped() -> None:
    named = report(1, 0.9, window="<b>|", why="*bold* <script>")
    assert "<script>" not in render_monitoring("tiny", [named])
    assert "<b>" not in window_markdown(named)
