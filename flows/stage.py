"""One rung of the ladder, as a flow of its own: teach, judge, decide, record."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from conf.schema import Ladder, Stage
from tasks.compute import precision_of
from tasks.console import log
from tasks.evaluate import evaluate_model
from tasks.gate import judge
from tasks.records import DataRecord, StageRecord
from tasks.register import record_model
from tasks.runs import Context
from tasks.show import unwrap
from tasks.student import train_student


@task(name="gate", task_run_name="gate: {record.name}", cache_policy=NO_CACHE, persist_result=False)
def decide(record: StageRecord, stage: Stage) -> StageRecord:
    """Pass, warn or stop."""
    verdict, reasons = judge(record, stage.gate)
    for reason in reasons:
        log.warning("%s", reason)
    return record.model_copy(update={"gate": verdict, "gate_reasons": reasons})


def _run_name() -> str:
    parameters = flow_run.parameters
    return f"{parameters['stage'].name} <- {parameters['lineage'][-1].name}"


@flow(name="stage", flow_run_name=_run_name, validate_parameters=False, persist_result=False)
def distill_stage(
    stage: Stage, lineage: list[StageRecord], ladder: Ladder, data: DataRecord, context: Context
) -> StageRecord | State[StageRecord]:
    """Make one student from its nearest ancestor, judge it, and record it whatever the verdict."""
    student = unwrap(train_student(stage, lineage[-1], ladder, data, context, return_state=True), StageRecord)
    judged = unwrap(
        evaluate_model(student, lineage, ladder, data, context, precision_of(ladder, stage.training), return_state=True), StageRecord
    )
    decided = decide(judged, stage)
    own = decided.model_copy(update={"prefect_run_id": str(flow_run.id)})
    record = record_model(own, lineage, ladder, data, context)
    if record.reused:
        return Completed(name="Cached", message=f"reused {record.fingerprint[:12]}", data=record)
    return record
