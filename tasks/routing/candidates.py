"""The routes that a ladder can have, with the FLOPs of their models.

Every candidate is the same settled ladder, rewritten by `tasks.planning.routes`, so that data, seeds and signals are the same in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.route import Route
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage
from models.data.corpus import Corpus, CorpusInfo
from tasks.planning.matching import matched_whole, settled, taught, total_of, with_stages
from tasks.planning.routes import routed
from tasks.runtime.runs.run_registry import Context
from tasks.training.costs.cost_model import Forward, StageFlops, ladder_flops
from tasks.training.costs.examples import AnswerCaches, TrainingExamples, training_examples
from tasks.training.signals.signal_policy import choose, settled_signals
from tasks.training.teaching import Voice, has_trials, planned_teaching

AS_WRITTEN: Route = "as-written"
ALL: tuple[Route, ...] = tuple(route for route in get_args(Route) if route != "auto")


class RouteCandidate(NamedTuple):
    """A route of a ladder.

    Attributes:
        ladder: Rewritten, with as many steps as make it cost what the ladder as written costs.
        forwards: Operations of the root and of the students.
        listed: Operations of the route by its name, with the steps that the ladder's file gives.
        positions: Of an example of the root, each with an answer of its own; 0: not known.
    """

    ladder: Ladder
    forwards: tuple[Forward, ...]
    listed: float
    positions: int = 0


class RouteCandidates(NamedTuple):
    """The routes of a ladder.

    Attributes:
        routes: The candidates, the cheapest first.
        price: Operations of the ladder as written.
        left_out: Other routes, and why.
        examples: Of the training data.
        shared: Whether pilots and final training share the root's stored answers.
        stores: Whether the last stage as written lets answers be stored.
    """

    routes: dict[str, RouteCandidate]
    price: float
    left_out: dict[str, str]
    examples: TrainingExamples
    shared: bool
    stores: bool

    @property
    def untried(self) -> str:
        """The route that is taken where no pilot decides: the cheapest, where signals are written live of those that store none."""
        storing = {route for route, made in self.routes.items() if any(stage.signals.source == "cached" for stage in made.ladder.stages)}
        return next((route for route in self.routes if self.stores or route not in storing), next(iter(self.routes)))


def candidates_of(ladder: Ladder, context: Context, corpus: Corpus | None, pilots: bool = True) -> RouteCandidates:
    """The routes that the ladder can have among those that `routing.routes` allows.

    Args:
        ladder: As it is written; its gates and its `signals.source: auto` are settled here.
        context: The run.
        corpus: Its data; None: not prepared yet.
        pilots: Whether pilots choose among them: answers that they read, too, are cached, and routes that cannot win have none.

    Raises:
        UserError: A route that is named cannot be.
    """
    from tasks.planning.preflight import check_ladder  # torch is imported where something is counted

    base = settled(ladder.model_copy(update={"route": AS_WRITTEN}), corpus.info if corpus else None)
    info, asked = corpus.info if corpus else None, ladder.routing.routes
    examples = training_examples(corpus, any(stage.signals.source != "live" for stage in ladder.stages) or len(base.stages) > 1)
    found, left_out = dict[str, RouteCandidate](), dict[str, str]()

    def candidate(route: Route) -> RouteCandidate:
        named = routed(route, base, info)
        made = _with_root_cached(named, ladder, info) if pilots else named
        root, sizes = check_ladder(made, context.model_copy(update={"start_at": None}), corpus)
        forwards = tuple(map(Forward.of, (root, *sizes)))
        positions = 0 if root is None or ladder.teacher.source == "answers" else root.tokens
        return RouteCandidate(made, forwards, total_of(cost_of(named, forwards, examples)), positions)

    def of_full_price(made: RouteCandidate) -> RouteCandidate:
        def cost(ladder: Ladder) -> float:
            return total_of(cost_of(ladder, made.forwards, examples))

        return made._replace(ladder=matched_whole(made.ladder, cost, written.listed))

    written = candidate(AS_WRITTEN)
    for route in ALL:
        if asked and route not in asked:
            left_out[route] = "not in routing.routes"
            continue
        if route == "direct-cached" and not asked and ladder.compute.strategy == "fsdp":
            left_out[route] = "the root is spread over the workers, and stored answers need it whole"
            continue
        try:
            made = written if route == AS_WRITTEN else candidate(route)
        except UserError as error:
            if asked:
                raise
            left_out[route] = str(error)
            continue
        found[route] = made
    if pilots and "direct" in found:
        signals = found["direct"].ladder.stages[-1].signals
        for route in [each for each in found if _ends_like_direct(found[each].ladder, signals)]:
            left_out[route] = "its last student has nothing of the stages above it: direct makes the same one, for less"
            del found[route]
    priced = {route: of_full_price(made) for route, made in found.items()}
    copies = _copies(priced, examples.number)
    ordered = {route: priced[route] for route in sorted(priced, key=lambda route: priced[route].listed) if route not in copies}
    stores = ladder.stages[-1].signals.source in ("auto", "cached")
    return RouteCandidates(ordered, written.listed, {**left_out, **copies}, examples, pilots, stores)


def _copies(priced: Mapping[str, RouteCandidate], examples: int | None) -> dict[str, str]:
    """The routes that are the same trainings as one before them, with that reason."""
    stages = {route: _trainings(made.ladder, examples) for route, made in priced.items()}
    first = {route: next(other for other in priced if stages[other] == own) for route, own in stages.items()}
    return {route: f"the same as {other} for this ladder" for route, other in first.items() if other != route}


def _trainings(made: Ladder, examples: int | None) -> list[Stage]:
    """The stages, those that the root alone teaches and those that read all examples in the same words."""

    def plain(place: int, stage: Stage) -> Stage:
        training = stage.training
        if examples is not None and (training.pool or 0) >= examples:
            stage = stage.model_copy(update={"training": training.model_copy(update={"passes": 1})})
        return taught(stage, "root") if not has_trials(stage, place) and planned_teaching(made, place).voices == (Voice(0),) else stage

    return [plain(place, stage) for place, stage in enumerate(made.stages)]


def _ends_like_direct(made: Ladder, signals: Signals) -> bool:
    """Whether the root alone teaches the last student, by these signals, from random weights: the stages above it are for nothing."""
    last, place = made.stages[-1], len(made.stages) - 1
    if not place or has_trials(last, place) or last.signals != signals:
        return False
    if last.student.initialisation != "random" or last.student.vision != "own":
        return False
    return last.members == 1 and planned_teaching(made, place).voices == (Voice(0),)


def _with_root_cached(made: Ladder, written: Ladder, info: CorpusInfo | None) -> Ladder:
    """A route with the root's answers cached where `signals.source: auto` allows it: the pilot and the final training read the same."""
    if written.teacher.source == "answers" or written.compute.strategy == "fsdp":
        return made  # a file of answers is a cache already; a root that is spread over workers stays so
    auto = {stage.name for stage in written.stages if stage.signals.source == "auto" and stage.gate.policy != "insert"}

    def stage(place: int, old: Stage) -> Stage:
        if old.name not in auto or not planned_teaching(made, place).by_root_alone:
            return old
        free = old.model_copy(update={"signals": old.signals.model_copy(update={"source": "auto"})})
        return old.model_copy(update={"signals": settled_signals(free, made, info, trainings=2)})

    return with_stages(made, *(stage(place, old) for place, old in enumerate(made.stages)))


def cost_of(
    ladder: Ladder,
    forwards: Sequence[Forward],
    examples: TrainingExamples,
    taken: Sequence[int] | None = None,
    caches: AnswerCaches | None = None,
    names: Sequence[Any] | None = None,
) -> list[StageFlops]:
    """Operations of every stage of a settled ladder; for arguments see `ladder_flops`."""
    cached = [choose(stage, ladder, None).cached for stage in ladder.stages]
    return ladder_flops(ladder, forwards, cached, examples, taken, caches, names)


class Spending:
    """Operations of trainings one after another that share the root's stored answers."""

    def __init__(self, examples: TrainingExamples) -> None:
        self.examples = examples
        self.caches = AnswerCaches(examples)
        self.total = 0.0
        self._trainings = 0

    def costs(self, ladder: Ladder, forwards: Sequence[Forward]) -> list[StageFlops]:
        """Operations of each stage that a ladder would add."""
        return cost_of(ladder, forwards, self.examples, None, self.caches.copy(), self._names(ladder))

    def would(self, ladder: Ladder, forwards: Sequence[Forward]) -> float:
        """Operations that a ladder would add."""
        return total_of(self.costs(ladder, forwards))

    def spend(self, ladder: Ladder, forwards: Sequence[Forward], taken: Sequence[int] | None = None) -> float:
        """Add a ladder; returns the operations that it adds. `taken`: steps of its trainings, where they ended early."""
        added = total_of(cost_of(ladder, forwards, self.examples, taken, self.caches, self._names(ladder)))
        self._trainings += 1
        self.total += added
        return added

    def _names(self, ladder: Ladder) -> list[Any]:
        """The root is the same in all ladders; students are not."""
        return ["root", *((self._trainings, place) for place in range(len(ladder.stages)))]
