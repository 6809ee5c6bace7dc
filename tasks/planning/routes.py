"""Rewrites the stages of a ladder into those of a route.

A route changes who teaches, which rungs there are and whether answers are cached; students, data and schedules stay as written, but that
`direct-cached` reads fewer examples more often. Nothing is trained here, and FLOPs are those that `tasks.training.costs.cost_model` counts
for the rewritten ladder.
"""

from __future__ import annotations

from collections.abc import Callable

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.route import Route
from conf.schema.stage.compatibility import check_objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage, Teachers
from conf.schema.workloads import answers_in_ids
from models.data.corpus import CorpusInfo
from tasks.planning.matching import direct, taught, with_stages
from tasks.training.signals.signal_policy import MOST_FULL

AGAIN = "-again"  # ends the name of a student that is taught by one of its own size
OTHER_SEED = 10_000  # added to a seed for the same student's second first weights and order of the data; replicates count up from the first
PASSES = 4  # over each stored answer: repeated text teaches nearly as much as fresh text up to four times (arXiv:2305.16264)
MEMBERS = 3  # of the rung that teaches together in an ensemble
RISING: Teachers = "rising"
CHECKPOINTS: Teachers = "checkpoints"
LEAVE_OUT = "Leave it out, or choose as-written."

Routing = Callable[[Ladder, CorpusInfo | None], Ladder]


def routed(route: Route, ladder: Ladder, info: CorpusInfo | None = None) -> Ladder:
    """The ladder with the stages of a route; its `route` is then as-written.

    Args:
        route: Any but auto, which is a choice among the others.
        ladder: Its students settled.
        info: Of the prepared data; None: not prepared yet.

    Raises:
        UserError: The ladder cannot have this route.
    """
    if route not in ROUTINGS:
        raise _impossible(route, f"{', '.join(ROUTINGS)}", "Choose one of them.")
    made = ROUTINGS[route](ladder, info)
    try:
        return made.model_copy(update={"route": "as-written"}).checked()
    except UserError as error:
        raise _impossible(route, f"a route whose stages fit; as {route}, {str(error).partition('. ')[0]}", LEAVE_OUT) from None


def routes_for(ladder: Ladder, info: CorpusInfo | None = None) -> tuple[Route, ...]:
    """The routes that a ladder can have, as-written first."""
    return tuple(route for route in ROUTINGS if refusal(route, ladder, info) is None)


def refusal(route: Route, ladder: Ladder, info: CorpusInfo | None = None) -> str | None:
    """Why a ladder cannot have a route, as a sentence; None: it can."""
    try:
        routed(route, ladder, info)
    except UserError as error:
        return str(error)
    return None


def replicate_seed(ladder: Ladder) -> int:
    """The seed that names a replicate: of the last student, of one that is made again where it is made first."""
    first = next(stage for stage in reversed(ladder.stages) if not stage.name.endswith(AGAIN) or stage is ladder.stages[0])
    return ladder.stage_seed(first)


def _impossible(route: Route, allowed: str, remedy: str) -> UserError:
    return UserError.about("route", route, allowed, remedy)


def _direct(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    if len(ladder.stages) == 1:
        raise _impossible("direct", f"as-written, as {ladder.name} has one stage, which is direct already", LEAVE_OUT)
    return direct(ladder)


def _direct_cached(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """The direct jump from stored answers of fewer examples, each of which is read several times."""
    last = ladder.stages[-1]
    if not _is_taught(last):
        raise _impossible("direct-cached", f"a last stage with a teacher; {last.name} learns from labels alone", LEAVE_OUT)
    if ladder.teacher.source == "answers":
        raise _impossible("direct-cached", "a route that stores no answers, as the root's are a file already", LEAVE_OUT)
    jump = direct(ladder)
    made = with_stages(jump, read_again(jump.stages[0], ladder, info))
    if made == ladder:
        raise _impossible(
            "direct-cached", f"as-written, as {last.name} reads stored answers {last.training.passes} times already", LEAVE_OUT
        )
    return made


def read_again(stage: Stage, ladder: Ladder, info: CorpusInfo | None) -> Stage:
    """A stage that learns from stored answers of fewer examples, each of which is read several times.

    Raises:
        UserError: Its objective cannot learn from stored answers.
    """
    training = stage.training.model_copy(update={"passes": max(stage.training.passes, PASSES)})
    return stage.model_copy(update={"signals": one_cache("direct-cached", [stage], ladder, info), "training": training})


def _root_cached(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """Every stage that has a teacher learns from the root, from one cache; first weights are made from the stage above, as written."""
    learning = [stage for stage in ladder.stages if _is_taught(stage)]
    if not learning:
        raise _impossible("root-cached", f"as-written, as no stage of {ladder.name} has a teacher", LEAVE_OUT)
    answered = ladder.teacher.source == "answers"  # a cache already
    signals = None if answered else one_cache("root-cached", learning, ladder, info)

    def stage(old: Stage) -> Stage:
        return taught(old, "root").model_copy(update={"signals": signals or old.signals, "members": 1}) if _is_taught(old) else old

    return with_stages(ladder, *map(stage, ladder.stages))


def _is_taught(stage: Stage) -> bool:
    return stage.teachers != ("none",) and bool(stage.objective.alpha.start or stage.objective.alpha.end)


def one_cache(route: Route, stages: list[Stage], ladder: Ladder, info: CorpusInfo | None) -> Signals:
    """Cached signals that suit every stage: the first one's as they are written, else all answers of a small vocabulary, else top-k.

    Raises:
        UserError: None do, such as for losses that need the teacher's features.
    """
    outputs, first, reasons = _outputs(ladder, info), stages[0].signals, list[str]()
    if writing := [stage.name for stage in stages if stage.signals.on_policy]:
        raise _impossible(route, f"stages that learn from the data; {writing[0]} writes its own text", LEAVE_OUT)
    kinds = [first.kind, *(["full"] if outputs is not None and outputs <= MOST_FULL else []), "top-k"]
    for kind in dict.fromkeys(kinds):
        if kind == "top-k" and outputs is not None and first.k > outputs:
            continue
        try:
            for each in stages:
                check_objective(each.objective, ladder.workload, kind, key=f"the objective of {each.name}")
        except UserError as error:
            reasons.append(str(error).partition(". ")[0])
            continue
        return first.model_copy(update={"source": "cached", "kind": kind})
    raise _impossible(route, f"an objective that learns from stored answers; {reasons[-1]}", "Change it, or choose another route.")


def _outputs(ladder: Ladder, info: CorpusInfo | None) -> int | None:
    """Ids or classes of an answer; 0 where they are certainly few, None where they are not known yet."""
    if not answers_in_ids(ladder.workload):
        return len(info.label_names) if info else 0
    return info.vocabulary if info else (0 if ladder.tokenizer.kind == "bytes" else None)


def _self(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """One more student like the last one, with other first weights, taught by it (born again: arXiv:1805.04770)."""
    last = ladder.stages[-1]
    if not _is_taught(last):
        raise _impossible("self", f"a last stage with a teacher; {last.name} learns from labels alone", LEAVE_OUT)
    again = {
        "name": f"{last.name[: 64 - len(AGAIN)]}{AGAIN}",
        "members": 1,
        "student": last.student.model_copy(update={"initialisation": "random"}),
        "seed": (ladder.stage_seed(last) + OTHER_SEED) % 2**31,
    }
    return with_stages(ladder, *ladder.stages, taught(last, "parent").model_copy(update=again))


def _curriculum(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """Teachers hand over within the last student's training: the root's early checkpoints where some are kept, else all models above."""
    last, taught_by = ladder.stages[-1], CHECKPOINTS if ladder.teacher.source == "train" and ladder.teacher.keep else RISING
    if not _is_taught(last):
        raise _impossible("curriculum", f"a last stage with a teacher; {last.name} learns from labels alone", LEAVE_OUT)
    if len(ladder.stages) == 1 and taught_by == RISING:
        allowed = f"a ladder of two stages or more, or with teacher.keep; {ladder.name} has one stage and one teacher"
        raise _impossible("curriculum", allowed, LEAVE_OUT)
    if last.teachers == (taught_by,) and (taught_by == RISING or len(ladder.stages) == 1):
        raise _impossible("curriculum", f"as-written, as {last.name} has teachers {taught_by} already", LEAVE_OUT)
    above = ladder.stages[:-1] if taught_by == RISING else ()
    return with_stages(ladder, *above, taught(last, taught_by))


def _ensemble(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """Several seeds of the last student's parent teach it together (arXiv:2509.14786)."""
    if len(ladder.stages) == 1:
        raise _impossible("ensemble", f"a ladder of two stages or more; {ladder.name} has no student that teaches", LEAVE_OUT)
    *above, parent, last = ladder.stages
    if not _is_taught(last):
        raise _impossible("ensemble", f"a last stage with a teacher; {last.name} learns from labels alone", LEAVE_OUT)
    if parent.members > 1 and last.teachers == ("parent",):
        raise _impossible("ensemble", f"as-written, as {parent.name} has {parent.members} members already", LEAVE_OUT)
    signals, few = last.signals, (outputs := _outputs(ladder, info)) is not None and outputs <= MOST_FULL
    if signals.source == "cached" and signals.kind != "full":  # the mean of probabilities needs all of them
        signals = signals.model_copy(update={"kind": "full"} if few else {"source": "live"})
    grown = parent.model_copy(update={"members": max(parent.members, MEMBERS)})
    return with_stages(ladder, *above, grown, taught(last, "parent").model_copy(update={"signals": signals}))


def _best_of_rungs(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """Trials choose the teacher of every stage that has one; the first has the root alone."""
    if len(ladder.stages) == 1:
        raise _impossible("best-of-rungs", f"as-written, as the one stage of {ladder.name} has the root alone above it", LEAVE_OUT)
    return with_stages(ladder, *(taught(stage, "best") if _is_taught(stage) else stage for stage in ladder.stages))


ROUTINGS: dict[Route, Routing] = {
    "as-written": lambda ladder, info: ladder,
    "direct": _direct,
    "direct-cached": _direct_cached,
    "root-cached": _root_cached,
    "curriculum": _curriculum,
    "ensemble": _ensemble,
    "best-of-rungs": _best_of_rungs,
    "self": _self,
}
