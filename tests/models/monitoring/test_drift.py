"""Shifts of features, and the level of votes."""

from __future__ import annotations

import numpy as np
import pytest

from models.monitoring.drift import corrected, kinds_shift, numbers_shift
from models.monitoring.votes import error_rate, passes, vote_level


def test_the_same_numbers_have_no_shift_and_others_have() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 1, 2000)
    same, other = numbers_shift(reference, rng.normal(0, 1, 500)), numbers_shift(reference, rng.normal(0.8, 1, 500))
    assert same.p > 0.01
    assert same.psi < 0.03
    assert other.p < 1e-6
    assert other.psi > 0.25


def test_a_constant_feature_has_no_shift() -> None:
    shift = numbers_shift([8.0] * 100, [8.0] * 50)
    assert (shift.p, shift.psi) == (1.0, 0.0)
    assert numbers_shift([8.0] * 100, [16.0] * 50).psi > 1


def test_kinds() -> None:
    reference = {"a": 500, "b": 400, "c": 100}
    assert kinds_shift(reference, {"a": 100, "b": 80, "c": 20}).p == pytest.approx(1.0)
    assert kinds_shift(reference, {"a": 20, "b": 80, "c": 100}).psi > 0.25
    assert kinds_shift(reference, {"d": 200}).p < 1e-6
    assert kinds_shift({"a": 10}, {"a": 5}).p == 1.0


def test_a_small_window_is_not_taken_for_a_shift_by_its_size() -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(100):
        found.append(numbers_shift(rng.normal(size=1000), rng.normal(size=50)).psi)
    assert np.mean(found) < 0.1


def test_holms_correction() -> None:
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([]) == []
    assert corrected([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_simulated_level_keeps_the_permitted_error(correlation: float) -> None:
    level = vote_level(2, 3, 50, 0.05, correlation)
    assert 0.0001 < level < 0.05
    assert error_rate(2, 3, 50, level, correlation) == pytest.approx(0.05, abs=0.006)  # by other random numbers


def test_a_window_passes_itself_with_enough_of_those_before() -> None:
    assert passes([0.5, 0.001, 0.002], 2, 3, 0.01)
    assert not passes([0.001, 0.002, 0.5], 2, 3, 0.01)
    assert not passes([0.001, 0.5, 0.5, 0.002], 2, 3, 0.01)
    assert not passes([], 1, 1, 0.5)
