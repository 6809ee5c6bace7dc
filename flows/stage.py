"""One rung of the ladder, as a flow of its own: teach, judge, decide, record."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from conf.schema.ladder import Ladder, Stage
from flows.run_labels import label, untagged
from models.base.device import precision_of
from tasks.audit.audit import audit_model, train_control
from tasks.bench.bench import bench_model
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.gate import judge
from tasks.records.run import DataRecord, Extension, StageRecord
from tasks.report.record_model import record_model
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import require_server
from tasks.runtime.run_registry import Context
from tasks.runtime.steps import cancellable, step, unwrap
from tasks.training.student import train_student


@step("gate", "gate: {record.name}")
def decide(record: StageRecord, stage: Stage, lineage: list[StageRecord], thresholds: tuple[float, ...]) -> StageRecord:
    """Pass, warn or stop."""
    verdict, reasons = judge(record, stage.gate, lineage, thresholds)
    for reason in reasons:
        log.warning("%s", reason)
    return record.model_copy(update={"gate": verdict, "gate_reasons": reasons})


def _audited(
    student: StageRecord, stage: Stage, lineage: list[StageRecord], ladder: Ladder, data: DataRecord, context: Context
) -> StageRecord:
    """The student's record with its audit, against an untaught control where one is asked for."""
    control = None
    if ladder.audit.control:
        control = unwrap(train_control(stage, student, lineage[-1], ladder, data, context, return_state=True), StageRecord)
    return unwrap(audit_model(student, stage, lineage, ladder, data, context, control, return_state=True), StageRecord)


def _run_name() -> str:
    parameters = flow_run.parameters
    extension = parameters.get("extension")
    return f"{parameters['stage'].name} <- {parameters['lineage'][-1].name}" + (f" (extension {extension.number})" if extension else "")


@flow(name="stage", flow_run_name=_run_name, validate_parameters=False, persist_result=False)
@cancellable
def distill_stage(
    stage: Stage,
    lineage: list[StageRecord],
    ladder: Ladder,
    data: DataRecord,
    context: Context,
    extension: Extension | None = None,
    inserted: bool = False,
) -> StageRecord | State[StageRecord]:
    """Make one student from its nearest ancestor, or train one on, judge it, and record it whatever the verdict."""
    with untagged():
        record = _made(stage, lineage, ladder, data, context, extension, inserted)
    require_server()
    label(tags=[f"quality:{record.gate or 'not asked'}"])
    message = "; ".join(record.gate_reasons) or None
    if record.reused:
        return Completed(name="Cached", message=message or f"reused {record.fingerprint[:12]}", data=record)
    return Completed(message=message, data=record) if message else record


def _made(
    stage: Stage,
    lineage: list[StageRecord],
    ladder: Ladder,
    data: DataRecord,
    context: Context,
    extension: Extension | None,
    inserted: bool,
) -> StageRecord:
    student = unwrap(train_student(stage, lineage[-1], ladder, data, context, extension, lineage, return_state=True), StageRecord)
    judged = unwrap(
        evaluate_model(student, lineage, ladder, data, context, precision_of(ladder, stage.training), return_state=True), StageRecord
    )
    judged = unwrap(bench_model(judged, ladder, context, return_state=True), StageRecord)
    if ladder.audit.enabled:
        judged = _audited(judged, stage, lineage, ladder, data, context)
    decided = decide(judged, stage, lineage, ladder.audit.thresholds)
    own = decided.model_copy(update={"prefect_run_id": str(flow_run.id), "inserted": inserted})
    return record_model(own, lineage, ladder, data, context)
