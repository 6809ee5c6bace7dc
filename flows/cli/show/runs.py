"""Text and JSON of `ladder runs` and `ladder show`."""

from __future__ import annotations

from typing import Any

from conf.home import home
from conf.served import served
from tasks.evaluation.harness_tasks import shown
from tasks.proof.verdict_text import render
from tasks.records.format import percent, seconds
from tasks.records.proof import read_proof
from tasks.records.run import RunRecord, StageRecord
from tasks.report import tables
from tasks.report.terminal import WIDE, table_of, text_of
from tasks.tracking.client import run_url, tracking_uri, ui_command


def run_row(record: RunRecord) -> dict[str, Any]:
    """One run in a line of JSON."""
    last = record.stages[-1] if record.stages else None
    return {
        "run": record.run,
        "ladder": record.ladder,
        "status": record.status,
        "started": record.started,
        "seconds": record.seconds,
        "stages": f"{len(record.stages)}/{len(record.planned)}",
        "last": last.name if last else None,
        "error": record.error,
    }


def runs_text(records: list[RunRecord]) -> str:
    """All runs, one a line."""
    if not records:
        return "no runs yet; `ladder run digits` makes one in seconds"
    rows = [
        [row["run"], row["status"], row["started"], "" if row["seconds"] is None else seconds(row["seconds"]), row["stages"]]
        for row in map(run_row, records)
    ]
    headers = ("run", "status", "started", "seconds", "stages")
    return text_of(table_of(headers, rows, left=headers), width=WIDE)


def _model_json(model: StageRecord) -> dict[str, Any]:
    names = ("name", "fingerprint", "parameters", "reused", "steps", "seconds", "folder", "weights_sha256", "metrics", "mlflow_run_id")
    values = model.model_dump(mode="json")
    more = (
        "non_embedding",
        "tokens",
        "flops",
        "reused_from",
        "resumed_at",
        "early_stopped",
        "teachers",
        "prefect_run_id",
        "slices",
        "also",
        "tasks",
    )
    return {name: values[name] for name in (*names, *more)}


def show_json(record: RunRecord) -> dict[str, Any]:
    """A run as scripts read it; these names do not change."""
    stages = [
        {**_model_json(s), "retention": s.retention.model_dump(), "gate": s.gate, "gate_reasons": list(s.gate_reasons)}
        | {"extensions": s.extensions, "inserted": s.inserted, "decision": s.decision}
        | {"audit": s.audit and s.audit.model_dump(mode="json", exclude={"groups", "reliability", "worst"})}
        for s in record.stages
    ]
    rest = (
        "started",
        "finished",
        "seconds",
        "folder",
        "report",
        "error",
        "waiting",
        "budget",
        "overrides",
        "repeats",
        "attempt",
        "planned",
        "mlflow_uri",
        "mlflow_run_id",
        "unrecorded",
        "prefect_run_id",
        "prefect_api",
    )
    values = record.model_dump(mode="json")
    return {
        "run": record.run,
        "ladder": record.ladder,
        "status": record.status,
        "teacher": _model_json(record.teacher) if record.teacher else None,
        "stages": stages,
        **{name: values[name] for name in rest},
        "proof": proof.model_dump(mode="json") if (proof := read_proof(record)) else None,
    }


def show_text(record: RunRecord) -> str:
    """A run as people read it."""
    lines = [f"{record.run}: {record.status}" + (f" - {record.error}" if record.error else "")]
    lines += [record.waiting] if record.waiting and record.status == "running" else []
    lines += [f"repeats {record.repeats}"] if record.repeats else []
    lines += [f"{stage.name}: {stage.decision}" for stage in record.stages if stage.decision]
    places = [f"{m.name}: {m.folder}" for m in (record.teacher, *record.stages) if m]
    places = [*elsewhere(record), *places]
    missing = [f"MLflow lacks {what}" for what in record.unrecorded]
    compared = [render(proof), "", proof.verdict, *proof.notes, ""] if (proof := read_proof(record)) else []
    parts = (*lines, *compared, tables.render_rich(record), "", *places, *links(record), *missing)
    return text_of(*parts, width=WIDE, soft_wrap=True)


def elsewhere(record: RunRecord) -> list[str]:
    """Quality on further held-out data and in tasks, a line for each model and corpus or task."""
    quality, lines = tables.quality_of(record), []
    for model in record.models:
        for name, found in model.also.items():
            kept = "" if found.retention.root is None else f", {percent(found.retention.root)} of the root"
            few = ", too few examples" if found.few else ""
            lines.append(f"{model.name} on {name}: {tables.score(quality, found.metrics)} {quality.unit}{kept}{few}")
        lines += [f"{model.name} in {name}: {task.main} {shown(task)}" for name, task in model.tasks.items()]
    return [*lines, ""] if lines else []


def links(record: RunRecord) -> list[str]:
    """Where to look further."""
    lines = []
    if record.report:
        lines.append(f"Report:     {record.report}")
    if record.mlflow_uri:
        lines.append(f"MLflow UI:  {_mlflow_page(record, record.mlflow_uri)}")
    if record.prefect_url:
        lines.append(f"Prefect UI: {record.prefect_url}")
    return lines


def _mlflow_page(record: RunRecord, uri: str) -> str:
    """The run's page where `ladder serve` shows this record, else how to have it shown."""
    up = served(home())
    if up and up.mlflow_ui and uri == tracking_uri(home()) and record.mlflow_experiment_id and record.mlflow_run_id:
        return run_url(up.mlflow_ui, record.mlflow_experiment_id, record.mlflow_run_id)
    return ui_command(uri)
