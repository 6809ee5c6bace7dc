"""A pilot and the final training read the same answers of the root, which are then computed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from flows.routing.choose import choose_route
from tasks.planning.matching import total_of
from tasks.records.choice.route import PilotRecord, RouteDecision
from tasks.routing.candidates import RouteCandidates, Spending, candidates_of, cost_of
from tasks.routing.forecast import search_notes
from tasks.routing.pilots import Pilot, steps_of, within
from tasks.routing.search import RouteSearch, routes_to_search
from tasks.runtime.runs.run_registry import PLAN, Context
from tests.factories import inputs_of, model_record
from tests.flows.ladders import TINY

ONE = f"{TINY.partition('  - name: two')[0]}".replace("initialisation: layers", "initialisation: random")


def known(folder: Path, *overrides: str) -> RouteCandidates:
    ladder = load("digits", ("route=auto", "routing.routes=[as-written, direct, root-cached, best-of-rungs]", *overrides)).ladder
    return candidates_of(ladder, Context(run=PLAN, ladder=ladder.name, home=str(folder), base=str(folder)), None)


def sources(candidates: RouteCandidates) -> dict[str, list[str]]:
    return {route: [stage.signals.source for stage in each.ladder.stages] for route, each in candidates.routes.items()}


def test_auto_caches_what_the_root_says_and_nothing_of_parents_that_are_trained_anew(tmp_path: Path) -> None:
    written, auto = known(tmp_path, "defaults.signals.kind=full"), known(tmp_path, "defaults.signals={source: auto, kind: full}")
    assert sources(written) == {
        "as-written": ["live", "live", "live"],
        "direct": ["live"],
        "root-cached": ["cached", "cached", "cached"],
        "best-of-rungs": ["live", "live", "live"],
    }
    assert sources(auto) == {
        "as-written": ["cached", "live", "live"],
        "direct": ["cached"],
        "best-of-rungs": ["cached", "live", "live"],
    }
    assert auto.price == written.price
    assert {route: each.listed for route, each in auto.routes.items()}.items() < {
        route: each.listed for route, each in written.routes.items()
    }.items()


def test_a_route_whose_last_student_is_that_of_direct_has_no_pilot(tmp_path: Path) -> None:
    assert known(tmp_path, "defaults.signals={source: auto, kind: full}").left_out["root-cached"] == (
        "its last student has nothing of the stages above it: direct makes the same one, for less"
    )
    assert "root-cached" in known(tmp_path).routes, "whose answers are cached, as those of direct are not"


@pytest.mark.parametrize("source", ["auto", "cached"])
def test_a_decision_of_an_earlier_version_is_gone_on_with_as_it_was_taken(source: str, tmp_path: Path) -> None:
    """Its candidates had no cache of their own, and none was left out for ending like direct."""
    ladder = load("digits", ("route=auto", "data.max_documents=60", f"defaults.signals={{source: {source}, kind: full}}")).ladder
    inputs = inputs_of(ladder, tmp_path)
    before = candidates_of(ladder, inputs.context, inputs.data.corpus(), pilots=False)
    assert "root-cached" not in candidates_of(ladder, inputs.context, inputs.data.corpus()).routes
    for winner in ("root-cached", "direct"):
        wanted = before.routes[winner].ladder
        decision = RouteDecision(metric="accuracy", price=1.0, share=0.1, listed={}, winner=winner, steps=steps_of(wanted))
        written = decision.model_dump(exclude={"shared_answers"})
        _, chosen = choose_route(model_record("teacher"), inputs, RouteDecision.model_validate(written))
        assert chosen.ladder == wanted


def test_where_no_pilot_fits_nothing_is_stored_and_a_decision_that_had_begun_to_store_goes_on(tmp_path: Path) -> None:
    short = ("data.max_documents=300", *(f"stages.{name}.training={{steps: 4, batch_size: 1}}" for name in ("half", "quarter", "eighth")))
    routing = "routing={least_steps: 1000, routes: [as-written, direct]}"
    asked = ("route=auto", "defaults.signals={source: auto, kind: full}", routing, *short)
    inputs = inputs_of(load("digits", asked).ladder, tmp_path)
    decision, chosen = choose_route(model_record("teacher"), inputs)
    assert (decision.rounds, decision.winner, decision.shared_answers) == ((), "direct", False)
    assert [stage.signals.source for stage in chosen.ladder.stages] == ["live"]
    _, stored = choose_route(model_record("teacher"), inputs, decision.model_copy(update={"shared_answers": True}))
    assert [stage.signals.source for stage in stored.ladder.stages] == ["cached"]


@pytest.mark.parametrize(("source", "winner"), [("auto", "direct-cached"), ("cached", "direct-cached"), ("live", "direct")])
def test_where_no_pilot_fits_answers_are_stored_and_read_again_unless_they_are_written_live(
    source: str, winner: str, tmp_path: Path
) -> None:
    short = [f"stages.{name}.training={{steps: 4, batch_size: 4}}" for name in ("half", "quarter", "eighth")]
    signals = f"defaults.signals={{source: {source}, kind: full}}"
    ladder = load("digits", ("route=auto", signals, "routing.least_steps=1000", *short)).ladder
    found = routes_to_search(ladder, Context(run=PLAN, ladder="digits", home=str(tmp_path), base=str(tmp_path)), None)
    decision, made = RouteSearch(ladder, found).decide()
    assert (decision.rounds, decision.winner) == ((), winner)
    assert [(stage.signals.source, stage.training.passes) for stage in made.stages] == (
        [("cached", 4)] if winner == "direct-cached" else [("live", 1)]
    )
    notes = search_notes(ladder, tmp_path, Home(tmp_path))
    assert any("its stored answers take" in note for note in notes) == (winner == "direct-cached")


def test_a_route_that_ends_like_direct_has_no_pilot_either_where_direct_has_none(tmp_path: Path) -> None:
    asked = ("route=auto", "routing.routes=[direct, root-cached]", "defaults.signals={source: auto, kind: full}")
    ladder = load("digits", asked).ladder
    found = routes_to_search(ladder, Context(run=PLAN, ladder=ladder.name, home=str(tmp_path), base=str(tmp_path)), None)
    assert (list(found.routes), found.shared) == (["direct"], False)
    assert "root-cached" in found.left_out
    assert RouteSearch(ladder, found).finished


def test_direct_cached_has_a_pilot_where_answers_of_fewer_examples_are_another_training(tmp_path: Path) -> None:
    asked = (
        "route=auto",
        "routing.routes=[direct, direct-cached]",
        "defaults.signals={source: auto, kind: full}",
        "data.max_documents=300",
    )
    few = [f"stages.{name}.training={{steps: 4, batch_size: 4}}" for name in ("half", "quarter", "eighth")]
    for changes, routes in ((), ["direct"]), (few, ["direct-cached", "direct"]):
        inputs = inputs_of(load("digits", (*asked, *changes)).ladder, tmp_path)
        found = candidates_of(inputs.ladder, inputs.context, inputs.data.corpus())
        assert list(found.routes) == routes
    longer = {route: steps_of(each.ladder)[0] for route, each in found.routes.items()}
    assert longer["direct-cached"] > longer["direct"], "at one price it has more steps"
    assert "direct-cached" in known(tmp_path, *asked[1:3]).routes, "data that are not prepared may be as many as they like"


def test_a_root_that_is_spread_over_workers_is_asked_live_unless_a_route_that_stores_is_named(tmp_path: Path) -> None:
    spread = load("digits", ("route=auto", "compute={strategy: fsdp, launcher: torchrun}")).ladder
    named = load("digits", ("route=auto", "compute={strategy: fsdp, launcher: torchrun}", "routing.routes=[direct, direct-cached]")).ladder
    context = Context(run=PLAN, ladder="digits", home=str(tmp_path), base=str(tmp_path))
    assert "stored answers need it whole" in candidates_of(spread, context, None).left_out["direct-cached"]
    assert "direct-cached" in candidates_of(named, context, None).routes


def test_a_decision_that_was_begun_goes_on_with_the_routes_that_it_knew(tmp_path: Path) -> None:
    few = [f"stages.{name}.training={{steps: 40, batch_size: 4}}" for name in ("half", "quarter", "eighth")]
    inputs = inputs_of(load("digits", ("route=auto", "data.max_documents=300", "routing.least_steps=1", *few)).ladder, tmp_path)
    new = routes_to_search(inputs.ladder, inputs.context, inputs.data.corpus())
    begun = RouteSearch(inputs.ladder, new).decision
    old = begun.model_copy(update={"listed": {route: flops for route, flops in begun.listed.items() if route != "direct-cached"}})
    assert "direct-cached" in begun.listed
    again = routes_to_search(inputs.ladder, inputs.context, inputs.data.corpus(), old)
    assert list(again.routes) == list(old.listed)


def test_routes_that_are_one_under_two_names_have_one_pilot(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE)
    ladder = load(str(tmp_path / "one.yaml"), ("route=auto", "defaults.signals={source: auto, kind: full}")).ladder
    found = candidates_of(ladder, Context(run=PLAN, ladder="one", home=str(tmp_path), base=str(tmp_path)), None)
    assert found.left_out["root-cached"] == "the same as as-written for this ladder"
    assert [stage.signals.source for stage in found.routes["as-written"].ladder.stages] == ["cached"]


def test_a_pilot_is_as_long_as_if_its_route_were_alone(tmp_path: Path) -> None:
    """What a route before it has stored makes no other one's pilot longer, and counts once in what is spent."""
    ladder = load("digits", ("route=auto", "routing={routes: [direct, as-written, best-of-rungs], least_steps: 2, share: 0.3}")).ladder
    candidates = known(tmp_path, "defaults.signals={source: auto, kind: full}")
    routes = {route: candidates.routes[route] for route in ("direct", "as-written", "best-of-rungs")}
    orders = [routes, dict(reversed(routes.items()))]
    searches = [RouteSearch(ladder, candidates._replace(routes=order)) for order in orders]
    made = [{pilot.route: (steps_of(pilot.ladder), pilot.flops) for pilot in counted(search)} for search in searches]
    assert {route: steps for route, (steps, _) in made[0].items()} == {route: steps for route, (steps, _) in made[1].items()}
    assert all(sum(flops for _, flops in each.values()) < 0.3 * candidates.price for each in made)
    assert made[0]["as-written"][1] < made[1]["as-written"][1], "direct has stored what it asks for"


def counted(search: RouteSearch) -> list[Pilot]:
    """The pilots of the first round, each counted as one that has run."""
    found = []
    for pilot in search.pilots():
        found.append(pilot)
        seed = pilot.ladder.stage_seed(pilot.ladder.stages[-1])
        search.count(PilotRecord(route=pilot.route, number=1, seed=seed, steps=steps_of(pilot.ladder), score=0.5, flops=0.0))
    return found


@pytest.mark.parametrize("source", ["live", "auto"])
def test_the_final_training_does_not_pay_again_for_answers_that_pilots_have_stored(source: str, tmp_path: Path) -> None:
    candidates = known(tmp_path, f"defaults.signals={{source: {source}, kind: full}}")
    direct, loser = candidates.routes["direct"], candidates.routes["as-written"]
    whole, spending = direct.ladder.stages[0].training.steps, Spending(candidates.examples)
    for each in (loser, direct):
        pilot = within(each.ladder, lambda made, of=each.forwards: spending.would(made, of), 0.05 * candidates.price)
        spending.spend(pilot, each.forwards)
    final = within(direct.ladder, lambda made: spending.would(made, direct.forwards), candidates.price - spending.total)
    student = 3 * direct.forwards[1].whole / (3 * direct.forwards[1].whole + direct.forwards[0].whole)  # share of the price of a step
    lost = 1 - final.stages[0].training.steps / whole
    assert 0.09 < lost < 0.11 if source == "live" else lost < 0.1 * (1 + student) / 2
    assert total_of(cost_of(final, direct.forwards, candidates.examples)) < candidates.price
