"""Error rates of verdicts over seeds where the truth is known."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from models.base.statistics import FEW, interval, outcome

pytestmark = pytest.mark.thorough

DELTA = 0.01
PROOFS = 100


def verdicts(true: float, noise: float, seeds: int, proofs: int = PROOFS, start: int = 0) -> Counter[str]:
    """Verdicts of simulated proofs whose paired differences are normal."""
    generator = np.random.default_rng(start)
    return Counter(outcome(interval(generator.normal(true, noise, seeds)), DELTA) for _ in range(proofs))


def better(found: Counter[str]) -> int:
    return found["first better"] + found["second better"]


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 20])
@pytest.mark.parametrize("noise", [0.25, 0.5, 1])  # of one paired difference, in deltas
def test_two_identical_arms_are_called_different_in_at_most_five_of_a_hundred_proofs(seeds: int, noise: float) -> None:
    for start in range(3):
        assert better(verdicts(0.0, noise * DELTA, seeds, start=start)) <= 5


@pytest.mark.parametrize(("seeds", "proofs"), [(2, 3000), (5, 3000), (20, 400)])
def test_however_noisy_identical_arms_are_called_different_in_five_per_cent_of_many_proofs(seeds: int, proofs: int) -> None:
    expected = 0.05 * proofs
    assert better(verdicts(0.0, 100 * DELTA, seeds, proofs)) <= expected + 2 * math.sqrt(0.95 * expected)


@pytest.mark.parametrize(("seeds", "found"), [(5, 85), (8, 95), (20, 100)])
def test_a_planted_difference_of_two_deltas_is_found(seeds: int, found: int) -> None:
    """With a noise of one delta on each paired difference."""
    assert verdicts(2 * DELTA, DELTA, seeds)["first better"] >= found
    assert verdicts(-2 * DELTA, DELTA, seeds)["second better"] >= found


def test_arms_that_differ_by_little_are_equivalent_and_never_called_better() -> None:
    found = verdicts(0.2 * DELTA, 0.5 * DELTA, 12)
    assert found["equivalent"] >= 95
    assert better(found) == 0


def test_noise_decides_nothing() -> None:
    assert verdicts(0.0, 3 * DELTA, 5)["undecided"] >= 90


@pytest.mark.parametrize("seeds", [3, 5, FEW, 40])
def test_the_interval_holds_the_true_mean_with_its_confidence(seeds: int) -> None:
    generator = np.random.default_rng(1)
    held = sum(low <= 0.3 <= high for _, low, high, *_ in (interval(generator.normal(0.3, 1, seeds), 0.9) for _ in range(400)))
    assert abs(held / 400 - 0.9) < 3.5 * math.sqrt(0.09 / 400)


def test_few_pairs_are_judged_by_t_and_many_by_the_bootstrap() -> None:
    few = np.random.default_rng(0).normal(size=FEW - 1)
    mine, theirs = interval(few), stats.ttest_1samp(few, 0).confidence_interval()
    assert mine.method == "t"
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))
    skewed = np.random.default_rng(0).exponential(size=200)
    found = interval(skewed)
    assert found.method == "bootstrap-t"
    theirs = stats.bootstrap((skewed,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)
    assert interval(skewed) == found  # the same every time


@pytest.mark.parametrize("examples", [100, 180, 1000])
def test_accuracies_that_agree_to_the_last_example_by_chance_prove_nothing(examples: int) -> None:
    """Two seeds, each one example better: their spread is 0, and yet it may be chance."""
    gain = 1 / examples
    assert outcome(interval([gain, gain]), gain / 2) == "first better"  # what must not be believed
    assert outcome(interval([gain, gain], resolution=gain), gain / 2) == "undecided"
    assert outcome(interval([0.0, 0.0], resolution=gain), gain / 2) == "undecided"
    assert outcome(interval([0.0] * 40, resolution=gain), gain / 2) == "equivalent"


@pytest.mark.parametrize("examples", [100, 360])
def test_two_identical_classifiers_are_seldom_called_different_though_accuracies_come_in_steps(examples: int) -> None:
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(300):
        pair = generator.binomial(examples, 0.93, (2, 5)) / examples
        wrong += outcome(interval(pair[0] - pair[1], resolution=1 / examples), 0.005) in ("first better", "second better")
    assert wrong <= 15 + 3 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, math.nan], [0.1, math.inf]])
def test_an_interval_of_less_than_two_figures_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="needs two finite values"):
        interval(values)


def test_sign_flips_by_hand() -> None:
    """The least and the greatest of 63 means of subsets bound six values where 2 of 64 flips may be left out on each side, or one."""
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = interval(values, 1 - 2 / 64, method="sign-flip")
    assert (found.low, found.high, found.method) == (1.0, 6.0, "sign-flip")
    assert interval(values, 1 - 4 / 64, method="sign-flip")[1:3] == (1.5, 5.5)
    assert interval(values[:5], method="sign-flip")[1:3] == (-math.inf, math.inf)


@pytest.mark.parametrize("size", [8, 16])
def test_sign_flips_hold_the_centre_of_any_symmetric_distribution(size: int) -> None:
    """Heavy tails: a square with a random sign. Exact where all flips are taken; of 16 values a part is drawn."""
    generator, held = np.random.default_rng(size), 0
    for _ in range(400):
        values = generator.choice([-1, 1], size) * generator.exponential(size=size) ** 2
        found = interval(values, 0.9, method="sign-flip")
        held += found.low <= 0 <= found.high
    assert abs(held / 400 - 0.9) < 3.5 * math.sqrt(0.09 / 400)


def test_skewed_differences_are_better_held_by_the_studentised_bootstrap() -> None:
    generator, held = np.random.default_rng(3), {"t": 0, "bootstrap-t": 0}
    for _ in range(100):
        values = generator.lognormal(0, 1, 10)
        for method in held:
            found = interval(values, method=method)  # pyright: ignore[reportArgumentType]
            held[method] += found.low <= math.exp(0.5) <= found.high
    assert held["bootstrap-t"] >= held["t"] + 3
