"""Ask a person about a student: pause the run until the form is answered."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from prefect import flow_runs
from prefect.client.orchestration import get_client
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import Field

from conf.errors import LadderError, UserError
from conf.schema.stage.stage import Stage
from flows.adapter.run_labels import label, missed_tags
from tasks.evaluation.decisions import Choice, Decision, remember, remembered
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import RunRecord, StageRecord
from tasks.report import tables
from tasks.report.markdown import escape
from tasks.runtime.logs import log
from tasks.runtime.prefect_client import AWAY
from tasks.runtime.runs.run_registry import now

Form = TypeVar("Form", bound=RunInput)

POLL_SECONDS = 2
RETRY_SECONDS = 5.0
GRACE_SECONDS = 3600  # our own limit ends first and its setting decides; at its own limit Prefect would fail the run


class Answer(RunInput):
    """Fields of the form in the Prefect UI."""

    choice: Choice = Field(
        description="approve: it may teach and ship; reject: the ladder ends here; train longer: then it is judged again"
    )
    steps: int = Field(0, description="Steps to train longer; 0: half of the stage's training.steps [steps]", ge=0, lt=2**31)
    by: str = Field("", description="Who decides, for the record", max_length=100)
    note: str = Field("", description="Why, for the record", max_length=1000)


def ask(student: StageRecord, stage: Stage, run: LadderRun) -> Decision:
    """Ask a person about a student that failed its gate, unless the same question was answered before.

    Returns:
        The decision; the setting `gate.unanswered` where nobody answers within `gate.ask_hours`.
    """
    earlier = remembered(student, stage, run.context)
    if earlier:
        log.info("%s: %s, in %s", student.name, earlier.words, earlier.run)
        return earlier
    limit = timedelta(hours=stage.gate.ask_hours)
    until = (datetime.now(UTC) + limit).isoformat(timespec="minutes")
    text = f"{student.name} needs a decision until {until}, else it counts as {stage.gate.unanswered}: {'; '.join(student.gate_reasons)}"
    log.warning("%s. Answer in the Prefect UI, or with: ladder answer %s approve|reject|extend", text, run.record.run)
    run.save(run.record.model_copy(update={"waiting": text}))
    label(tags=missed_tags(student))
    answer = _answered(_page(student, stage, run.record, until), text, stage, limit.total_seconds())
    run.save(run.record.model_copy(update={"waiting": None}))
    steps = (answer.steps or max(stage.training.steps // 2, 1)) if answer.choice == "train longer" else None
    decision = Decision(choice=answer.choice, steps=steps, by=answer.by, note=answer.note, moment=now(), run=run.record.run)
    log.info("%s: %s", student.name, decision.words)
    if decision.choice != "reject":
        remember(decision, student, stage, run.context)
    return decision


def _answered(page: str, text: str, stage: Stage, seconds: float) -> Answer:
    """Pause until a person has answered, or the time is up and `gate.unanswered` decides."""
    default = "approve" if stage.gate.unanswered == "approve" else "reject"
    silent = {"choice": default, "by": "nobody", "note": f"no answer in {stage.gate.ask_hours:g} hours"}
    return pause_for(Answer.with_initial_data(description=page), silent, text, seconds)


def pause_for(form: type[Form], silent: dict[str, Any], text: str, seconds: float) -> Form:
    """Pause the flow run until a person has filled in a form.

    Args:
        form: The form, with its page as description.
        silent: The answer when the time is up.
        text: The question, as the paused state says it.
        seconds: Time to answer.
    """
    over = threading.Event()
    threading.Thread(target=_answer_late, args=(UUID(str(flow_run.id)), silent, seconds, over), daemon=True).start()
    try:
        with _saying(text):
            return pause_flow_run(wait_for_input=form, timeout=int(seconds) + GRACE_SECONDS, poll_interval=POLL_SECONDS)
    finally:
        over.set()


@contextmanager
def _saying(text: str) -> Iterator[None]:
    """Have the paused state say what is asked, and by when; Prefect's own says nothing."""
    plain = flow_runs.Paused  # pyright: ignore[reportPrivateImportUsage]
    setattr(flow_runs, "Paused", functools.partial(plain, message=text))  # noqa: B010
    try:
        yield
    finally:
        setattr(flow_runs, "Paused", plain)  # noqa: B010


def _answer_late(flow_run_id: UUID, answer: dict[str, Any], seconds: float, over: threading.Event) -> None:
    """Answer when the time is up, repeatedly until the pause ends: the server may be down, or not have registered the pause yet."""
    warned = False
    while not over.wait(seconds):
        try:
            refused = resume(flow_run_id, answer)
        except AWAY as error:
            refused = str(error) or type(error).__name__
        if refused and not warned:
            log.warning("nobody has answered, and Prefect's server does not take %r yet: %s", answer["choice"], refused)
        warned, seconds = warned or bool(refused), RETRY_SECONDS


def resume(flow_run_id: UUID, answer: dict[str, Any]) -> str | None:
    """Answer a paused run; returns the server's reason where it refuses the answer, else None."""
    with get_client(sync_client=True) as client:
        result = client.resume_flow_run(flow_run_id, run_input=answer)
    return None if result.status.value == "ACCEPT" else str(getattr(result.details, "reason", result.status.value))


def _page(student: StageRecord, stage: Stage, record: RunRecord, until: str) -> str:
    shown = record.model_copy(update={"stages": (*record.stages, student)})
    lines = [
        f"# May {student.name} go on?",
        *(f"- {escape(reason)}" for reason in student.gate_reasons),
        f"Without an answer until {until} it counts as **{stage.gate.unanswered}**.",
        tables.render_markdown(shown),  # last: the form cuts off what is too long for it
    ]
    return "\n\n".join(lines)


def answer_run(record: RunRecord, choice: Choice, steps: int | None, by: str, note: str) -> None:
    """Answer the question of a run, from another process.

    Raises:
        UserError: The run asks nothing, or its server refuses the answer.
        LadderError: Its server does not answer.
    """
    import httpx

    if record.status != "running" or record.waiting is None or record.prefect_run_id is None:
        raise UserError.about("RUN", record.run, "a run that waits for a decision", f"It is {record.status}; `ladder show` tells more.")
    answer: dict[str, Any] = {"choice": choice, "by": by, "note": note}
    if steps is not None:
        answer["steps"] = steps
    try:
        with temporary_settings({PREFECT_API_URL: record.prefect_api}):
            refused = resume(UUID(record.prefect_run_id), answer)
    except httpx.HTTPError as error:
        raise LadderError(f"Prefect's server at {record.prefect_api} does not answer: {error or type(error).__name__}") from None
    if refused:
        raise UserError.about("answer", choice, "an answer that the form allows", refused)
