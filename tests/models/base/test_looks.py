"""Verdicts taken again after more seeds: error over all looks, and the advice."""

import math

import numpy as np
import pytest

from models.base.looks import error_of, interval_at, seeds_to_decide
from models.base.statistics import Method, interval, outcome

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_looks_share_the_error_and_never_spend_more(confidence: float) -> None:
    assert sum(error_of(look, confidence) for look in range(1, 60)) == pytest.approx(1 - confidence)
    assert all(error_of(look) > error_of(look + 1) for look in range(1, 20))


@pytest.mark.parametrize("added", [(5, 5, 15), *(pytest.param(added, marks=pytest.mark.slow) for added in ((3, 7), (5, 2, 2)))])
def test_the_intervals_of_all_looks_hold_the_true_mean_together(added: tuple[int, ...]) -> None:
    generator, proofs, missed = np.random.default_rng(0), 400, 0
    for _ in range(proofs):
        looks: list[list[float]] = []
        missing = False
        for size in added:
            looks.append(list(generator.normal(0.3, 1, size)))
            found = interval_at(looks)
            missing = missing or not found.low <= 0.3 <= found.high
        missed += missing
    assert 0.02 * proofs < missed < 0.05 * proofs + 3 * math.sqrt(proofs * 0.05 * 0.95)


def follow_advice(generator: np.random.Generator, noise: float, naive: bool = False) -> bool:
    """Whether a proof of five seeds between equal arms, taken again with as many as are advised, at most twice, calls one better."""
    looks = [list(generator.normal(0, noise, 5))]
    for _ in range(3):
        seeds = [gain for look in looks for gain in look]
        decided = outcome(interval(seeds) if naive else interval_at(looks), 1.0)
        if decided != "undecided":
            return decided != "equivalent"
        needed = seeds_to_decide(looks, 1.0)
        if needed is None or needed > 24:  # from 20 seeds of a look on the bootstrap judges, more slowly
            return False
        looks.append(list(generator.normal(0, noise, needed - len(seeds))))
    return False


@pytest.mark.slow  # a smaller one is in test_verdict_rates.py
def test_following_the_advice_errs_in_five_per_cent_where_one_look_after_another_errs_more_often() -> None:
    errors = [sum(follow_advice(np.random.default_rng(start), 4.0, naive) for start in range(1000)) for naive in (False, True)]
    assert errors[0] <= 50
    assert errors[1] > 60, "the test would not see the fault that it is for"


@pytest.mark.parametrize("method", ["t", "bootstrap-t"])
def test_the_first_look_is_one_interval_at_its_share(method: Method) -> None:
    gains = np.random.default_rng(0).normal(size=8)
    assert interval_at([list(gains)], method=method) == interval(gains, 0.96, method=method)
    assert interval_at([list(gains)], number=3)[:3] == pytest.approx(interval(gains, 1 - error_of(3))[:3], rel=1e-9)


def test_a_later_look_is_the_mean_of_all_seeds_with_an_interval_that_holds_it() -> None:
    generator = np.random.default_rng(1)
    looks = [list(generator.normal(5, 0.1, 5)), list(generator.normal(-5, 0.1, 5))]  # which contradict each other
    found = interval_at(looks)
    assert found.mean == pytest.approx(float(np.mean(looks)))
    assert found.low <= found.mean <= found.high
    assert found.pairs == 10


@pytest.mark.parametrize(("true", "noise"), [(1.5, 2.0), (2.0, 3.0), (0.3, 1.0)])
def test_the_seeds_that_are_named_decide_in_four_of_five_proofs(true: float, noise: float) -> None:
    first = true + noise * np.array([-1.2, -0.6, 0.0, 0.6, 1.2]) / np.std([-1.2, -0.6, 0.0, 0.6, 1.2], ddof=1)
    needed = seeds_to_decide([list(first)], 1.0)
    assert needed is not None
    generator, decided = np.random.default_rng(0), 0
    for _ in range(100):
        looks = [list(first), list(generator.normal(true, noise, needed - 5))]
        decided += outcome(interval_at(looks), 1.0) != "undecided"
    assert 66 <= decided <= 95


def test_a_difference_that_only_thousands_of_seeds_would_show_has_no_number() -> None:
    far = [-100.0, 100.0, -50.0, 50.0, 0.0]
    assert seeds_to_decide([far], 1.0) is None
    assert seeds_to_decide([[1.2, 1.2, 1.2, 1.2]], 1.0, resolution=1e-6) == 6


def test_flips_of_two_new_seeds_bound_nothing_and_the_advice_asks_for_more() -> None:
    first = [0.5, 1.5, 1.0, -0.5, 2.0, 2.5]
    assert math.isinf(interval_at([first, [1.0, 1.1]], method="sign-flip").high)
    needed = seeds_to_decide([first], 0.1, method="sign-flip")
    assert needed is not None
    assert needed >= 10
