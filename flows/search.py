"""Search for better settings of a ladder's stages, and confirm the winner."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from conf.errors import UserError
from conf.home import home
from conf.loading.yaml_output import to_yaml
from conf.schema.base import NAME_PATTERN
from conf.schema.choice.search import METRICS
from conf.schema.ladder import Ladder
from flows.adapter.steps import cancellable, evaluate_model, publish_report, record_model, train_student
from flows.distill import begin
from flows.generating.generate import with_generated
from flows.parameters import (
    LadderChoice,
    Note,
    OptionalBudget,
    OptionalSeed,
    Overrides,
    Person,
    RunTitle,
    request_of,
    resolve,
)
from flows.searching.progress import SearchProgress
from flows.searching.rounds import Searching, search, train_defaults, train_trials
from models.base.device import precision_of
from tasks.lifecycle.ladder_run import LadderRun
from tasks.lifecycle.request import RunRequest
from tasks.planning.matching import reseeded
from tasks.records.routes.search import SearchedTrial, SearchRecord
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.logs import NOT_ON_TERMINAL, log
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.cluster import require_cluster, workers_of
from tasks.search.confirm import confirmation_of, fresh_seeds
from tasks.search.plan import SearchPlan, plan_search
from tasks.search.result import confirmed, log_search, log_trial, save_search, search_record
from tasks.search.time import require_time
from tasks.search.trial import TrialOutcome, job_of
from tasks.search.workers import Workers

if TYPE_CHECKING:
    from tasks.search.study import Study

SearchedStage = Annotated[str, Field(pattern=rf"^$|{NAME_PATTERN}")]
OptionalCount = Annotated[int, Field(ge=0, le=10_000)]
OptionalMetric = Annotated[str, Field(json_schema_extra={"enum": ["", *dict.fromkeys(chain(*METRICS.values()))]})]


@flow(name="search", flow_run_name="search of {ladder}", persist_result=False)
@cancellable
def search_settings(
    ladder: LadderChoice = "digits",
    overrides: Overrides = (),
    stage: SearchedStage = "",
    trials: OptionalCount = 0,
    budget: OptionalBudget = "",
    metric: OptionalMetric = "",
    seed: OptionalSeed = -1,
    name: RunTitle = "",
    note: Note = "",
    by: Person = "",
) -> RunRecord | State[RunRecord]:
    """Search for better settings of a ladder's stages, and compare the winner with the defaults on fresh seeds.

    Args:
        ladder: A shipped ladder, or the path of a YAML file.
        overrides: Settings to change, as `key=value`: `search.seeds=8`, `search.study=second`, `search.against=parameters`.
        stage: The stage whose settings are searched; empty: `search.stage`, else all stages, judged by the last.
        trials: Trials of the study in all; 0: `search.trials`.
        budget: Wall-clock time such as `2h` for trials and confirmation; empty: `search.budget`.
        metric: Figure by which trials are judged, on the validation split; empty: `search.metric`.
        seed: Seed of data order and first weights; -1: the ladder's own.
        name: Name of the run, part of its folder's; empty: ladder, three characters and the time.
        note: Why it is made, for the record.
        by: Who asks for it, for the record.
    """
    fields = {"stage": stage, "trials": trials, "budget": budget, "metric": metric}
    given = (*overrides, *(f"search.{key}={value}" for key, value in fields.items() if value))
    request = request_of(ladder, overrides=given, seed=seed, name=name, note=note, by=by, search=True)
    _refuse_address(request)
    resolved = resolve(request)
    settings = resolved.ladder
    plan = plan_search(settings)
    require_time(plan, resolved.base, home())
    from tasks.search.study import claimed, open_study  # Optuna is imported where it searches

    require_cluster(settings.compute.at_once)
    with LadderRun.open(resolved) as run, claimed(run.context.paths, plan):
        study = open_study(plan, run.context.paths)
        inputs, teacher = begin(run, settings)
        lineage = [run.keep(record_model(teacher, [], inputs))]
        inputs = with_generated(lineage[0], inputs, run)
        for stage in plan.above:
            lineage.append(run.keep(_made(stage, lineage, inputs)))
        with workers_of(settings.compute.at_once) as workers:
            record = _searched(plan, study, lineage, inputs, run, workers)
        best = record.best
        winner = plan.trial(best.values) if best else settings
        own = StageInputs(winner, inputs.data, run.context)
        for stage in plan.stages:
            lineage.append(run.keep(_made(stage, lineage, own)))
        ended = run.finish()
        log_search(record, run.context, run.context.mlflow_run_id)
        ended = publish_report(ended, to_yaml(settings))
        run.save_end(ended)
        return ended


def _refuse_address(request: RunRequest) -> None:
    """Refuse a database that a form names: a served run connects to those of ladder files alone.

    Raises:
        UserError: An override sets it.
    """
    found = next((text for text in request.overrides if re.match(r"\s*search(\.storage\b|\s*=)", text)), None)
    if request.served and found:
        remedy = "Write it into the ladder's file."
        raise UserError.about("search.storage", found.partition("=")[2], "no override of it, in a served run", remedy)


def _made(name: str, lineage: list[StageRecord], inputs: StageInputs) -> StageRecord:
    """A stage with the settings of `inputs`, found or trained, judged and recorded."""
    stage = next(stage for stage in inputs.ladder.stages if stage.name == name)
    student = train_student(stage, lineage, inputs)
    return record_model(evaluate_model(student, lineage, inputs, precision_of(inputs.ladder, stage.training)), lineage, inputs)


def _searched(
    plan: SearchPlan, study: Study, lineage: Sequence[StageRecord], inputs: StageInputs, run: LadderRun, workers: Workers
) -> SearchRecord:
    """Train the defaults and the trials, and confirm the winner; the record is on disk after every trial."""
    progress, defaults, sent = SearchProgress(plan), None, set[int]()

    def changed(trials: Sequence[SearchedTrial]) -> None:
        record = save_search(run.record, search_record(plan, run.record.run, trials, defaults), run.context)
        progress.show(record, study.spent)
        for trial in trials:
            if trial.state != "running" and trial.number not in sent:
                log_trial(record, trial, run.context, run.context.mlflow_run_id)
                sent.add(trial.number)

    searching = Searching(plan, study, lineage, inputs, workers, changed)
    defaults = train_defaults(searching)
    changed(study.records)
    search(searching, defaults)
    changed(study.records)
    record = search_record(plan, run.record.run, study.records, defaults).model_copy(update={"importance": study.importance()})
    record = _confirmed(record, searching, run)
    log.info("%s", record.verdict, extra=NOT_ON_TERMINAL)  # the command prints it at its end
    return save_search(run.record, record, run.context)


def _confirmed(record: SearchRecord, searching: Searching, run: LadderRun) -> SearchRecord:
    """Train winner and defaults on fresh seeds, seed by seed, judged on the test split."""
    plan, best = searching.plan, record.best
    if best is None or not plan.settings.seeds:
        return record
    arms: tuple[Ladder, Ladder] = (plan.trial(best.values), plan.ladder)
    results: tuple[list[TrialOutcome], list[TrialOutcome]] = ([], [])
    for number, seed in enumerate(fresh_seeds(plan), start=1):
        for words, ladder, found in zip(("the winner", "the defaults"), arms, results, strict=True):
            job = job_of(reseeded(ladder, number, plan.stages), plan.stages, searching.lineage, searching.inputs, "test")
            found += train_trials(f"{words}, seed {seed}", [job], searching.workers)
        record = confirmed(record, confirmation_of(plan, *results, _examples(results[0][0])))
        save_search(run.record, record, run.context)
    return record


def _examples(outcome: TrialOutcome) -> int:
    return int(sum(figures.get("count", 0) for figures in outcome.students[-1].slices.values()))
