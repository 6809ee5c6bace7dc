"""Record a model in MLflow: lineage, settings, figures, curve and files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tasks.records.run import StageRecord
from tasks.report.model_card import write_card
from tasks.runtime.runs.run_registry import Context, original_mlflow_run
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.origin import origin_of
from tasks.tracking.curves import stored_curve
from tasks.tracking.packaging.flavour import parts_of
from tasks.tracking.recorder import Recorder, recorder_of
from tasks.tracking.tracker import Tracker


def record_model(record: StageRecord, lineage: list[StageRecord], inputs: StageInputs) -> StageRecord:
    """Record a judged model in MLflow, a student with its card; a reused one is linked to the run that made it, not stored again.

    Where MLflow does not take it, the run goes on, and its record names the missing parts; the same command records it later.
    """
    context = inputs.context
    if lineage:
        write_card(record, lineage, inputs.ladder, inputs.data, context)
    recorder = recorder_of(context.paths, context.run)
    act = partial(_record, recorder, record, lineage, inputs)
    return recorder.attempt(f"{record.name} (curve, figures, model)", context.mlflow_run_id, act) or record


def _record(
    recorder: Recorder, record: StageRecord, lineage: list[StageRecord], inputs: StageInputs, tracker: Tracker, run_id: str
) -> StageRecord:
    ladder, context = inputs.ladder, inputs.context
    recorder.send_pending(record.fingerprint)
    original = original_mlflow_run(context.paths, record) if record.reused else None
    if record.reused and record.reused_from != context.run:  # an earlier attempt of this run is no other run
        linked = tracker.link_reused(run_id, record, original)
        if linked is not None:
            return record.model_copy(update={"mlflow_run_id": linked})
    tags = context.tags | ({"prefect.flow_run_id": record.prefect_run_id} if record.prefect_run_id else {})
    stage = tracker.open_stage(
        run_id,
        record.name,
        record.fingerprint,
        settings=record.identity,
        teacher_run_ids=[lineage[-1].mlflow_run_id] if lineage and lineage[-1].mlflow_run_id else [],
        tags=tags,
        reused_from=record.reused_from if record.reused_from != context.run else None,
    )
    done = record.model_copy(update={"mlflow_run_id": stage.run_id})
    if stage.state != "finished":
        tracker.log_dataset(stage.run_id, ladder.name, inputs.data.corpus())
        folder = Path(record.folder)
        if record.audit is not None:
            tracker.log_artifact(stage.run_id, Path(record.audit.folder) / "worst.parquet")
        model = folder if (folder / "config.json").is_file() else None  # answers are no model that could be loaded
        # Points that an earlier attempt, or a worker that has ended, may have lost; those of this process are all sent.
        lost = record.reused or record.resumed_at is not None or ladder.compute.launcher != "local"
        curve = partial(stored_curve, folder) if lost else None
        facts = origin_of(ladder, lineage[0] if lineage else record, context).facts()
        tracker.finish_stage(
            stage.run_id,
            done,
            workload=ladder.workload,
            folder=model,
            facts=facts,
            add_parts=partial(_add_parts, folder, inputs),
            original_run_id=original,
            curve=curve,
        )
        tracker.describe_stage(stage.run_id, done, lineage)
    return done


def _add_parts(folder: Path, inputs: StageInputs, target: Path) -> None:
    """Write the corpus's tokenizer or image processor where the model, such as an imported checkpoint, has none of its own."""
    if not parts_of(folder):
        from tasks.training.published import write_missing

        write_missing(folder, inputs.data.corpus(), target)


def record_decision(record: StageRecord, context: Context) -> StageRecord:
    """Note a person's decision about a student in MLflow, unless its run is an earlier ladder run's; this one's summary has it anyhow."""
    tags = {"ladder.gate": record.gate or "none", "ladder.decision": record.decision or ""}

    def act(tracker: Tracker, run_id: str) -> None:
        if context.mlflow_run_id and tracker.is_child(run_id, context.mlflow_run_id):
            tracker.set_tags(run_id, tags)

    recorder_of(context.paths, context.run).attempt(f"{record.name} (decision)", record.mlflow_run_id, act)
    return record
