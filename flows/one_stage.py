"""One stage of a ladder from finished teachers, as a run of its own."""

from __future__ import annotations

from dataclasses import replace

from prefect import flow
from prefect.client.schemas.objects import State

from conf.errors import UserError
from conf.home import home
from conf.loading.introspect import suggest
from flows.adapter.run_labels import label_run
from flows.adapter.steps import cancellable, prepare_data, record_model
from flows.distill import conclude
from flows.gate_policies import run_with_policy
from flows.generating.generate import with_generated
from flows.parameters import LadderChoice, Note, OptionalSeed, Overrides, Person, RunTitle, StageName, TeacherNames, request_of, resolve
from tasks.lifecycle.ladder_run import LadderRun
from tasks.lifecycle.request import ResolvedRequest
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.named_models import named_models


@flow(name="one-stage", flow_run_name="{stage} of {ladder}", persist_result=False)
@cancellable
def one_stage(
    ladder: LadderChoice = "python-stdlib",
    stage: StageName = "100k",
    teachers: TeacherNames = (),
    overrides: Overrides = (),
    seed: OptionalSeed = -1,
    fresh: bool = False,
    name: RunTitle = "",
    note: Note = "",
    by: Person = "",
) -> RunRecord | State[RunRecord]:
    """Make one student from named teachers, judge it and report it.

    Args:
        ladder: A shipped ladder, or the path of a YAML file.
        stage: The stage to make.
        teachers: Finished models, the nearest first, the root last: NAME, RUN:NAME or a fingerprint. None: all that stand above the stage.
        overrides: Settings to change, as `key=value` with dotted keys: `stages.100k.objective.alpha=0.5`.
        seed: Seed of data order and first weights; -1: the ladder's own.
        fresh: Compute anew even results that are stored.
        name: Name of the run, part of its folder's; empty: ladder, three characters and the time.
        note: Why it is made, for the record.
        by: Who asks for it, for the record.
    """
    request = request_of(ladder, overrides=overrides, seed=seed, fresh=fresh, only=stage, teachers=teachers, name=name, note=note, by=by)
    resolved = resolve(request)
    chosen = _single(resolved)
    single = chosen.ladder
    with LadderRun.open(chosen) as run:
        label_run(run.record)
        inputs = StageInputs(single, run.keep_data(prepare_data(single, run.context)), run.context)
        lineage: list[StageRecord] = []
        for model in chosen.teachers:
            lineage.append(run.keep(record_model(model, lineage, inputs)))
        whole = with_generated(lineage[0], replace(inputs, ladder=resolved.ladder), run)  # rounds train the ladder's first stage
        inputs = replace(whole, ladder=single)
        for made in run_with_policy(single.stages[0], lineage, inputs, run):
            run.keep(made)
        return conclude(run, single)


def _single(resolved: ResolvedRequest) -> ResolvedRequest:
    """The request with its one stage as the whole ladder, and the models that teach it.

    Raises:
        UserError: The ladder has no such stage, or a teacher is not finished.
    """
    request, stages = resolved.request, resolved.ladder.stages
    names = [stage.name for stage in stages]
    if request.only not in names:
        remedy = suggest(request.only or "", names).strip()
        raise UserError.about("stage", request.only, f"a stage of this ladder: {', '.join(names)}", remedy)
    index = names.index(request.only)
    teachers = named_models(home(), resolved.ladder.name, list(reversed(request.teachers)) or ["teacher", *names[:index]])
    return replace(resolved, ladder=resolved.ladder.model_copy(update={"stages": (stages[index],)}), teachers=tuple(teachers))
