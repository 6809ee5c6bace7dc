"""Parameters of the flows, and the requests that they make.

Their types make the forms of the Prefect UI; the API refuses a wrong value in the same words as the form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from conf.errors import UserError
from conf.home import home
from conf.loading.load import Loaded, load, load_whole, shipped, stage_names
from conf.loading.path_policy import check_source, confine, restrict
from conf.schema.base import NAME_PATTERN
from conf.schema.route import Route
from conf.schema.stage.student import is_settled
from tasks.lifecycle.request import NOTE_LENGTH, PERSON_LENGTH, RUN_NAME, ResolvedRequest, RunRequest

if TYPE_CHECKING:
    from tasks.runtime.runs.run_registry import Context

LadderChoice = Annotated[
    str,
    Field(
        min_length=1,
        json_schema_extra={
            "anyOf": [
                {"title": "shipped", "type": "string", "enum": list(shipped())},
                {"title": "path of a YAML file", "type": "string", "pattern": r"\.ya?ml$"},
            ]
        },
    ),
]
Override = Annotated[str, Field(pattern=r"^\s*[^=\s]+\s*=")]
Overrides = tuple[Override, ...]
_STAGES = "; ".join(f"{ladder}: {', '.join(stage_names(ladder))}" for ladder in shipped())
# Empty text and -1 stand for "none": a field that may also be null is refused by a form with no reason but that nothing fits.
StageName = Annotated[str, Field(pattern=NAME_PATTERN, json_schema_extra={"description": f"The stage to make. {_STAGES}."})]
OptionalStage = Annotated[
    str,
    Field(
        pattern=rf"^$|{NAME_PATTERN}",
        json_schema_extra={
            "description": f"First stage that may be computed; what comes before it must be finished already. Empty: any. {_STAGES}."
        },
    ),
]
TeacherNames = tuple[Annotated[str, Field(min_length=1)], ...]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
RunTitle = Annotated[str, Field(pattern=rf"^$|^{RUN_NAME}$")]
Note = Annotated[str, Field(max_length=NOTE_LENGTH)]
Person = Annotated[str, Field(max_length=PERSON_LENGTH)]
OptionalRun = Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
OptionalBudget = Annotated[str, Field(pattern=r"^$|^[0-9]{1,6}[smhd]$")]
OptionalRoute = Literal["", Route]
OptionalSeed = Annotated[int, Field(ge=-1, lt=2**31)]


# Parts of a request that programs give and no form has.
_beside: ContextVar[Mapping[str, Any]] = ContextVar("beside", default=MappingProxyType({}))


@contextmanager
def beside_form(**parts: Any) -> Iterator[None]:
    """Requests made within have these parts, too: `inline_ladder`, a ladder given in full, and `repeats`, the run that is repeated."""
    token = _beside.set(parts)
    try:
        yield
    finally:
        _beside.reset(token)


def request_of(source: str, *, seed: int = -1, **given: Any) -> RunRequest:
    """The request that a flow's parameters make; empty text and -1 stand for none. Labels the flow run, before anything is checked."""
    from flows.adapter.run_labels import is_served, label_request

    asked = {key: value for key, value in given.items() if value != ""}
    request = RunRequest(source, seed=seed if seed >= 0 else None, served=is_served(), **{**asked, **_beside.get()})
    label_request(request)
    return request


def resolve(request: RunRequest) -> ResolvedRequest:
    """Load the ladder of a request, refuse one that cannot run, shorten it to the budget, and find the run that it repeats.

    Raises:
        UserError: Something is wrong with the request.
    """
    from flows.adapter.run_labels import repeated_run
    from tasks.planning.students import settled_notes
    from tasks.runtime.logs import log

    loaded = load_request(request)
    resolved = settled(loaded)
    for note in settled_notes(loaded.ladder, resolved.ladder):
        log.info("%s", note)
    refuse_early(resolved)
    resolved = within_budget(resolved)
    return replace(resolved, request=replace(request, repeats=repeated_run(resolved)))


def load_request(request: RunRequest) -> ResolvedRequest:
    """The ladder that a request asks for, and all its overrides, the seed's among them.

    Raises:
        UserError: Something is wrong with them.
    """
    overrides = tuple(text for text in request.overrides if text.strip())
    overrides += () if request.seed is None else (f"seed={request.seed}",)
    allowed = roots() if request.served else None
    if allowed is not None:
        restrict(allowed)
        if request.inline_ladder is None:
            check_source(request.source, allowed)
    ladder, base = load(request.source, overrides) if request.inline_ladder is None else load_whole(request.inline_ladder, overrides)
    if allowed is not None:
        confine(request.source, ladder, base, allowed)
    return ResolvedRequest(request, ladder, base, overrides)


def settled(resolved: ResolvedRequest) -> ResolvedRequest:
    """The request with every student of its ladder in full, a shape, a configuration or a local folder, and with the stages of its route.

    Raises:
        UserError: A student cannot be made as it is described, or the ladder cannot have the route.
    """
    ladder = resolved.ladder
    if not all(is_settled(stage.student) for stage in ladder.stages):
        from tasks.planning.students import settle_students

        ladder = settle_students(ladder, _context(resolved))
    if ladder.route not in ("as-written", "auto") and not resolved.request.proof:  # a proof compares routes with the ladder as written
        from tasks.planning.routes import routed

        ladder = routed(ladder.route, ladder)
    return replace(resolved, ladder=ladder)


def _context(resolved: ResolvedRequest) -> Context:
    from tasks.runtime.runs.run_registry import Context

    request, ladder = resolved.request, resolved.ladder
    return Context(
        run="", ladder=ladder.name, home=str(home().root), base=str(resolved.base), start_at=request.start_at, fresh=request.fresh
    )


def refuse_early(resolved: ResolvedRequest) -> None:
    """Refuse invalid requests before anything is recorded or computed.

    Raises:
        UserError: A stage is larger than its teacher, `start_at` names no stage, or an arm of a proof is named that cannot be.
    """
    request, ladder = resolved.request, resolved.ladder
    if request.search:
        from tasks.search.plan import plan_search

        plan_search(ladder)
    if ladder.route == "auto" and request.start_at is not None:
        remedy = "Leave it out, or set route to the one that was chosen."
        raise UserError.about("--start-at", request.start_at, "nothing, with route auto, whose stages pilots choose", remedy)
    if request.proof:
        from tasks.proof.arms import refuse
        from tasks.search.arms import require_equal_flops

        if ladder.proof.search and request.budget:
            raise UserError.about("proof.search", ladder.proof.search, "0 with a budget, which does not count its trials", "Leave one out.")
        if ladder.proof.search:
            require_equal_flops(ladder)

        for arm in ladder.proof.arms:
            refuse(arm, ladder)
    from tasks.runtime.runs.run_registry import list_runs
    from tasks.training.identity import settings_hash

    # A run that is done has passed this check, which takes seconds; an imported checkpoint may have changed since.
    hashes = [settings_hash(ladder, kind) for kind in ("ladder", "proof", "search")]
    done = any(record.settings_hash in hashes and record.status == "done" for record in list_runs(home()))
    if done and ladder.teacher.source == "train" and request.start_at is None:
        return
    from tasks.evaluation.harness_tasks import look_up_tasks
    from tasks.planning.preflight import check_ladder

    context = _context(resolved)
    check_ladder(ladder, context)
    look_up_tasks(ladder)
    if request.proof:
        from tasks.proof.prepare_arms import refuse_unfit

        refuse_unfit(ladder, context)


def within_budget(resolved: ResolvedRequest) -> ResolvedRequest:
    """The request with its ladder shortened to its budget, if it has one: of a proof, so that all its arms end within it.

    Raises:
        UserError: The budget is no time, or too short.
    """
    if resolved.request.budget is None:
        return resolved
    from tasks.planning.budget import fit_budget
    from tasks.proof.prepare_arms import all_trainings
    from tasks.runtime.logs import log

    loaded = Loaded(resolved.ladder, resolved.base)
    found = fit_budget(loaded, resolved.request.budget, home(), all_trainings(loaded, home()) if resolved.request.proof else ())
    log.info("budget %s", found.words)
    shorter = load_whole(resolved.ladder, found.overrides).ladder
    return replace(resolved, ladder=shorter, overrides=(*resolved.overrides, *found.overrides), shortened=found.words)


def roots() -> list[Path]:
    """Folders that path parameters of served runs may lie in: `LADDER_ROOTS`, else the working directory and the home."""
    text = os.environ.get("LADDER_ROOTS")
    return [Path(part).absolute() for part in text.split(os.pathsep) if part] if text else [Path.cwd(), home().root]
