"""Rewrites the stages of a ladder into those of a route.

A route changes who teaches, which rungs there are and whether answers are cached; students, data and schedules stay as written. Nothing is
trained here, and FLOPs are those that `tasks.training.cost_model` counts for the rewritten ladder.
"""

from __future__ import annotations

from collections.abc import Callable

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.route import Route
from conf.schema.stage.compatibility import check_objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage
from models.data.corpus import CorpusInfo
from tasks.planning.matching import direct, taught, with_stages
from tasks.training.signal_policy import MOST_FULL

AGAIN = "-again"  # ends the name of a student that is taught by one of its own size
OTHER_SEED = 10_000  # added to a seed for the same student's second first weights and order of the data; replicates count up from the first
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


def _impossible(route: Route, allowed: str, remedy: str) -> UserError:
    return UserError.about("route", route, allowed, remedy)


def _direct(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    if len(ladder.stages) == 1:
        raise _impossible("direct", f"as-written, as {ladder.name} has one stage, which is direct already", LEAVE_OUT)
    return direct(ladder)


def _root_cached(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """Every stage that has a teacher learns from the root, from one cache; first weights are made from the stage above, as written."""
    learning = [stage for stage in ladder.stages if _is_taught(stage)]
    if not learning:
        raise _impossible("root-cached", f"as-written, as no stage of {ladder.name} has a teacher", LEAVE_OUT)
    signals = None if ladder.teacher.source == "answers" else _one_cache(learning, ladder, info)  # answers are a cache already

    def stage(old: Stage) -> Stage:
        return taught(old, "root").model_copy(update={"signals": signals or old.signals}) if _is_taught(old) else old

    return with_stages(ladder, *map(stage, ladder.stages))


def _is_taught(stage: Stage) -> bool:
    return stage.teachers != ("none",) and bool(stage.objective.alpha.start or stage.objective.alpha.end)


def _one_cache(stages: list[Stage], ladder: Ladder, info: CorpusInfo | None) -> Signals:
    """Cached signals that suit every stage: the first one's as they are written, else all answers of a small vocabulary, else top-k.

    Raises:
        UserError: None do, such as for losses that need the teacher's features.
    """
    outputs, first, reasons = _outputs(ladder, info), stages[0].signals, list[str]()
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
    raise _impossible("root-cached", f"an objective that learns from stored answers; {reasons[-1]}", "Change it, or choose another route.")


def _outputs(ladder: Ladder, info: CorpusInfo | None) -> int | None:
    """Ids or classes of an answer; 0 where they are certainly few, None where they are not known yet."""
    if ladder.workload != "causal-lm":
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


ROUTINGS: dict[Route, Routing] = {
    "as-written": lambda ladder, info: ladder,
    "direct": _direct,
    "root-cached": _root_cached,
    "self": _self,
}
