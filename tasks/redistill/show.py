"""Decisions about re-distillation in words, in MLflow and as a Prefect artifact."""

from __future__ import annotations

from conf.errors import LadderError
from conf.home import Home
from tasks.records.redistill import Redistillation
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import full_record
from tasks.tracking.recorder import tracker_of
from tasks.tracking.tracker import Tracker


def publish(home: Home, decision: Redistillation) -> None:
    """Tag the runs in MLflow that a decision is about: of the window, and of the ladder; an outage is logged and ends nothing."""
    record = full_record(home, decision.run) if decision.run else None
    runs = [run_id for run_id in (decision.window_run_id, record and record.mlflow_run_id) if run_id]
    if not runs:
        return
    tags = {
        "ladder.redistill": decision.outcome,
        "ladder.redistill.reason": decision.reason[:5000],
        "ladder.redistill.cause": decision.cause,
        "ladder.redistill.decision": str(decision.number),
    }
    try:
        tracker = tracker_of(home)
        if isinstance(tracker, Tracker):
            for run_id in runs:
                tracker.set_tags(run_id, {**tags, **({"ladder.redistill.run": decision.run} if decision.run else {})})
    except LadderError as error:
        log.warning("MLflow lacks decision %d about %s: %s", decision.number, decision.name, error)


def markdown(decision: Redistillation) -> str:
    """A decision as a page of Prefect."""
    counts = decision.counts
    rows = [
        ("outcome", decision.outcome),
        ("reason", decision.reason),
        ("diagnosis", decision.diagnosis),
        ("cause", decision.cause),
        ("asked for by", decision.by),
        ("champion", decision.champion or "-"),
        ("run", decision.run or "-"),
    ]
    if counts is not None:
        rows.append(("rows", f"{counts.rows} of {counts.files} windows: {counts.transfer} train, {counts.held_out} judge"))
    if decision.asked is not None:
        rows.append(("teachers' answers", f"{decision.asked} asked, {decision.copied} copied"))
    table = "\n".join(f"| {key} | {value.replace('|', '/')} |" for key, value in rows)
    return f"# Decision {decision.number} about {decision.name}\n\n| | |\n|---|---|\n{table}\n"
