"""A search and its final training take what the ladder as written takes, and a continued search goes on from its record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.loading.load import load
from models.evaluation.paired import DocumentScores
from tasks.planning.matching import matched_whole, settled, total_of
from tasks.planning.routes import routed
from tasks.records.choice.route import PilotRecord, RouteDecision
from tasks.routing.candidates import RouteCandidate, RouteCandidates, Spending, cost_of
from tasks.routing.pilots import pilot_ladder, steps_of, within
from tasks.routing.search import RouteSearch, decided_ladder
from tasks.store.fingerprint import fingerprint
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples
from tasks.training.identity import stage_identity

EXAMPLES = TrainingExamples(1400)
INFO: Any = SimpleNamespace(workload="image-classification", documents={"train": 1400}, label_names=tuple("0123456789"))
FORWARDS = {
    "direct": (Forward(1000, 1000), Forward(60, 60)),
    "as-written": (Forward(1000, 1000), Forward(500, 500), Forward(200, 200), Forward(60, 60)),
}
FORWARDS["root-cached"] = FORWARDS["as-written"]


def candidates(*overrides: str) -> tuple[Any, RouteCandidates]:
    ladder = load("digits", ("route=auto", "routing.least_steps=2", *overrides)).ladder
    base = settled(ladder, INFO)
    price = total_of(cost_of(base, FORWARDS["as-written"], EXAMPLES))

    def candidate(route: Any) -> RouteCandidate:
        made, forwards = routed(route, base, INFO), FORWARDS[route]
        whole = matched_whole(made, lambda each: total_of(cost_of(each, forwards, EXAMPLES)), price)
        return RouteCandidate(whole, forwards, total_of(cost_of(made, forwards, EXAMPLES)))

    return ladder, RouteCandidates({route: candidate(route) for route in FORWARDS}, price, {}, EXAMPLES, shared=True, stores=False)


def run(search: RouteSearch, score: dict[str, float], rounds: int = 9) -> list[PilotRecord]:
    """Run pilots whose scores are given, and whose documents leave no noise."""
    made = list[PilotRecord]()
    while not search.finished and len(search.decision.rounds) < rounds:
        found = []
        for pilot in search.pilots():
            seed, name = pilot.ladder.stage_seed(pilot.ladder.stages[-1]), f"{pilot.route} {pilot.number}"
            record = PilotRecord(
                route=pilot.route,
                number=pilot.number,
                seed=seed,
                steps=steps_of(pilot.ladder),
                score=score[pilot.route],
                flops=pilot.flops,
                fingerprints=tuple(f"{name} {stage.name}" for stage in pilot.ladder.stages),
            )
            found.append(search.count(record))
        documents = np.arange(50)
        scores = DocumentScores(documents, documents * 0.0, documents * 0 + 1.0, documents * 0 + 1)
        search.judge(found, {pilot.fingerprints[-1]: scores for pilot in found})
        made += found
    return made


@pytest.mark.parametrize("better", ["direct", "as-written", "root-cached"])
@pytest.mark.parametrize("overrides", [(), ("defaults.signals={source: cached, kind: full}",), ("routing.seeds=2",)])
def test_search_and_final_training_take_what_the_ladder_takes(better: str, overrides: tuple[str, ...]) -> None:
    ladder, known = candidates(*overrides)
    search = RouteSearch(ladder, known)
    pilots = run(search, {**dict.fromkeys(FORWARDS, 0.5), better: 0.9})
    decision, final = search.decide()
    assert decision.winner == better
    assert 0.05 * known.price < decision.spent <= 0.1 * known.price
    assert decision.spent == pytest.approx(sum(pilot.flops for pilot in pilots))
    step = 3 * 60 * 64 + 1000 * 64  # of the last student with a live teacher
    assert known.price - step <= decision.spent + decision.final <= known.price
    assert final.stages[-1].training.steps > 0.8 * known.routes[better].ladder.stages[-1].training.steps


def test_pilots_of_a_round_cost_the_same_and_later_ones_are_longer() -> None:
    ladder, known = candidates()
    search = RouteSearch(ladder, known)
    run(search, {"direct": 0.5, "as-written": 0.6, "root-cached": 0.7})
    first, second = search.decision.rounds
    assert [len(each.pilots) for each in (first, second)] == [3, 2]
    assert {pilot.route for pilot in second.pilots} == {"as-written", "root-cached"}
    step = 3 * 60 * 64 + 1000 * 64
    for each in (first, second):
        assert all(each.price - step <= pilot.flops <= each.price for pilot in each.pilots)
    assert second.pilots[0].steps[-1] > first.pilots[0].steps[-1]


def test_a_continued_search_has_the_same_pilots_and_the_same_end() -> None:
    ladder, known = candidates()
    score = {"direct": 0.5, "as-written": 0.6, "root-cached": 0.7}
    whole = RouteSearch(ladder, known)
    run(whole, score)
    killed = RouteSearch(ladder, known)
    run(killed, score, rounds=1)
    kept = RouteDecision.model_validate_json(killed.decision.model_dump_json())
    continued = RouteSearch(ladder, known, kept)
    run(continued, score)
    assert continued.decide() == whole.decide()
    decision, final = whole.decide()
    assert steps_of(decided_ladder(known, decision)) == steps_of(final)


def test_where_no_two_pilots_fit_the_cheapest_route_has_the_whole_price_and_the_record_says_so() -> None:
    ladder, known = candidates("routing.least_steps=1000")
    search = RouteSearch(ladder, known)
    assert search.finished
    decision, _ = search.decide()
    assert (decision.winner, decision.spent) == ("direct", 0.0)
    assert "no two pilots fit" in decision.reason
    assert len(decision.left_out) == 2


def test_a_pilot_is_a_whole_schedule_under_a_name_of_its_own_that_is_no_part_of_its_identity() -> None:
    ladder, known = candidates()
    written = known.routes["as-written"].ladder
    pilot = pilot_ladder(written, "as-written-1")
    assert [stage.name for stage in pilot.stages] == [f"{stage.name}-as-written-1" for stage in written.stages]
    for old, new in zip(written.stages, pilot.stages, strict=True):
        first, second = (stage_identity(each, stage, "fp32", "data", ("t",)) for each, stage in ((written, old), (pilot, new)))
        assert fingerprint(first) == fingerprint(second)
        assert new.gate.min_parent_retention is None
    assert pilot_ladder(written, "as-written-1", 1).stages[0].seed == ladder.seed + 1


def test_stored_answers_that_pilots_share_are_counted_once() -> None:
    _, known = candidates("defaults.signals={source: cached, kind: full}")
    candidate, spending = known.routes["root-cached"], Spending(EXAMPLES)
    first = spending.spend(candidate.ladder, candidate.forwards)
    again = spending.would(candidate.ladder, candidate.forwards)
    assert first - again == 1000 * 1400  # the root's answer to each example


def test_a_schedule_within_a_price_is_the_longest() -> None:
    _, known = candidates()
    candidate = known.routes["direct"]

    def cost(ladder: Any) -> float:
        return total_of(cost_of(ladder, candidate.forwards, EXAMPLES))

    made = within(candidate.ladder, cost, known.price / 7)
    one_more = made.stages[0].model_copy(update={"training": made.stages[0].training.model_copy(update={"steps": steps_of(made)[0] + 1})})
    assert cost(made) <= known.price / 7 < cost(made.model_copy(update={"stages": (one_more,)}))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("routing.routes=[auto, direct]", "auto chooses among these"),
        ("routing.routes=[direct]", "two routes or more"),
        ("routing.routes=[direct, direct]", "each route once"),
        ("routing.share=0.9", "routing.share"),
    ],
)
def test_settings_that_leave_no_choice_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load("digits", (override,))
