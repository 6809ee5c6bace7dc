"""Rounds of a search: ask for trials, train them rung by rung, tell their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from conf.errors import LadderError, UserError
from conf.schema.ladder import Ladder
from flows.adapter.steps import step
from tasks.bench.bench import bench_model
from tasks.planning.budget import parse_budget
from tasks.records.format import duration
from tasks.records.routes.search import RungScore, SearchedTrial
from tasks.records.run import StageRecord
from tasks.runtime.logs import ONCE, log
from tasks.runtime.stage_inputs import StageInputs
from tasks.runtime.training_slots import training_slot
from tasks.search.plan import SearchPlan
from tasks.search.trial import TrialJob, TrialOutcome, job_of
from tasks.search.workers import Workers

if TYPE_CHECKING:
    from optuna.trial import Trial

    from tasks.search.study import Study

MOST_REFUSED = 50  # trials in a row whose values cannot be trained


def _trained(label: str, jobs: Sequence[TrialJob], workers: Workers) -> list[TrialOutcome]:
    return workers.train(jobs)


train_trials = step(_trained, "trial", "{label}")


class Searching(NamedTuple):
    """Inputs shared by the rounds of a search.

    Attributes:
        lineage: Models above the stages that are searched, the root first.
        changed: Called after each trial that has ended, with all trials.
    """

    plan: SearchPlan
    study: Study
    lineage: Sequence[StageRecord]
    inputs: StageInputs
    workers: Workers
    changed: Callable[[Sequence[SearchedTrial]], None]


def train_defaults(searching: Searching) -> SearchedTrial:
    """The ladder's own settings, trained in full: what a trial must beat.

    Raises:
        LadderError: They cannot be trained.
    """
    plan = searching.plan
    outcome = _train(searching, "the defaults", [plan.ladder])[0]
    if outcome.refused:
        raise LadderError(outcome.refused)
    second = _second(searching, outcome)
    rungs = (_score(plan, outcome),)
    return SearchedTrial(number=-1, state="complete", values={}, rungs=rungs, parameters=outcome.parameters, second=second)


def search(searching: Searching, defaults: SearchedTrial) -> None:
    """Run trials until the study has as many as are wanted, or the budget allows no more.

    Raises:
        UserError: No trial's values can be trained.
    """
    plan, study = searching.plan, searching.study
    left = study.abandoned()
    if left:
        log.info("study %s: %d unfinished trial%s of a search that was stopped", plan.study, len(left), "s" * (len(left) > 1), extra=ONCE)
    while True:
        ended = [trial for trial in study.records if trial.state in ("complete", "pruned")]
        wanted = min(searching.workers.count, plan.settings.most_trials - len(ended))
        _refuse_endless(study.records)
        if wanted <= 0:
            return
        if not left and (over := _over_budget(searching, defaults, len(ended))):
            log.info("%s", over, extra=ONCE)
            return
        batch, left = (left[:wanted], left[wanted:]) if left else ([study.ask() for _ in range(wanted)], [])
        _run(searching, batch)


def _refuse_endless(records: Sequence[SearchedTrial]) -> None:
    last = records[-MOST_REFUSED:]
    if len(last) == MOST_REFUSED and all(trial.state == "refused" for trial in last):
        allowed = "a space whose values fit together, and into search.max_parameters"
        raise UserError.about(
            "search.space", f"{MOST_REFUSED} trials in a row that cannot be trained", allowed, f"The last: {last[-1].why}"
        )


def _over_budget(searching: Searching, defaults: SearchedTrial, ended: int) -> str | None:
    """Why no further trial begins, by the time that the defaults' training takes; None: there is time for one."""
    plan = searching.plan
    if plan.settings.budget is None or not ended:  # for one trial there was time by the calibration
        return None
    own, budget = defaults.rungs[-1], parse_budget(plan.settings.budget)
    whole, spent = max(own.seconds, own.training), searching.study.spent / searching.workers.count
    kept = 2 * plan.settings.seeds * whole
    if spent + whole + kept <= budget:
        return None
    return f"budget {plan.settings.budget}: {ended} trials in {duration(spent)}; the rest is kept for the confirmation"


def _run(searching: Searching, batch: list[Trial]) -> None:
    """Take trials rung by rung to their end; those of a batch are told in their order, so the next draws do not hang on who was faster."""
    plan, study = searching.plan, searching.study
    going = [trial for trial in batch if study.goes_on(trial)]
    while going:
        ladders = {trial.number: _ladder(searching, trial) for trial in going}
        able = [trial for trial in going if ladders[trial.number] is not None]
        if able:
            label = f"trial {', '.join(str(trial.number) for trial in able)} of {plan.study}"
            outcomes = _train(searching, label, [ladder for trial in able if (ladder := ladders[trial.number])])
            going = [trial for trial, outcome in zip(able, outcomes, strict=True) if _told(searching, trial, outcome)]
        else:
            going = []
        searching.changed(study.records)


def _ladder(searching: Searching, trial: Trial) -> Ladder | None:
    """The ladder of a trial's next rung; None where its values cannot be trained, and the trial is ended."""
    plan, study = searching.plan, searching.study
    done = len(study.rungs(trial))
    if done == len(plan.shares):  # killed between its last score and its end
        study.finish(trial)
        return None
    try:
        return plan.trial(study.values(trial), plan.shares[done])
    except UserError as error:
        study.refuse(trial, str(error).partition("\n")[0])
        return None


def _told(searching: Searching, trial: Trial, outcome: TrialOutcome) -> bool:
    """Keep the outcome of a trial on a rung; returns whether it goes on to the next."""
    plan, study = searching.plan, searching.study
    most = plan.settings.max_parameters
    if outcome.refused:
        study.refuse(trial, outcome.refused)
        return False
    if most is not None and outcome.parameters > most:
        study.refuse(trial, f"{outcome.parameters:,} parameters, more than search.max_parameters")
        return False
    score = _score(plan, outcome)
    goes_on = study.report(trial, score, outcome.parameters)
    last = len(study.rungs(trial)) == len(plan.shares)
    end = "in full" if last else "goes on" if goes_on else "ends"
    values = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in study.values(trial).items())
    log.info("trial %d: %s %.4f at %d steps (%s); %s", trial.number, plan.metric, score.score, score.steps, end, values, extra=ONCE)
    if last:
        study.finish(trial, _second(searching, outcome))
    return goes_on


def _train(searching: Searching, label: str, ladders: Sequence[Ladder]) -> list[TrialOutcome]:
    plan = searching.plan
    return train_trials(label, [job_of(ladder, plan.stages, searching.lineage, searching.inputs) for ladder in ladders], searching.workers)


def _score(plan: SearchPlan, outcome: TrialOutcome) -> RungScore:
    students = outcome.students
    return RungScore(
        steps=students[-1].steps,
        score=students[-1].metrics[plan.metric],
        seconds=outcome.seconds,
        training=sum(student.seconds + student.signal_seconds for student in students),
        fingerprints=tuple(student.fingerprint for student in students),
        reused=all(student.reused for student in students),
    )


def _second(searching: Searching, outcome: TrialOutcome) -> float | None:
    """The second objective of a student: its parameters, or the seconds of its median request at the smallest batch.

    Raises:
        LadderError: Its latency could not be measured.
    """
    plan, student = searching.plan, outcome.students[-1]
    if plan.settings.against == "none":
        return None
    if plan.settings.against == "parameters":
        return float(outcome.parameters)
    ladder, context = plan.ladder, searching.inputs.context
    alone = {"bench": ladder.bench.model_copy(update={"after_stage": True}), "compute": ladder.compute.model_copy(update={"at_once": None})}
    with training_slot(ladder.compute.at_once, context.run):  # a training beside it would be measured, too
        measured = bench_model(student, ladder.model_copy(update=alone), context)
    if measured.bench is None:
        raise LadderError(f"the latency of {student.name} could not be measured; search.against: parameters needs no measurement")
    return measured.bench.cases[0].whole.p50
