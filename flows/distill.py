"""THE MAIN LOOP: the teacher, then each stage taught by the last accepted one, then the report."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from conf.errors import GateStopped
from conf.load import load, to_yaml
from flows.stage import distill_stage
from tasks.compute import precision_of
from tasks.data import prepare_data
from tasks.evaluate import evaluate_model
from tasks.ladder_run import LadderRun
from tasks.publish import publish_report
from tasks.records import DataRecord, RunRecord, StageRecord
from tasks.register import record_model
from tasks.show import unwrap
from tasks.teacher import prepare_teacher


@flow(name="distill", flow_run_name="{ladder}", persist_result=False)
def distill(
    ladder: str = "python-stdlib", overrides: list[str] | None = None, start_at: str | None = None, fresh: bool = False
) -> RunRecord | State[RunRecord]:
    """Distil a teacher down a ladder.

    Args:
        ladder: Name of a shipped ladder, or path of a YAML file.
        overrides: Settings to change, as `key=value` with dotted keys: `stages.100k.objective.alpha=0.5`.
        start_at: First stage that may be computed; what comes before it must be finished already.
        fresh: Compute anew, from `start_at` on, what the store holds already.
    """
    settings, base = load(ladder, overrides or [])
    with LadderRun.open(ladder, settings, base, overrides or [], start_at, fresh, str(flow_run.id)) as run:
        data = run.keep_data(unwrap(prepare_data(settings, run.context, return_state=True), DataRecord))
        teacher = unwrap(prepare_teacher(settings, data, run.context, return_state=True), StageRecord)
        precision = precision_of(settings, (settings.teacher if settings.teacher.source == "train" else settings.stages[0]).training)
        teacher = unwrap(evaluate_model(teacher, [], settings, data, run.context, precision, return_state=True), StageRecord)
        lineage = [run.keep(record_model(teacher, [], settings, data, run.context))]
        for stage in settings.stages:
            student = run.keep(unwrap(distill_stage(stage, lineage, settings, data, run.context, return_state=True), StageRecord))
            if student.gate == "stopped":
                break
            lineage.append(student)
        record = run.finish()
        record = publish_report(record, to_yaml(settings))
        run.save(record)
    if record.status == "stopped" and record.error:
        return Failed(name="GateStopped", message=record.error, data=GateStopped(record.error))
    return record
