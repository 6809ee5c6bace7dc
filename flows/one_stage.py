"""One stage of a ladder, taught by models that are finished already: for a trial that leaves the rest of the ladder alone."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from conf.errors import UserError
from conf.home import home
from conf.loading.load import suggest
from flows.distill import conclude
from flows.gate_policies import run_with_policy
from flows.parameters import LadderChoice, OptionalSeed, Overrides, StageName, TeacherNames, chosen, refuse_early
from flows.run_labels import Asked, is_served, label_run, repeated
from flows.steps import cancellable, prepare_data, record_model
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import RunRecord, StageRecord
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
    repeats: str = "",
) -> RunRecord | State[RunRecord]:
    """Make one student from named teachers, judge it and report it.

    Args:
        ladder: A shipped ladder, or the path of a YAML file.
        stage: The stage to make.
        teachers: Finished models, the nearest first, the root last: NAME, RUN:NAME or a fingerprint. None: all that stand above the stage.
        overrides: Settings to change, as `key=value` with dotted keys: `stages.100k.objective.alpha=0.5`.
        seed: Seed of data order and first weights; -1: the ladder's own.
        fresh: Compute anew what the store holds already.
        repeats: Name of the run that this one repeats, for the record; may be empty.
    """
    served = is_served()
    loaded, given = chosen(ladder, None, overrides, seed, served)
    refuse_early(loaded, None, fresh)
    settings, base = loaded
    names = [known.name for known in settings.stages]
    if stage not in names:
        raise UserError.about("stage", stage, f"a stage of this ladder: {', '.join(names)}", suggest(stage, names).strip())
    above = ["teacher", *names[: names.index(stage)]]
    found = named_models(home(), settings.name, list(reversed(teachers)) or above)
    single = settings.model_copy(update={"stages": (settings.stages[names.index(stage)],)})
    more = {"named": [model.fingerprint for model in reversed(found)], "served": served}
    of = repeated(Asked(ladder, tuple(given), stage, fresh=fresh), repeats)
    with LadderRun.open(ladder, single, base, given, None, fresh, str(flow_run.id), of, **more) as run:
        label_run(run.record)
        data = run.keep_data(prepare_data(single, run.context))
        lineage: list[StageRecord] = []
        for model in found:
            lineage.append(run.keep(record_model(model, lineage, single, data, run.context)))
        for made in run_with_policy(single.stages[0], lineage, single, data, run):
            run.keep(made)
        return conclude(run, single)
