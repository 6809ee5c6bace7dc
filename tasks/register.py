"""The MLflow step: what a model is, from what it was made, how good it is, and the model itself."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from conf.schema import Ladder
from tasks.compute import corpus_of, tracker_of
from tasks.records import DataRecord, StageRecord
from tasks.runs import Context, original_mlflow_run


@task(name="record", task_run_name="record {record.name}", cache_policy=NO_CACHE, persist_result=False)
def record_model(record: StageRecord, lineage: list[StageRecord], ladder: Ladder, data: DataRecord, context: Context) -> StageRecord:
    """Record a judged model in MLflow; a reused one is linked to the run that made it, not stored again."""
    tracker = tracker_of(context.paths)
    assert context.mlflow_run_id
    tags = {"prefect.flow_run_id": record.prefect_run_id} if record.prefect_run_id else {}
    stage = tracker.open_stage(
        context.mlflow_run_id,
        record.name,
        record.fingerprint,
        settings=record.identity,
        teacher_run_ids=[lineage[-1].mlflow_run_id] if lineage and lineage[-1].mlflow_run_id else [],
        tags=tags,
        reused_from=record.reused_from if record.reused_from != context.run else None,  # an earlier attempt of this run is no other run
    )
    done = record.model_copy(update={"mlflow_run_id": stage.run_id})
    if stage.state != "finished":
        tracker.log_dataset(stage.run_id, ladder.name, corpus_of(data))
        original = original_mlflow_run(context.paths, record) if record.reused else None
        tracker.finish_stage(stage.run_id, done, workload=ladder.workload, folder=Path(record.folder), original_run_id=original)
    return done
