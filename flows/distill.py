"""THE MAIN LOOP: the teacher, then each stage from its teachers, then the report."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from conf.errors import ExportRefused, GateStopped
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from flows.adapter.run_labels import label, label_run, missed_tags
from flows.adapter.steps import (
    bench_model,
    cancellable,
    evaluate_model,
    export_student,
    prepare_data,
    prepare_teacher,
    publish_report,
    record_model,
    register_version,
)
from flows.gate_policies import run_with_policy
from flows.generating.generate import with_generated
from flows.parameters import (
    LadderChoice,
    Note,
    OptionalBudget,
    OptionalRoute,
    OptionalSeed,
    OptionalStage,
    Overrides,
    Person,
    RunTitle,
    request_of,
    resolve,
)
from flows.routing.choose import on_route
from models.base.device import precision_of
from tasks.export.export import Exporter
from tasks.export.run_exports import require_inside
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import RunRecord, StageRecord
from tasks.registry.candidates import students_to_register
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.quality import accept_teacher


@flow(name="distill", flow_run_name="{ladder}", persist_result=False)
@cancellable
def distill(
    ladder: LadderChoice = "python-stdlib",
    overrides: Overrides = (),
    start_at: OptionalStage = "",
    seed: OptionalSeed = -1,
    fresh: bool = False,
    budget: OptionalBudget = "",
    route: OptionalRoute = "",
    name: RunTitle = "",
    note: Note = "",
    by: Person = "",
) -> RunRecord | State[RunRecord]:
    """Distil a teacher down a ladder.

    Args:
        ladder: A shipped ladder, or the path of a YAML file.
        overrides: Settings to change, as `key=value` with dotted keys: `stages.100k.objective.alpha=0.5`.
        start_at: First stage that may be computed; what comes before it must be finished already. Empty: any.
        seed: Seed of data order and first weights; -1: the ladder's own.
        fresh: Compute anew, from `start_at` on, even results that are stored.
        budget: Wall-clock time such as `5m`, to which steps and held-out examples are scaled down by a calibration; empty: no limit.
        route: Route that rewrites the stages; empty: the ladder's own.
        name: Name of the run, part of its folder's; empty: ladder, three characters and the time.
        note: Why it is made, for the record.
        by: Who asks for it, for the record.
    """
    overrides = (*overrides, f"route={route}") if route else overrides
    request = request_of(ladder, overrides=overrides, start_at=start_at, seed=seed, fresh=fresh, budget=budget, name=name, note=note, by=by)
    resolved = resolve(request)
    settings = resolved.ladder
    with LadderRun.open(resolved) as run:
        inputs, teacher = begin(run, settings)
        teacher = bench_model(teacher, settings, run.context)
        lineage = [run.keep(record_model(teacher, [], inputs))]
        inputs = on_route(lineage[0], with_generated(lineage[0], inputs, run), run)
        settings = inputs.ladder
        for stage in settings.stages:
            made = run_with_policy(stage, lineage, inputs, run)
            lineage += [run.keep(model) for model in made]
            if lineage[-1].gate == "stopped":
                break
        return conclude(run, settings)


def begin(run: LadderRun, settings: Ladder) -> tuple[StageInputs, StageRecord]:
    """Prepare the data and the root teacher, evaluate it, and refuse one that may not teach."""
    label_run(run.record)
    inputs = StageInputs(settings, run.keep_data(prepare_data(settings, run.context)), run.context)
    precision = precision_of(settings, settings.teacher.training or settings.stages[0].training)
    return inputs, accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, precision), inputs)


def conclude(run: LadderRun, settings: Ladder) -> RunRecord | State[RunRecord]:
    """Make the exports, register, write the report and say how the run has ended: one that a gate stopped has a state of its own."""
    refused = _export(run, settings)
    record = run.finish(refused and str(refused))
    if record.mlflow_run_id and students_to_register(record, settings):
        record = register_version(record, settings)
    record = publish_report(record, to_yaml(settings))
    run.save_end(record)
    label(tags=missed_tags(record.stages[-1]))
    if record.status == "stopped" and record.error:
        return Failed(name="GateStopped", message=record.error, data=GateStopped(record.error))
    return Failed(name="ExportRefused", message=str(refused), data=refused) if refused else record


def _export(run: LadderRun, settings: Ladder) -> ExportRefused | None:
    """Export the last student in the formats that the ladder names, unless its gate has stopped it; returns why some are refused."""
    record = run.record
    if not settings.exports or not record.stages or record.stages[-1].gate == "stopped":
        return None
    assert record.data is not None
    with Exporter(record.stages[-1], settings, record.data, run.context) as exporter:
        made = [export_student(exporter, export, record) for export in settings.exports]
    try:
        require_inside(made)
    except ExportRefused as error:
        return error
    return None
