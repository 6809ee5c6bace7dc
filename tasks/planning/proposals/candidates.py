"""Candidate routes from a root to the students that ship, each as a ladder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from models.architectures.shapes import Size
from models.data.corpus import CorpusInfo
from tasks.planning.matching import with_stages
from tasks.planning.proposals.rungs import StudentRung, Students
from tasks.planning.proposals.wanted import Wanted
from tasks.planning.routes import PASSES, one_cache, read_again

DIRECT_LIVE, DIRECT_CACHED = "direct-live", "direct-cached"
CHAIN, ASSISTANT = "chain", "assistant"
ROOT_LIVE, ROOT_CACHED = "root-live", "root-cached"
MEANING = {
    DIRECT_LIVE: "the root teaches the last student alone, beside it",
    DIRECT_CACHED: f"the root teaches the last student alone, from stored answers, each read {PASSES} times",
    CHAIN: "each student teaches the next one, beside it",
    ASSISTANT: "a chain with one student that does not ship",
    ROOT_LIVE: "weights go down the chain, the root teaches every student beside it",
    ROOT_CACHED: "weights go down the chain, the root's one cache teaches every student",
}


UNSTAGED = {  # the same, where students start from random weights
    ROOT_LIVE: "the root teaches every student beside it",
    ROOT_CACHED: "the root's one cache teaches every student",
}


class Candidate(NamedTuple):
    """A route as a ladder.

    Attributes:
        route: Its name.
        meaning: In words.
        ladder: Its stages, settled.
        sizes: Of the root and all students.
        asked: Parameters of all students as they were asked for.
    """

    route: str
    meaning: str
    ladder: Ladder
    sizes: tuple[Size, ...]
    asked: tuple[int, ...]


class Impossible(NamedTuple):
    """A route that there is not, and why."""

    route: str
    reason: str


def candidates(ladder: Ladder, students: Students, wanted: Wanted, info: CorpusInfo | None) -> Iterator[Candidate | Impossible]:
    """All routes, in the order of `MEANING`; `info`: of the prepared data, None: not prepared."""
    every, shipped = students.rungs, tuple(students.of(size) for size in wanted.ship)
    between = [rung for rung in every if rung not in shipped]
    staged = any(rung.stage.student.initialisation != "random" for rung in every[1:])

    def answered(route: str, stage: Stage) -> Stage:
        if route == DIRECT_CACHED:
            return read_again(stage, ladder, info)
        if route == ROOT_CACHED:
            return stage.model_copy(update={"signals": one_cache("root-cached", [stage], ladder, info)})
        live = stage.signals if stage.signals.on_policy else stage.signals.model_copy(update={"source": "live"})
        return stage.model_copy(update={"signals": live})

    def made(route: str, rungs: tuple[StudentRung, ...], teachers: str) -> Candidate | Impossible:
        try:
            taught = [rung.stage.model_copy(update={"teachers": (teachers,)}) for rung in rungs]
            stages = [answered(route, stage) for stage in taught]
        except UserError as error:
            return Impossible(route, str(error))
        sizes = (students.root, *(rung.size for rung in rungs))
        meaning = MEANING[route] if staged else UNSTAGED.get(route, MEANING[route])
        return Candidate(route, meaning, with_stages(ladder, *stages), sizes, tuple(rung.parameters for rung in rungs))

    if len(shipped) == 1:
        yield made(DIRECT_LIVE, shipped, "parent")
        yield made(DIRECT_CACHED, shipped, "parent")
    else:
        reason = f"{len(shipped)} students ship, and it makes one"
        yield from (Impossible(route, reason) for route in (DIRECT_LIVE, DIRECT_CACHED))
    if len(every) == 1:
        yield from (
            Impossible(route, "the root is near enough: one stage is direct") for route in (CHAIN, ASSISTANT, ROOT_LIVE, ROOT_CACHED)
        )
        return
    yield made(CHAIN, every, "parent")
    if len(between) > 1:
        one = _middle(students.root.parameters, shipped, between)
        yield made(ASSISTANT, tuple(rung for rung in every if rung in shipped or rung is one), "parent")
    else:
        yield Impossible(ASSISTANT, f"{CHAIN} has {'one' if between else 'none'} already")
    # Without their weights, students that do not ship are of no use to others that the root teaches.
    rungs = every if staged else shipped
    if len(rungs) == 1:
        reason = "students start from random weights, so that it is direct"
        yield from (Impossible(route, reason) for route in (ROOT_LIVE, ROOT_CACHED))
        return
    yield made(ROOT_LIVE, rungs, "root")
    yield made(ROOT_CACHED, rungs, "root")


def _middle(root: float, shipped: tuple[StudentRung, ...], between: list[StudentRung]) -> StudentRung:
    """The student that divides the widest step between those that ship most evenly."""
    line = [root, *(rung.size.parameters for rung in shipped)]
    above, below = max(pairwise(line), key=lambda pair: pair[0] / pair[1])

    def widest(rung: StudentRung) -> float:
        size = rung.size.parameters
        return max(above / size, size / below)

    return min((rung for rung in between if below < rung.size.parameters < above), key=widest)
