"""Record windows in MLflow: a run a window, in an experiment of their own."""

from __future__ import annotations

from datetime import datetime

from tasks.records.monitoring import WindowReport
from tasks.tracking.client import translate_errors
from tasks.tracking.runs import log_figures, terminate, user
from tasks.tracking.tracker import Tracker

KEY = "ladder.window"


def record_window(tracker: Tracker, report: WindowReport) -> str:
    """Record a window; doing it twice records it once. Returns MLflow's id of its run.

    Raises:
        RecordUnavailable: MLflow does not answer.
    """
    client = tracker.client
    experiment = tracker.experiment(f"{report.name}-monitoring")
    key = f"{report.number}:{report.content[:16]}"
    with translate_errors(tracker.home, tracker.address):
        found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
        if found and found[0].info.status == "FINISHED":
            return found[0].info.run_id
        tags = {
            KEY: key,
            "ladder.version": report.version,
            "ladder.run": report.ladder_run,
            "ladder.diagnosis": "unusable" if report.unusable else report.diagnosis,
            "ladder.trigger": str(report.trigger).lower(),
            "ladder.weights_sha256": report.weights_sha256,
            "mlflow.user": user(),
            "mlflow.source.name": "ladder monitor",
            "mlflow.note.content": report.why,
        }
        tags |= {"ladder.cause": report.cause} if report.cause else {}
        began = int(datetime.fromisoformat(report.looked).timestamp() * 1000)
        run = found[0] if found else client.create_run(experiment, start_time=began, tags=tags, run_name=report.window)
        log_figures(client, run, figures(report), report.number)
        client.log_text(run.info.run_id, report.model_dump_json(indent=1), "window.json")
        terminate(client, run.info.run_id, "FINISHED")
        return run.info.run_id


def figures(report: WindowReport) -> dict[str, float]:
    """Metrics of a window."""
    found = {"rows": float(report.rows), "labelled": float(report.labelled), "trigger": float(report.trigger)}
    for signal, each in report.signals.items():
        name = report.metric if signal == "quality" else signal
        found |= {f"window/{name}": each.value, f"drop/{name}": each.drop, f"proven/{name}": each.proven}
    if report.shifts:
        found["shift/psi"] = max(shift.psi for shift in report.shifts)
        found["shift/p"] = report.shift_p
    return found
