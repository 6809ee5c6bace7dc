"""The flow `promote`: compare a challenger with the champion, ask, move the alias."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.input import RunInput
from pydantic import Field

from conf.errors import LadderError, UserError
from conf.home import Home, home
from conf.loading.path_policy import confine_pattern, restrict
from flows.adapter.run_labels import is_served, label
from flows.adapter.steps import cancellable
from flows.approval import pause_for
from flows.parameters import Note, Person, roots
from tasks.monitoring.reference import find_or_compute_reference, watched
from tasks.records.promotion import Judgement, Promotion
from tasks.registry import candidates, judge
from tasks.registry.promotion import promote as move
from tasks.registry.promotion import refuse
from tasks.registry.texts import judgement_markdown
from tasks.registry.versions import Version
from tasks.runtime.logs import log, log_warnings
from tasks.runtime.prefect_client import AWAY
from tasks.tracking.recorder import tracker_of
from tasks.tracking.tracker import Tracker

ModelName = Annotated[str, Field(max_length=200)]
DataPath = Annotated[str, Field(max_length=2000)]
Delta = Annotated[float, Field(ge=0, le=1000)]


class PromotionAnswer(RunInput):
    """Fields of the form in the Prefect UI."""

    choice: Literal["promote", "refuse"] = Field(description="promote: it becomes champion; refuse: the champion stays")
    by: str = Field("", description="Who decides, for the record", max_length=100)
    note: str = Field("", description="Why, for the record", max_length=1000)


class PersonsReply(NamedTuple):
    """A person's decision about a comparison."""

    promote: bool
    by: str = ""
    note: str = ""


Ask = Callable[[judge.Contest, Judgement], PersonsReply]


class PromotionRequest(NamedTuple):
    """A request to make a version champion.

    Attributes:
        model: As of `tasks.registry.versions.find_version`; None: the last run.
        data: Fresh held-out rows; None: the validation split of the challenger's run.
        delta: In place of `promotion.delta`; None: as set.
        force: Promote whatever the comparison says; needs a reason.
        reason: Why, for the record.
        by: Who asks, for the record.
    """

    model: str | None = None
    data: str | None = None
    delta: float | None = None
    force: bool = False
    reason: str = ""
    by: str = ""


@flow(name="promote", flow_run_name="promote {model}", persist_result=False)
@cancellable
def promote(
    model: ModelName = "",
    data: DataPath = "",
    delta: Delta = 0.0,
    force: bool = False,
    reason: Note = "",
    by: Person = "",
) -> Promotion | State[Promotion]:
    """Make a version of a ladder's model the champion, if it is not worse than the present one.

    Args:
        model: A run, RUN:STAGE, NAME/VERSION or NAME@challenger; empty: the last run.
        data: Files of fresh held-out rows, in the columns of the ladder's data; empty: the validation split of the run.
        delta: Largest loss that is allowed, in accuracy or bits per byte; 0: as the ladder's settings say.
        force: Promote it whatever the comparison says; needs a reason.
        reason: Why, for the record.
        by: Who asks for it, for the record.
    """
    log_warnings()
    if is_served():
        restrict(roots())
        if data:
            confine_pattern("data", data, roots())
    request = PromotionRequest(model or None, data or None, delta or None, force, reason, by)
    tracker = candidates.registry_of(tracker_of(home()))
    return decide(tracker, home(), request, ask_person, publish)


def decide(
    tracker: Tracker, home: Home, request: PromotionRequest, ask: Ask, show: Callable[[judge.Contest, Judgement, str], Any]
) -> Promotion:
    """Compare, ask where `promotion.policy` says so, and move the alias.

    Args:
        tracker: The record in MLflow.
        home: Where runs and history are.
        request: What is asked for.
        ask: Asks a person.
        show: Shows the comparison with its outcome in words.

    Raises:
        UserError: Something is wrong with the request, the data or a model.
        PromotionRefused: The challenger is not promoted.
        RecordUnavailable: MLflow does not answer.
    """
    if request.force and not request.reason.strip():
        raise UserError.about("--reason", request.reason, "a reason, with --force", "Say why; it is kept in the record.")
    found = candidates.rivals(tracker, home, request.model, register_anyway=request.force)
    challenger, previous = found.challenger, found.previous
    if previous == challenger.version:
        raise UserError.about("MODEL", challenger.label, "another version than the champion", f"{challenger.label} is champion already.")
    if found.missing is not None and not request.force:
        allowed = "a champion that can be compared"
        raise UserError.about("MODEL", f"{challenger.name}/{previous}", allowed, f"{found.missing} Or use --force with a reason.")
    label(f"promote {challenger.label}", [f"ladder:{challenger.name}"])
    try:
        asked = judge.contest(home, challenger, found.champion, request.delta)
        judgement = judge.judge(asked, request.data)
    except LadderError as error:
        if not request.force:
            raise
        log.warning("promoted without a comparison: %s", error)
        return move(tracker, home, challenger, previous, None, by=request.by, reason=request.reason, forced=True)
    forced = request.force and (bool(judgement.reasons) or found.missing is not None)
    reply = PersonsReply(not judgement.reasons or request.force, request.by, request.reason)
    if reply.promote and not request.force and asked.rules.policy == "ask":
        reply = ask(asked, judgement)
        reply = reply._replace(by=reply.by or request.by, note=reply.note or request.reason)
    if not reply.promote:
        show(asked, judgement, "not promoted")
        why = reply.note if judgement.reasons else f"a person decided so{f' ({reply.note})' if reply.note else ''}"
        raise refuse(tracker, home, challenger, previous, judgement, by=reply.by, reason=why)
    moved = move(tracker, home, challenger, previous, judgement, by=reply.by, reason=reply.note, forced=forced)
    show(asked, judgement, "promoted" + (", forced" if forced else ""))
    _keep_reference(home, challenger)
    return moved


def _keep_reference(home: Home, champion: Version) -> None:
    """Compute what `ladder monitor` compares with while the data are there; a failure is logged, as it is computed again when needed."""
    try:
        find_or_compute_reference(home, watched(home, champion))
    except LadderError as error:
        log.warning("%s: no reference for ladder monitor yet: %s", champion.label, error)


def ask_person(asked: judge.Contest, judgement: Judgement) -> PersonsReply:
    """Pause the flow run until a person has answered; nobody within `promotion.ask_hours` counts as a no."""
    hours = asked.rules.ask_hours
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="minutes")
    text = f"{asked.challenger.label} waits for a decision until {until}, else {asked.challenger.name} keeps its champion"
    page = judgement_markdown(asked.challenger.label, asked.champion.label if asked.champion else None, judgement, "may it be champion?")
    silent = {"choice": "refuse", "by": "nobody", "note": f"no answer in {hours:g} hours"}
    form = PromotionAnswer.with_initial_data(description=f"{page}\n\nWithout an answer until {until} the champion stays.")
    answer = pause_for(form, silent, text, hours * 3600)
    return PersonsReply(answer.choice == "promote", answer.by, answer.note)


def publish(asked: judge.Contest, judgement: Judgement, outcome: str) -> None:
    """Leave the comparison in Prefect; a failure is logged, as the outcome is on disk and in MLflow."""
    try:
        page = judgement_markdown(asked.challenger.label, asked.champion.label if asked.champion else None, judgement, outcome)
        create_markdown_artifact(markdown=page, key="ladder-promotion", description=f"{asked.challenger.label}: {outcome}")
    except AWAY as error:
        log.warning("Prefect's server did not take the comparison (%s)", error or type(error).__name__)
