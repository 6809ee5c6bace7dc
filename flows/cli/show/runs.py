"""Text and JSON of `ladder runs` and `ladder show`."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from conf.home import home
from conf.served import served
from flows.cli.show.search import search_lines
from tasks.evaluation.harness_tasks import shown
from tasks.proof.verdict_text import render
from tasks.records.export import read_exports
from tasks.records.format import NONE, duration, moment, operations, percent
from tasks.records.proof import read_proof
from tasks.records.routes.search import read_search
from tasks.records.run import RunRecord, StageRecord
from tasks.registry.history import standing
from tasks.report import export_table, tables
from tasks.report.tables import ACCURACY, BITS, SIMILARITY
from tasks.report.terminal import WIDE, table_of, text_of
from tasks.runtime.runs.run_registry import UnreadableRun
from tasks.tracking.client import run_url, tracking_uri, ui_command

UNREADABLE = "unreadable"
# Keys of a run in JSON.
ROW = (
    *("run", "ladder", "kind", "status", "started", "seconds", "stages", "last", "metric", "quality", "retention", "flops"),
    *("differs", "note", "by", "error"),
)


def run_row(record: RunRecord) -> dict[str, Any]:
    """One run in a line of JSON."""
    last, quality = record.stages[-1] if record.stages else None, tables.quality_of(record)
    return {
        "run": record.run,
        "ladder": record.ladder,
        "kind": record.kind,
        "status": record.status,
        "started": record.started,
        "seconds": record.seconds,
        "stages": f"{len(record.stages)}/{len(record.planned)}",
        "last": last.name if last else None,
        "metric": quality.key,
        "quality": last.metrics.get(quality.key) if last else None,
        "retention": last.retention.root if last else None,
        "flops": record.computed_flops,
        "differs": list(record.differs),
        "note": record.note,
        "by": record.by,
        "error": record.error,
    }


def unreadable_row(run: UnreadableRun) -> dict[str, Any]:
    """A run whose record cannot be read, in a line of JSON: as `run_row`, with nothing but its name, time and fault."""
    remedy = "Restore it, or move its folder away"
    found = {"run": run.run, "status": UNREADABLE, "started": run.written, "error": f"{run.path}: {run.reason}. {remedy}."}
    return {**dict.fromkeys(ROW), **found}


# Columns of the list: header, and where the terminal is narrow the order in which they are left out (0: never).
COLUMNS = {"run": 0, "ladder": 0, "kind": 0, "status": 0, "quality": 0, "of root": 0, "time": 3, "FLOPs": 1, "started": 2}


def runs_text(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """Runs as `run_row` gives them, each with one line below where it differs from others or has a note.

    Args:
        rows: The runs.
        width: Of the terminal; None: as it is.
    """
    if not rows:
        return "no runs yet; `ladder run digits` makes one in seconds"
    damaged = [f"{row['run']}: unreadable\n    {row['error']}" for row in rows if row["status"] == UNREADABLE]
    rows = [row for row in rows if row["status"] != UNREADABLE]
    if not rows:
        return "\n".join(damaged)
    width, cells = width or shutil.get_terminal_size((120, 24)).columns, [_cells(row) for row in rows]
    shown = list(COLUMNS)
    if all(row["run"].startswith(f"{row['ladder']}-") for row in rows):
        shown.remove("ladder")  # the name says it
    for least in sorted(filter(None, COLUMNS.values())):
        if sum(max(len(name), *(len(cell[name]) for cell in cells)) + 1 for name in shown) - 1 > width:
            shown = [name for name in shown if COLUMNS[name] != least]
    table = table_of(shown, [[cell[name] for name in shown] for cell in cells], left=shown[:4])
    head, *lines = text_of(table, width=max(width, WIDE)).splitlines()
    below = ["; ".join([*row["differs"], *([f"note: {row['note']}"] if row["note"] else [])]) for row in rows]
    return "\n".join([*damaged, head, *(part for line, more in zip(lines, below, strict=True) for part in (line, *_indented(more, width)))])


def _cells(row: dict[str, Any]) -> dict[str, str]:
    quality = next((each for each in (BITS, SIMILARITY) if each.key == row["metric"]), ACCURACY)
    score = NONE if row["quality"] is None else tables.score(quality, {quality.key: row["quality"]})
    done, planned = row["stages"].split("/")
    return {
        "run": row["run"],
        "ladder": row["ladder"],
        "kind": row["kind"],
        "status": row["status"] if done == planned else f"{row['status']}, {row['stages']}",
        "quality": f"{score} b/B" if quality is BITS and score != NONE else score,
        "of root": percent(row["retention"]),
        "time": NONE if row["seconds"] is None else duration(row["seconds"]),
        "FLOPs": operations(row["flops"]).removesuffix("FLOP").strip() if row["flops"] else NONE,
        "started": moment(row["started"])[5:16],
    }


def _indented(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


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
        | {"extensions": s.extensions, "inserted": s.inserted, "decision": s.decision, "members": [_model_json(each) for each in s.members]}
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
        "note",
        "by",
        "edited",
        "attempt",
        "planned",
        "mlflow_uri",
        "mlflow_run_id",
        "unrecorded",
        "version",
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
        "generation": values["generation"],
        "proof": proof.model_dump(mode="json") if (proof := read_proof(record)) else None,
        "search": search.model_dump(mode="json") if (search := read_search(record)) else None,
        "exports": [each.model_dump(mode="json") for each in read_exports(record)],
    }


def show_text(record: RunRecord) -> str:
    """A run as people read it."""
    lines = [f"{record.run}: {record.status}" + (f" - {record.error}" if record.error else "")]
    lines += [record.waiting] if record.waiting and record.status == "running" else []
    lines += [f"repeats {record.repeats}"] if record.repeats else []
    lines += [f"note: {record.note}"] if record.note else []
    lines += [f"by {record.by}"] if record.by else []
    now = f", {found}" if (found := standing(home(), record.version)) else ""
    lines += [f"{record.stages[-1].name} is {record.version} in MLflow's registry{now}"] if record.version else []
    lines += ["; ".join(filter(None, (f"round {made.number}: {made.words}", made.decision))) for made in record.generation]
    lines += [f"{stage.name}: {stage.decision}" for stage in record.stages if stage.decision]
    places = [f"{m.name}: {m.folder}" for m in (record.teacher, *record.stages) if m]
    places = [*elsewhere(record), *places]
    missing = [f"MLflow lacks {what}" for what in record.unrecorded]
    compared = [render(proof), "", proof.verdict, *proof.notes, ""] if (proof := read_proof(record)) else []
    compared += [*search_lines(search, record), ""] if (search := read_search(record)) else []
    parts = (*lines, *compared, tables.render_rich(record), "", *_exports(record), *missing, *places)
    return "\n".join([text_of(*parts, width=WIDE, soft_wrap=True), *links(record)])  # a command broken by us could not be copied


def _exports(record: RunRecord) -> list[Any]:
    """A table of each student's exports."""
    exports, lines = read_exports(record), []
    for stage in export_table.stages_of(exports):
        lines += [f"exports of {stage}", table_of(export_table.HEADERS, export_table.rows(exports, stage), left=("verdict",)), ""]
    return lines


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
    """Links from a run: its report, and its pages in MLflow and Prefect."""
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
