"""One stage as a flow of its own: train, evaluate, gate, record."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import RunType, State
from prefect.runtime import flow_run
from prefect.states import Completed

from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from flows.arrows import nodes_of, note_result
from flows.run_labels import label, missed_tags, untagged
from flows.steps import audit_model, bench_model, cancellable, decide, evaluate_model, record_model, train_control, train_student
from models.base.device import precision_of
from tasks.records.run import DataRecord, Extension, StageRecord
from tasks.runtime import cancellation
from tasks.runtime.prefect_client import require_server
from tasks.runtime.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.identity import teachers_of


def _audited(student: StageRecord, stage: Stage, lineage: list[StageRecord], inputs: StageInputs) -> StageRecord:
    """The student's record with its audit, compared with an untaught control where `audit.control` is on."""
    control = None
    if inputs.ladder.audit.control:
        control = train_control(stage, student, lineage[-1], inputs)
    return audit_model(student, stage, lineage, inputs, control)


def _run_name() -> str:
    parameters = flow_run.parameters
    extension = parameters.get("extension")
    return f"{parameters['stage'].name} <- {parameters['lineage'][-1].name}" + (f" (extension {extension.number})" if extension else "")


@flow(name="stage", flow_run_name=_run_name, validate_parameters=False, persist_result=False)
@cancellable
def _stage_flow(
    stage: Stage,
    lineage: list[StageRecord],
    ladder: Ladder,
    data: DataRecord,
    context: Context,
    extension: Extension | None,
    inserted: bool,
) -> StageRecord | State[StageRecord]:
    with untagged():
        record = _made(stage, lineage, StageInputs(ladder, data, context), extension, inserted)
    require_server()
    label(tags=missed_tags(record))
    message = "; ".join(record.gate_reasons) or None
    if record.reused:
        return Completed(name="Cached", message=message or f"reused {record.fingerprint[:12]}", data=record)
    return Completed(message=message, data=record) if message else record


def distill_stage(
    stage: Stage,
    lineage: list[StageRecord],
    inputs: StageInputs,
    extension: Extension | None = None,
    inserted: bool = False,
) -> StageRecord:
    """Make one student from its nearest ancestor, or train one on, judge it, and record it whatever the verdict."""
    ladder, data, context = inputs.ladder, inputs.data, inputs.context  # the parameters that Prefect shows of the flow
    above = [*teachers_of(stage, lineage), *([extension.student] if extension else lineage[-1:])]
    with cancellation.engine_code():
        state = _stage_flow(stage, lineage, ladder, data, context, extension, inserted, wait_for=nodes_of(*above), return_state=True)
    record = state.result()
    assert isinstance(record, StageRecord)
    note_result(record, state, RunType.FLOW_RUN)
    return record


def _made(
    stage: Stage,
    lineage: list[StageRecord],
    inputs: StageInputs,
    extension: Extension | None,
    inserted: bool,
) -> StageRecord:
    ladder = inputs.ladder
    student = train_student(stage, lineage, inputs, extension)
    judged = evaluate_model(student, lineage, inputs, precision_of(ladder, stage.training))
    judged = bench_model(judged, ladder, inputs.context)
    if ladder.audit.enabled:
        judged = _audited(judged, stage, lineage, inputs)
    decided = decide(judged, stage, lineage, ladder.audit.thresholds)
    own = decided.model_copy(update={"prefect_run_id": str(flow_run.id), "inserted": inserted})
    return record_model(own, lineage, inputs)
