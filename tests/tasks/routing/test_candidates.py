"""A pilot and the final training read the same answers of the root, which are then computed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.loading.load import load
from tasks.planning.matching import total_of
from tasks.routing.candidates import RouteCandidates, Spending, candidates_of, cost_of
from tasks.routing.pilots import within
from tasks.runtime.runs.run_registry import PLAN, Context


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
