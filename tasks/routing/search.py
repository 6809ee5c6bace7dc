"""Search for a route: pilots of a round, its verdict, and the final training.

`RouteSearch` holds the state between pilots, whose trainings the caller runs. All of it follows from the ladder, its data and the
records of finished rounds, so that a run that is continued goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from conf.schema.ladder import Ladder
from models.base.quality import direction, main_metric
from models.data.corpus import Corpus
from models.evaluation.paired import DocumentScores
from tasks.records.choice.route import PilotRecord, RouteDecision, RouteRound, Standing
from tasks.routing.candidates import RouteCandidates, Spending, candidates_of
from tasks.routing.halving import HalvingPlan, Noise, noise_over_seeds, plan_rounds, standings_of
from tasks.routing.noise import error_of_gain
from tasks.routing.pilots import Pilot, pilot_ladder, shortest, steps_of, with_steps, within
from tasks.routing.warm_start import first_weights
from tasks.runtime.runs.run_registry import Context

ONE_SEED = "one pilot a route and round: the noise counts the held-out rows and not the spread over seeds (routing.seeds)"


class RouteSearch:
    """The search of one ladder."""

    def __init__(self, ladder: Ladder, candidates: RouteCandidates, before: RouteDecision | None = None) -> None:
        """Plan the search.

        Args:
            ladder: Whose route is auto.
            candidates: Its routes.
            before: The decision as far as an interrupted run had come; None: a new one.
        """
        self.ladder, self.candidates, self.settings = ladder, candidates, ladder.routing
        self.metric = main_metric(ladder.workload)
        self.plan = plan_of(ladder, candidates)
        self.spending = Spending(candidates.examples)
        self._alone = {route: Spending(candidates.examples) for route in candidates.routes}
        for finished in before.rounds if before else ():
            for pilot in finished.pilots:
                self._count(pilot)
        self.decision = before or self._begun()

    def _begun(self) -> RouteDecision:
        left_out = {**self.candidates.left_out, **self.plan.too_dear}
        return RouteDecision(
            metric=self.metric,
            price=self.candidates.price,
            share=self.settings.share,
            listed={route: each.listed for route, each in self.candidates.routes.items()},
            left_out=left_out,
            notes=(ONE_SEED,) if self.settings.seeds == 1 and self.plan.sizes else (),
            shared_answers=self.candidates.shared,
        )

    @property
    def left(self) -> tuple[str, ...]:
        """The routes of the next round."""
        rounds = self.decision.rounds
        if not rounds:
            return self.plan.routes
        return tuple(each.route for each in rounds[-1].standings if each.kept)

    @property
    def finished(self) -> bool:
        """Whether no round is left."""
        return len(self.decision.rounds) == len(self.plan.sizes) or len(self.left) < 2

    def pilots(self) -> Iterator[Pilot]:
        """The pilots of the next round, one after another: as long as what its own route has stored allows."""
        number = len(self.decision.rounds) + 1
        for replicate in range(self.settings.seeds):
            for route in self.left:
                label = f"{route}-{number}" + (f"-{replicate + 1}" if self.settings.seeds > 1 else "")
                whole, forwards = (
                    pilot_ladder(self.candidates.routes[route].ladder, label, replicate),
                    self.candidates.routes[route].forwards,
                )
                alone = self._alone[route]
                ladder = within(whole, lambda made, own=alone, of=forwards: own.would(made, of), self.plan.prices[number - 1])
                yield Pilot(route, number, ladder, self.spending.costs(ladder, forwards))

    def count(self, pilot: PilotRecord) -> PilotRecord:
        """The record of a pilot that has run, with the operations of the steps that it took."""
        return pilot.model_copy(update={"flops": self._count(pilot)})

    def _count(self, pilot: PilotRecord) -> float:
        candidate = self.candidates.routes[pilot.route]
        replicate = pilot.seed - candidate.ladder.stage_seed(candidate.ladder.stages[-1])
        ladder = with_steps(pilot_ladder(candidate.ladder, "counted", replicate), pilot.steps)
        self._alone[pilot.route].spend(ladder, candidate.forwards)
        return self.spending.spend(ladder, candidate.forwards)

    def judge(self, pilots: Sequence[PilotRecord], scores: Mapping[str, DocumentScores]) -> RouteDecision:
        """Add a finished round to the decision.

        Args:
            pilots: Of the round.
            scores: Of each pilot's last student on the documents of the validation split, by its fingerprint.
        """
        number, sizes = len(self.decision.rounds) + 1, self.plan.sizes
        keep = sizes[number] if number < len(sizes) else 1
        of = {route: [pilot for pilot in pilots if pilot.route == route] for route in self.left}
        found = {route: [pilot.score for pilot in each] for route, each in of.items()}
        standings = standings_of(found, self._noise(of, scores), self.decision.listed, keep, self.metric)
        made = RouteRound(number=number, price=self.plan.prices[number - 1], pilots=tuple(pilots), standings=standings)
        self.decision = self.decision.model_copy(update={"rounds": (*self.decision.rounds, made), "spent": self.spending.total})
        return self.decision

    def _noise(self, of: Mapping[str, Sequence[PilotRecord]], scores: Mapping[str, DocumentScores]) -> Noise:
        def noise(first: str, second: str) -> float | None:
            pairs = list(zip(of[first], of[second], strict=True))
            gains = [direction(self.metric) * (a.score - b.score) for a, b in pairs if a.score is not None and b.score is not None]
            errors = [error_of_gain(scores[a.fingerprints[-1]], scores[b.fingerprints[-1]]) for a, b in pairs]
            return noise_over_seeds(gains, errors)

        return noise

    def decide(self) -> tuple[RouteDecision, Ladder]:
        """The decision with its winner, and the ladder with the rest of the price; where students begin stands in the decision."""
        winner, reason = self._winner()
        candidate = self.candidates.routes[winner]
        rest = self.decision.price - self.spending.total
        ladder = within(candidate.ladder, lambda made: self.spending.would(made, candidate.forwards), rest)
        final = self.spending.would(ladder, candidate.forwards)
        changed = {"winner": winner, "reason": reason, "steps": steps_of(ladder), "final": final, "spent": self.spending.total}
        self.decision = self.decision.model_copy(update=changed)
        self.decision = self.decision.model_copy(update={"first_weights": first_weights(ladder, self.decision)})
        return self.decision, ladder

    def _winner(self) -> tuple[str, str]:
        if self.decision.rounds:
            first: Standing = self.decision.rounds[-1].standings[0]
            if first.score is not None:
                return first.route, f"round {len(self.decision.rounds)}: {first.reason}"
            return (
                self.candidates.untried,
                "every pilot of the last round has failed; it is the cheapest route that the signals as written allow",
            )
        if len(self.candidates.routes) == 1:
            return next(iter(self.candidates.routes)), "the only route that this ladder can have"
        return (
            self.candidates.untried,
            "no two pilots fit into routing.share of the price; it is the cheapest route that the signals as written allow",
        )


def decided_ladder(candidates: RouteCandidates, decision: RouteDecision) -> Ladder:
    """The ladder of a decision that was recorded."""
    assert decision.winner is not None
    return with_steps(candidates.routes[decision.winner].ladder, decision.steps)


def routes_to_search(ladder: Ladder, context: Context, corpus: Corpus | None, before: RouteDecision | None = None) -> RouteCandidates:
    """The routes of `candidates_of`; answers are stored for pilots and final training only where there are pilots.

    A decision that an interrupted run had begun, `before`, goes on with the routes that it knew.
    """
    if before is not None:
        known = candidates_of(ladder, context, corpus, before.shared_answers)
        return known._replace(routes={route: each for route, each in known.routes.items() if before.winner or route in before.listed})
    shared = candidates_of(ladder, context, corpus)
    if plan_of(ladder, shared).sizes:
        return shared
    alone = candidates_of(ladder, context, corpus, pilots=False)  # takes as much or more, so that no pilot fits here either
    return alone._replace(routes={route: alone.routes[route] for route in shared.routes if route in alone.routes}, left_out=shared.left_out)


def plan_of(ladder: Ladder, candidates: RouteCandidates) -> HalvingPlan:
    """The rounds of the search that the settings ask for."""
    settings, least = ladder.routing, dict[str, float]()
    for route, candidate in candidates.routes.items():
        alone = Spending(candidates.examples)
        least[route] = alone.would(shortest(candidate.ladder, settings.least_steps), candidate.forwards)
    return plan_rounds(least, settings.share * candidates.price, settings.factor, settings.seeds)
