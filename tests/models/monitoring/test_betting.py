"""Bets and bounds: errors below what they permit, at every look."""

from __future__ import annotations

import numpy as np
import pytest

from models.monitoring.betting import add_look, gains, log_evidence, mean_bound, no_capital, proportion_bound, rows_to_decide

ALPHA = 0.05


def sequences(mean: float, looks: int, rows: int, number: int) -> float:
    """Share of sequences of coins in which a mean below 0.9 is ever proven."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(number):
        capital = no_capital(1)
        for _ in range(looks):
            capital = add_look(capital, gains(rng.random(rows) < mean, [0.9]))
            if log_evidence(capital)[0] >= np.log(1 / ALPHA):
                alarms += 1
                break
    return alarms / number


def test_no_drop_is_proven_more_often_than_permitted_however_often_one_looks() -> None:
    assert sequences(0.9, looks=60, rows=50, number=300) <= ALPHA


def test_a_drop_is_proven() -> None:
    assert sequences(0.86, looks=20, rows=200, number=50) >= 0.95


def test_a_drop_that_comes_late_is_proven() -> None:
    rng, capital = np.random.default_rng(2), no_capital(1)
    for look in range(1, 81):
        capital = add_look(capital, gains(rng.random(300) < (0.9 if look <= 60 else 0.8), [0.9]))
        if look == 60:
            assert log_evidence(capital)[0] < np.log(1 / ALPHA)
    assert log_evidence(capital)[0] >= np.log(1 / ALPHA)


def test_capital_without_gains_is_one() -> None:
    capital = no_capital(3)
    for _ in range(30):
        capital = add_look(capital, np.zeros((3, 12)))
    assert log_evidence(capital) == pytest.approx(0.0, abs=1e-9)


def test_an_exact_bound_of_a_proportion() -> None:
    assert proportion_bound(0, 10, ALPHA, lower=True) == 0
    assert proportion_bound(10, 10, ALPHA, lower=False) == 1
    assert proportion_bound(10, 10, ALPHA, lower=True) == pytest.approx(ALPHA**0.1)  # p^10 = alpha
    assert mean_bound([1.0] * 8 + [0.0] * 2, ALPHA, lower=False) == proportion_bound(8, 10, ALPHA, lower=False)


@pytest.mark.parametrize("lower", [True, False])
def test_bounds_of_means_hold_and_use_a_small_spread(lower: bool) -> None:
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(150):
        values = rng.beta(45, 5, 400)  # mean 0.9, deviation 0.042
        bound = mean_bound(values, ALPHA, lower=lower)
        wrong += bound > 0.9 if lower else bound < 0.9
        assert abs(bound - values.mean()) < 0.02  # of coins of this mean it is 0.03
    assert wrong <= 0.05 * 150


def test_the_advised_rows_prove_the_drop_in_most_cases() -> None:
    rows = rows_to_decide(0.86, 0.9, ALPHA)
    assert rows is not None
    rng = np.random.default_rng(4)
    capitals = [add_look(no_capital(1), gains(rng.random(rows) < 0.86, [0.9])) for _ in range(100)]
    assert sum(log_evidence(each)[0] >= np.log(1 / ALPHA) for each in capitals) >= 80
    assert rows_to_decide(0.9, 0.9, ALPHA) is None
    assert rows_to_decide(0.0, 0.5, ALPHA) is not None
