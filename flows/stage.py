"""One stage as a flow of its own: train, evaluate, gate, record."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from prefect import flow
from prefect.client.schemas.objects import RunType, State
from prefect.runtime import flow_run
from prefect.states import Completed

from conf.schema.stage.stage import Stage
from flows.adapter.arrows import nodes_of, note_result
from flows.adapter.run_labels import label, missed_tags, untagged
from flows.adapter.steps import (
    audit_model,
    bench_model,
    cancellable,
    choose_teacher,
    decide,
    evaluate_model,
    record_model,
    result_of,
    train_control,
    train_student,
)
from models.base.device import precision_of
from tasks.records.choice.teacher import TeacherChoice
from tasks.records.run import Extension, StageRecord
from tasks.runtime import cancellation
from tasks.runtime.prefect_client import require_server
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.identity import teachers_of
from tasks.training.members import with_members
from tasks.training.teaching import has_trials


def _audited(student: StageRecord, stage: Stage, lineage: list[StageRecord], inputs: StageInputs) -> StageRecord:
    """The student's record with its audit, compared with an untaught control where `audit.control` is on."""
    control = None
    if inputs.ladder.audit.control:
        control = train_control(stage, student, lineage[-1], inputs)
    return audit_model(student, stage, lineage, inputs, control)


class _StageWork(NamedTuple):
    """Inputs of a stage's flow, given past Prefect, which would store all ancestors' records with every stage of a long ladder."""

    lineage: list[StageRecord]
    inputs: StageInputs
    extension: Extension | None


_work: ContextVar[_StageWork] = ContextVar("work of the stage")


def _run_name() -> str:
    parameters = flow_run.parameters
    number = parameters["extension"]
    return f"{parameters['stage'].name} <- {parameters['teachers'][0]}" + (f" (extension {number})" if number else "")


@flow(name="stage", flow_run_name=_run_name, validate_parameters=False, persist_result=False)
@cancellable
def _stage_flow(stage: Stage, teachers: list[str], run: str, extension: int, inserted: bool) -> StageRecord | State[StageRecord]:
    """Make a stage.

    Args:
        stage: Its settings.
        teachers: Names of its ancestors, the nearest first.
        run: The ladder run.
        extension: Number of the extension that is made; 0: none.
        inserted: Whether a gate has put it into the ladder.
    """
    work = _work.get()
    with untagged():
        record = _made(stage, work.lineage, work.inputs, work.extension, inserted)
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
    above = [*teachers_of(stage, lineage), *([extension.student] if extension else lineage[-1:])]
    names, number = [model.name for model in reversed(lineage)], extension.number if extension else 0
    token = _work.set(_StageWork(lineage, inputs, extension))
    try:
        with cancellation.engine_code():
            state = _stage_flow(stage, names, inputs.context.run, number, inserted, wait_for=nodes_of(*above), return_state=True)
    finally:
        _work.reset(token)
    record = result_of(state)
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
    choice = choose_teacher(stage, lineage, inputs) if has_trials(stage, len(lineage) - 1) else None
    student = train_student(stage, lineage, inputs, extension, 0, choice)
    judged = evaluate_model(student, lineage, inputs, precision_of(ladder, stage.training))
    judged = bench_model(judged, ladder, inputs.context)
    if ladder.audits:
        judged = _audited(judged, stage, lineage, inputs)
    decided = decide(judged, stage, lineage, ladder.audit.thresholds)
    whole = decided if decided.gate == "stopped" else with_members(decided, _members(stage, lineage, inputs, choice))
    own = whole.model_copy(update={"prefect_run_id": str(flow_run.id), "inserted": inserted})
    return record_model(own, lineage, inputs)


def _members(stage: Stage, lineage: list[StageRecord], inputs: StageInputs, choice: TeacherChoice | None) -> list[StageRecord]:
    """The rung's other students, trained with seeds of their own, evaluated and recorded; the gate judges its product alone."""
    precision, made = precision_of(inputs.ladder, stage.training), list[StageRecord]()
    for member in range(1, stage.members):
        student = train_student(stage, lineage, inputs, None, member, choice)
        made.append(record_model(evaluate_model(student, lineage, inputs, precision), lineage, inputs))
    return made
