"""Back to work after a drop: run the ladder again with the windows, then promote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from pydantic import Field

from conf.errors import GateStopped, LadderError, PromotionRefused, RecordUnavailable, RunCancelled, UserError, reason_of
from conf.home import Home, home
from conf.loading.path_policy import confine_pattern
from flows.adapter.run_labels import is_served, label
from flows.adapter.steps import cancellable, result_of
from flows.distill import distill
from flows.parameters import Note, Person, beside_form, resolve, roots
from flows.promote import promote
from flows.serving.drift import NAME as AUTOMATION
from flows.serving.drift import is_automated
from tasks.lifecycle.request import NOTE_LENGTH, RunRequest
from tasks.monitoring.history import read_history
from tasks.records.monitoring import WindowReport
from tasks.records.redistill import Outcome, Redistillation
from tasks.records.run import RunRecord
from tasks.redistill import decisions
from tasks.redistill.decisions import MONITOR
from tasks.redistill.plan import ChampionRun, champion_run
from tasks.redistill.prepare import (
    Drop,
    PutOff,
    Ready,
    cause_by_hand,
    champion_of,
    files_of,
    make_ready,
    require_wanted,
    rows_folder,
    teachers_answers,
)
from tasks.redistill.show import markdown, publish
from tasks.registry.texts import judgement_lines
from tasks.registry.versions import Version, find_version
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import full_record, list_runs
from tasks.tracking.null import NullTracker
from tasks.tracking.recorder import tracker_of
from tasks.tracking.tracker import Tracker

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Diagnoses = Literal["distil again", "refresh the teacher"]


@flow(name="redistill", flow_run_name="redistill {name}", persist_result=False)
@cancellable
def redistill(
    name: ModelName,
    cause: str = "",
    diagnosis: Diagnoses = "distil again",
    windows: tuple[str, ...] = (),
    reason: Note = "",
    by: Person = MONITOR,
) -> Redistillation | State[Redistillation]:
    """Distil a promoted model again with the requests that it did badly on, and promote the student if it is better.

    Args:
        name: Name of the registered model, which is the ladder's.
        cause: Id of the drop, as the monitor reports it; empty: a person asks.
        diagnosis: Whether the students alone are to learn, or the teacher first.
        windows: Window files, folders or patterns; none: those of the drop, else all that were served.
        reason: Why, for the record.
        by: Who asks, for the record.
    """
    if is_served():
        for pattern in windows:
            confine_pattern("windows", pattern, roots())
    reports = [entry.report for entry in read_history(home(), name) if cause and entry.report.cause == cause]
    window_run = next((report.mlflow_run_id for report in reports if report.trigger), None)
    return back_to_work(Drop(name, cause or None, diagnosis, reason, by, windows, window_run))


def consider(report: WindowReport) -> Redistillation | None:
    """Follow a monitor's report: begin what it asks for, or go on with what an earlier window of the same drop began.

    Returns:
        The decision; None where nothing is to be decided.
    """
    if report.cause is None:
        return None
    pending = decisions.open_decision(decisions.decisions(home(), report.name), report.cause)
    if not report.trigger and pending is None:
        return None
    if pending is None and is_served() and is_automated():
        log.info("redistill %s: the automation %s starts it", report.name, AUTOMATION)
        return None
    diagnosis = report.diagnosis if pending is None else pending.diagnosis
    return back_to_work(Drop(report.name, report.cause, diagnosis, report.why, MONITOR, (), report.mlflow_run_id))


def back_to_work(drop: Drop) -> Redistillation:
    """Decide about a drop, and do what is decided; one at a time for each model, and one run for each cause.

    Raises:
        RunCancelled: The run was stopped; the next call for the same cause goes on with it.
    """
    paths = home()
    with decisions.claimed(paths, drop.name) as mine:
        found = decisions.decisions(paths, drop.name)
        pending = decisions.open_decision(found, drop.cause) if drop.cause else None
        if not mine and pending is not None:
            log.info("redistill %s: another process works on decision %d", drop.name, pending.number)
            return pending
        try:
            if not mine:
                raise PutOff(f"another re-distillation of {drop.name} is under way.")
            champion, origin, cause = _asked_about(drop, paths, found, pending)
            pending = decisions.open_decision(found, cause)
            decisions.abandon_others(paths, found, cause)
            if pending is None or not pending.overrides:
                require_wanted(drop, origin.now.ladder, found)
                ready = _ready(drop, paths, origin, champion, cause, rows_folder(paths, drop.name, cause))
                pending = _noted(paths, drop, cause, pending, "running", "the run begins", **ready.fields)
        except (PutOff, RecordUnavailable) as error:
            return _noted(paths, drop, drop.cause or "by hand", pending, "put off", str(error))
        except UserError as error:
            return _noted(paths, drop, drop.cause or "by hand", pending, "not done", str(error))
        return _run(paths, drop, pending, origin)


def _asked_about(
    drop: Drop, paths: Home, found: Sequence[Redistillation], pending: Redistillation | None = None
) -> tuple[Version, ChampionRun, str]:
    """The version that dropped, its run, and the cause; a decision that is gone on with names the version itself.

    Raises:
        UserError: There is none, or a run for the same cause has ended.
        PutOff: MLflow does not answer.
    """
    if drop.cause and (closed := decisions.closed_decision(found, drop.cause, drop.by)):
        raise UserError(f"decision {closed.number} was about the same cause: {closed.words}")
    tracker = _tracker(paths)
    if pending is not None and pending.champion:
        champion = find_version(tracker, paths, pending.champion)
    else:
        champion = champion_of(paths, tracker, drop.name)
    origin = champion_run(paths, champion)
    cause = drop.cause or cause_by_hand(drop.name, files_of(drop, paths, origin))
    if closed := decisions.closed_decision(found, cause, drop.by):
        raise UserError(f"decision {closed.number} was about the same cause: {closed.words}")
    return champion, origin, cause


def look_ahead(drop: Drop) -> tuple[Ready | None, str]:
    """Dry run of `back_to_work`, without a trace: all that is ready for the run, or None and the reason against it."""
    paths = home()
    try:
        found = decisions.decisions(paths, drop.name)
        champion, origin, cause = _asked_about(drop, paths, found)
        require_wanted(drop, origin.now.ladder, found)
        with tempfile.TemporaryDirectory() as folder:
            return _ready(drop, paths, origin, champion, cause, Path(folder)), ""
    except (UserError, RecordUnavailable) as error:
        return None, str(error)


def _tracker(paths: Home) -> Tracker | NullTracker:
    """The connection to MLflow.

    Raises:
        PutOff: Nothing answers.
    """
    try:
        return tracker_of(paths)
    except UserError as error:
        raise PutOff(str(error)) from error


def _noted(
    paths: Home, drop: Drop, cause: str, pending: Redistillation | None, outcome: Outcome, reason: str, **fields: Any
) -> Redistillation:
    """Write a decision, in place of one that was put off; the log, MLflow and Prefect get it, too."""
    asked = {"diagnosis": drop.diagnosis, "why": drop.why, "by": drop.by, "window_run_id": drop.window_run_id}
    fields = {"outcome": outcome, "reason": reason, **fields}
    if pending is None:
        made = decisions.add(paths, name=drop.name, cause=cause, **asked, **fields)
    else:
        made = decisions.update(paths, pending, **fields)
    log.info("redistill %s: %s", drop.name, made.words)
    publish(paths, made)
    if outcome != "running" and FlowRunContext.get() is not None:
        create_markdown_artifact(markdown=markdown(made), key=f"ladder-redistill-{drop.name}", description=made.words[:200])
    return made


def _ready(drop: Drop, paths: Home, origin: ChampionRun, champion: Version, cause: str, folder: Path) -> Ready:
    """All that the run needs, with its ladder shortened to the budget.

    Raises:
        UserError: As `make_ready`, the ladder cannot run, or the budget is too short.
    """
    answer = None if origin.settings.workload == "causal-lm" else partial(teachers_answers, origin)
    ready = make_ready(drop, paths, origin, champion, cause, folder, answer)
    budget = origin.now.ladder.redistill.budget
    with beside_form(inline_ladder=_inline(origin)):
        resolved = resolve(_request(origin, ready.overrides, budget))
    overrides = resolved.overrides if origin.inline else resolved.overrides[len(origin.record.overrides) :]
    return Ready(ready.origin, ready.champion, ready.data, overrides, ready.kept, {**ready.fields, "overrides": overrides})


def _inline(origin: ChampionRun) -> Any:
    """The champion's ladder in full, where its file is gone or it was given so."""
    return origin.now.ladder if origin.inline else None


def _request(origin: ChampionRun, overrides: Sequence[str], budget: str | None = None) -> RunRequest:
    before = () if origin.inline else origin.record.overrides
    return RunRequest(origin.record.source, (*before, *overrides), budget=budget, inline_ladder=_inline(origin))


def _run(paths: Home, drop: Drop, decision: Redistillation, origin: ChampionRun) -> Redistillation:
    """Run the ladder, or go on with its run, and promote its student."""
    wanted = f"{drop.name[:40]}-redistill-{decision.number}"
    record = full_record(paths, decision.run or wanted)
    if record is None or record.status not in ("done", "stopped"):
        attempts = decision.attempts + 1
        again = f", attempt {attempts}" if attempts > 1 else ""
        decision = _noted(paths, drop, decision.cause, decision, "running", f"the ladder runs{again}", attempts=attempts, run=wanted)
        try:
            record = _distilled(decision, origin, wanted)
        except RunCancelled as error:
            _noted(paths, drop, decision.cause, decision, "interrupted", f"{error}; the same call goes on with it")
            raise
        except LadderError as error:
            return _noted(paths, drop, decision.cause, decision, "failed", str(error))
    assert record is not None
    asked = [model.answers_asked for model in record.stages if model.answers_asked is not None]
    figures = {
        "run": record.run,
        "asked": sum(asked) if asked else None,
        "copied": sum(model.answers_copied for model in record.stages),
    }
    if record.status == "stopped":
        return _noted(paths, drop, decision.cause, decision, "refused", record.error or "a gate stopped the ladder", **figures)
    decision = decisions.update(paths, decision, **figures)
    return _promoted(paths, drop, decision, origin)


def _distilled(decision: Redistillation, origin: ChampionRun, name: str) -> RunRecord | None:
    request = _request(origin, decision.overrides)
    note = f"{decision.cause}: {decision.why or decision.diagnosis}"[:NOTE_LENGTH]
    label(tags=[f"ladder:{decision.name}"])
    with beside_form(inline_ladder=request.inline_ladder), cancellation.engine_code():
        state: Any = distill(request.source, overrides=request.overrides, name=name, note=note, by=decision.by[:100], return_state=True)
    result = result_of(state, raise_on_failure=False)
    if isinstance(result, GateStopped):
        own = str(state.state_details.flow_run_id)
        run = next(record.run for record in list_runs(home()) if record.prefect_run_id == own)
        return full_record(home(), run)
    if isinstance(result, LadderError):
        raise result
    if isinstance(result, BaseException):
        raise LadderError(f"{type(result).__name__}: {result}") from result
    return result


def _promoted(paths: Home, drop: Drop, decision: Redistillation, origin: ChampionRun) -> Redistillation:
    """Promote the student by policy."""
    data = f" --data {decision.held_out}" if decision.held_out else ""
    command = f"`ladder promote {decision.run}{data}`"
    if origin.now.ladder.redistill.policy != "auto":
        reason = f"redistill.policy is {origin.now.ladder.redistill.policy}: a person promotes, with {command}"
        return _noted(paths, drop, decision.cause, decision, "waiting", reason)
    with cancellation.engine_code():
        state: Any = promote(
            model=decision.run or "",
            data=decision.held_out or "",
            reason=f"decision {decision.number}: {decision.cause}"[:NOTE_LENGTH],
            by=decision.by[:100],
            return_state=True,
        )
    result = result_of(state, raise_on_failure=False)
    if isinstance(result, PromotionRefused | UserError):
        return _noted(paths, drop, decision.cause, decision, "refused", str(result))
    if isinstance(result, RunCancelled):
        raise result
    if isinstance(result, BaseException):
        reason = f"the student is made, and was not judged ({reason_of(result)}): a person promotes, with {command}"
        return _noted(paths, drop, decision.cause, decision, "waiting", reason)
    judged = "; ".join(judgement_lines(result.judgement)) if result.judgement else ""
    label_now = f"{result.name}/{result.version}"
    fields = {"challenger": label_now, "judgement": judged}
    return _noted(paths, drop, decision.cause, decision, "promoted", f"{label_now} is champion: {judged}", **fields)
