"""What the command line prints: plans, runs and one run, as text and as the JSON that scripts read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from conf.home import home
from conf.served import served
from tasks.proof import verdict_text as proof_words
from tasks.records import format as fmt
from tasks.records.format import money
from tasks.records.proof import read_proof
from tasks.records.run import RunRecord, StageRecord
from tasks.report import tables
from tasks.tracking.client import run_url, tracking_uri, ui_command

if TYPE_CHECKING:  # it needs torch and Prefect, which take seconds to import
    from tasks.planning.costs import PlanCosts
    from tasks.planning.plan import LadderPlan, ModelPlan


def _text(*renderables: Any) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, highlight=False)
    for renderable in renderables:
        console.print(renderable, markup=False, soft_wrap=isinstance(renderable, str))
    return buffer.getvalue().rstrip()


def duration(seconds: float) -> str:
    """An estimated time in the unit that suits it: `40 s`, `12 min`, `3.4 h`, `2.1 days`, `6.3 years`."""
    for unit, size, below, digits in (("s", 1, 120, 0), ("min", 60, 7200, 0), ("h", 3600, 172800, 1), ("days", 86400, 730 * 86400, 1)):
        if seconds < below:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / (365 * 86400):,.1f} years"


def plan_text(plan: LadderPlan) -> str:
    """The plan as a table and, below it, why anything is computed again."""
    table = Table(box=None, pad_edge=False)
    for header in ("model", "params", "non-emb", "ratio", "tokens", "FLOPs", "time", "memory", "will be"):
        table.add_column(header, justify="left" if header in ("model", "will be") else "right", no_wrap=True)
    for model in (plan.teacher, *plan.stages):
        table.add_row(*_plan_row(model))
    lines = [f"{model.name}: {'; '.join(model.changes)}" for model in (plan.teacher, *plan.stages) if model.changes]
    changed = ["", "Computed again because:", *lines] if lines else []
    total = f"To compute: {plan.flops:.2e} FLOPs, about {duration(plan.seconds)} of training at {plan.basis}."
    costs = costs_text(plan.costs, plan.teacher.name)
    data = {"prepare": "will be prepared", "reuse": "reused", "missing": "missing"}[plan.data]
    return _text(f"{plan.ladder}: data {data}", table, *changed, "", total, costs, *(f"note: {note}" for note in plan.notes))


def costs_text(costs: PlanCosts, root: str) -> str:
    """The price of a plan, beside that of one jump."""
    text = (
        f"Price at {money(costs.price_per_hour, costs.currency)} an hour: {money(costs.to_compute, costs.currency)} for what is to be "
        f"computed. The whole ladder: {costs.flops:.2e} FLOPs, about {duration(costs.seconds)}, {money(costs.price, costs.currency)}"
    )
    jump = costs.jump
    if jump is None:
        return f"{text}."
    price = money(jump.price, costs.currency)
    return f"{text}; one jump {root} -> {jump.student} with as many FLOPs: {jump.steps:,} steps, about {duration(jump.seconds)}, {price}."


def _plan_row(model: ModelPlan) -> list[str]:
    action = (
        f"resumed at {model.resume_step}"
        if model.action == "resume"
        else {"compute": "computed", "reuse": "reused"}.get(model.action, "imported")
    )
    return [
        model.name,
        fmt.human(model.parameters) if model.parameters else "?",
        fmt.human(model.non_embedding) if model.non_embedding is not None else "?",
        f"{model.ratio:.2f}" if model.ratio else "",
        fmt.human(model.tokens) if model.tokens else "",
        f"{model.flops:.1e}" if model.flops else "",
        duration(model.seconds) if model.seconds else "",
        f"{model.memory_bytes / 2**20:,.0f} MiB" if model.memory_bytes else "",
        action,
    ]


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
    table = Table(box=None, pad_edge=False)
    for header in ("run", "status", "started", "seconds", "stages"):
        table.add_column(header, no_wrap=True)
    for row in map(run_row, records):
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        table.add_row(row["run"], row["status"], row["started"], seconds, row["stages"])
    return _text(table)


def _model_json(model: StageRecord) -> dict[str, Any]:
    names = ("name", "fingerprint", "parameters", "reused", "steps", "seconds", "folder", "weights_sha256", "metrics", "mlflow_run_id")
    whole = model.model_dump(mode="json")
    more = ("non_embedding", "tokens", "flops", "reused_from", "resumed_at", "early_stopped", "teachers", "prefect_run_id", "slices")
    return {name: whole[name] for name in (*names, *more)}


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
    whole = record.model_dump(mode="json")
    return {
        "run": record.run,
        "ladder": record.ladder,
        "status": record.status,
        "teacher": _model_json(record.teacher) if record.teacher else None,
        "stages": stages,
        **{name: whole[name] for name in rest},
        "proof": proof.model_dump(mode="json") if (proof := read_proof(record)) else None,
    }


def show_text(record: RunRecord) -> str:
    """A run as people read it."""
    lines = [f"{record.run}: {record.status}" + (f" - {record.error}" if record.error else "")]
    lines += [record.waiting] if record.waiting and record.status == "running" else []
    lines += [f"repeats {record.repeats}"] if record.repeats else []
    lines += [f"{stage.name}: {stage.decision}" for stage in record.stages if stage.decision]
    places = [f"{m.name}: {m.folder}" for m in (record.teacher, *record.stages) if m]
    missing = [f"MLflow lacks {what}" for what in record.unrecorded]
    compared = [proof_words.render(proof), "", proof.verdict, *proof.notes, ""] if (proof := read_proof(record)) else []
    return _text(*lines, *compared, tables.render_rich(record), "", *places, *links(record), *missing)


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
