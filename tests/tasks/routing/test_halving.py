"""Rounds share the budget equally, ties go to the cheaper route, and noise decides what is a tie."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.paired import DocumentScores
from tasks.routing.halving import noise_over_seeds, plan_rounds, sizes_of, standings_of
from tasks.routing.noise import error_of_gain

LISTED = {"direct": 1.0, "root-cached": 2.0, "as-written": 3.0, "self": 4.0}


@pytest.mark.parametrize(
    ("routes", "factor", "sizes"), [(1, 2, ()), (2, 2, (2,)), (3, 2, (3, 2)), (7, 2, (7, 4, 2)), (7, 3, (7, 3)), (4, 10, (4,))]
)
def test_a_round_keeps_one_in_so_many(routes: int, factor: int, sizes: tuple[int, ...]) -> None:
    assert sizes_of(routes, factor) == sizes


@pytest.mark.parametrize("seeds", [1, 3])
def test_all_pilots_together_take_the_budget_and_each_round_an_equal_part(seeds: int) -> None:
    plan = plan_rounds(dict.fromkeys(LISTED, 0.1), 24.0, 2, seeds)
    assert plan.sizes == (4, 2)
    spent = [size * seeds * price for size, price in zip(plan.sizes, plan.prices, strict=True)]
    assert spent == pytest.approx([12.0, 12.0])
    assert plan.prices[1] == pytest.approx(2 * plan.prices[0])


def test_there_are_fewer_rounds_where_the_first_pilots_would_be_too_short() -> None:
    assert plan_rounds(dict.fromkeys(LISTED, 3.0), 24.0, 2).sizes == (4, 2)
    assert plan_rounds(dict.fromkeys(LISTED, 6.0), 24.0, 2).sizes == (4,)


def test_a_route_whose_shortest_pilot_is_too_dear_has_none_and_the_others_share_its_part() -> None:
    plan = plan_rounds({**dict.fromkeys(LISTED, 1.0), "self": 6.4}, 24.0, 2)
    assert plan.routes == ("direct", "root-cached", "as-written")
    assert plan.sizes == (3, 2)
    assert "takes 6 FLOP, and each of 4 may take 6 FLOP" in plan.too_dear["self"]
    assert plan_rounds(dict.fromkeys(LISTED, 13.0), 24.0, 2).sizes == ()  # not even two


def standings(
    scores: dict[str, float | None], noise: float | None, keep: int = 1, metric: str = "accuracy"
) -> list[tuple[str, bool, bool]]:
    made = standings_of({route: [score] for route, score in scores.items()}, lambda best, other: noise, LISTED, keep, metric)
    return [(each.route, each.tied, each.kept) for each in made]


def test_the_best_score_wins_beyond_the_noise_and_the_cheapest_within_it() -> None:
    scores = {"direct": 0.80, "root-cached": 0.83, "as-written": 0.84}
    assert standings(scores, 0.005)[0] == ("as-written", True, True)
    assert standings(scores, 0.02) == [("root-cached", True, True), ("as-written", True, False), ("direct", False, False)]
    assert standings(scores, 0.05)[0] == ("direct", True, True)
    assert standings(scores, None)[0] == ("as-written", True, True)  # where the noise is not known, the score decides


def test_of_bits_per_byte_less_is_better() -> None:
    assert [each[0] for each in standings({"direct": 2.2, "as-written": 2.0, "self": 2.1}, 0.0, 2, "bits_per_byte")] == [
        "as-written",
        "self",
        "direct",
    ]


def test_a_route_whose_pilot_has_failed_is_dropped_whatever_the_others_score() -> None:
    assert standings({"direct": None, "as-written": 0.1}, 0.0, 2) == [("as-written", True, True), ("direct", False, False)]
    assert standings({"direct": None, "as-written": None}, 0.0, 2) == [("direct", False, False), ("as-written", False, False)]


def test_the_noise_of_several_seeds_is_the_larger_one_of_rows_and_seeds() -> None:
    assert noise_over_seeds([0.1], [0.02]) == pytest.approx(0.02)
    assert noise_over_seeds([0.1, 0.1, 0.1], [0.02, 0.02, 0.02]) == pytest.approx(0.02)
    gains = [0.0, 0.2, 0.4]
    assert noise_over_seeds(gains, [0.02] * 3) == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))
    assert noise_over_seeds([0.1, 0.2], [0.02, None]) is None


def scored(right: np.ndarray) -> DocumentScores:
    ones = np.ones(len(right), dtype=np.int64)
    return DocumentScores(np.arange(len(right)), right.astype(float), ones.astype(float), ones)


def test_the_noise_of_a_gain_is_its_spread_over_samples_of_documents() -> None:
    """Against the formula for a difference of paired means; independent answers would give a larger one."""
    generator = np.random.default_rng(0)
    first = generator.random(400) < 0.8
    second = np.where(generator.random(400) < 0.05, ~first, first)
    difference = first.astype(float) - second
    error = error_of_gain(scored(first), scored(second))
    assert error == pytest.approx(difference.std(ddof=1) / np.sqrt(400), rel=0.1)
    assert error_of_gain(scored(first), scored(first)) == 0.0
    assert error_of_gain(scored(first[:9]), scored(second[:9])) is None
