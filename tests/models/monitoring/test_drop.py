"""Proven drops of shares, losses and differences."""

from __future__ import annotations

import numpy as np
import pytest

from models.monitoring.betting import no_capital
from models.monitoring.drop import DROPS, bound_of, is_proven, look_at, needed_rows, yardstick


def coins(mean: float, rows: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(rows) < mean).astype(float)


def test_a_large_drop_of_a_share_is_bounded_from_below() -> None:
    measure = yardstick(coins(0.9, 5000, 0), 0.05)
    capital = look_at(no_capital(len(DROPS)), measure, coins(0.72, 5000, 1))  # a relative drop of 20 %
    assert 0.15 <= float(bound_of(capital, measure)) <= 0.2
    assert is_proven(capital, measure, 0.02)
    assert not is_proven(capital, measure, 0.25)
    assert measure.drop_of(0.72) == pytest.approx(0.2, abs=0.01)


def test_a_rise_of_a_loss_is_a_drop() -> None:
    rng = np.random.default_rng(0)
    measure = yardstick(rng.gamma(20, 0.1, 2000), 0.05, "loss", scale=10.0)  # mean 2
    capital = look_at(no_capital(len(DROPS)), measure, rng.gamma(20, 0.12, 2000))  # mean 2.4
    assert 0.1 <= float(bound_of(capital, measure)) <= 0.2
    assert measure.drop_of(0.24) == pytest.approx(0.2, abs=0.02)
    same = look_at(no_capital(len(DROPS)), measure, rng.gamma(20, 0.1, 2000))
    assert float(bound_of(same, measure)) == 0


def test_paired_differences_need_fewer_rows_than_unpaired_ones() -> None:
    """Two models that err on the same rows: the pairs tell a difference that two shares of as many rows do not."""
    rng = np.random.default_rng(5)
    hard = rng.random(1500) < 0.3
    before, after = np.zeros(1500), -(rng.random(1500) < 0.06).astype(float)
    paired = yardstick(before, 0.05, "difference")
    assert is_proven(look_at(no_capital(len(DROPS)), paired, after), paired, 0.02)
    unpaired = yardstick(1.0 - hard, 0.05)
    own = np.clip(1.0 - (rng.random(1500) < 0.3) + after, 0, 1)
    assert not is_proven(look_at(no_capital(len(DROPS)), unpaired, own), unpaired, 0.02)


def test_a_window_without_values_is_no_look() -> None:
    measure = yardstick(coins(0.9, 100, 0), 0.05)
    assert look_at(no_capital(len(DROPS)), measure, []).looks == 0


def test_a_small_reference_says_that_no_rows_suffice() -> None:
    small, large = yardstick(coins(0.9, 60, 0), 0.05), yardstick(coins(0.9, 20000, 0), 0.05)
    assert needed_rows(small, small.mean * 0.96, 0.02, 1) is None
    rows = needed_rows(large, large.mean * 0.96, 0.02, 1)
    assert rows is not None
    assert 2000 < rows < 20000


def test_a_window_alone_has_an_interval() -> None:
    measure = yardstick(coins(0.9, 5000, 0), 0.05)
    low, high = measure.interval(0.85, 0.36, 1500)
    assert low < measure.drop_of(0.85) < high
    assert high - low == pytest.approx(2 * 1.96 * np.hypot(0.36 / 1500**0.5, 0.94 * 0.3 / 5000**0.5) / 0.9, rel=0.05)
