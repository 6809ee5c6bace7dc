"""Laws of the numbers that people read: three digits, units without gaps, a larger number never shown as a smaller one."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from tasks.records import format as fmt

UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12} | {" B": 1.0, " KiB": 2.0**10, " MiB": 2.0**20, " GiB": 2.0**30, " TiB": 2.0**40}
UNITS |= {f" {prefix}FLOP{each}": 1000.0**power for power, prefix in enumerate(("", *"kMGTPEZY")) for each in ("", "/s")}
UNITS |= {" s": 1.0, " min": 60.0, " h": 3600.0, " days": 86400.0, " years": 365 * 86400.0}
SCALED = [fmt.human, fmt.rate, fmt.operations, fmt.operations_rate, fmt.byte_size]
GROWING = [factor * 10.0**power for power in range(12) for factor in (1, 1.004, 1.2346, 3, 5.555, 9.94, 9.949, 9.96, 9.994, 9.9951, 9.9999)]
GROWING += [2.0**power for power in range(41)]


def value(text: str) -> float:
    """The number that a text says, in the base unit."""
    parts = re.fullmatch(r"([\d.,]+(?:e[+-]\d+)?)(.*)", text)
    assert parts, text
    return float(parts[1].replace(",", "")) * UNITS[parts[2]]


@pytest.mark.parametrize("show", SCALED)
def test_a_scaled_number_has_three_digits_and_is_within_their_rounding(show: Callable[[float], str]) -> None:
    for number in GROWING:
        digits = re.match(r"[\d.]+", show(number))
        assert digits, show(number)
        assert len(digits[0].replace(".", "").lstrip("0")) <= 3, show(number)
        assert value(show(number)) == pytest.approx(number, rel=0.0051, abs=0.5 if show is not fmt.rate else 0)


@pytest.mark.parametrize("show", [*SCALED, fmt.estimate])
def test_a_larger_number_is_never_shown_as_a_smaller_one(show: Callable[[float], str]) -> None:
    shown = [value(show(number)) for number in sorted(GROWING)]
    assert all(smaller <= larger for smaller, larger in pairwise(shown))
    assert shown[0] < shown[-1]


@pytest.mark.parametrize(
    ("show", "below", "above"),
    [
        (fmt.human, (999.49, "999"), (999.5, "1k")),
        (fmt.human, (999_499, "999k"), (999_500, "1M")),
        (fmt.rate, (9.994, "9.99"), (9.996, "10")),
        (fmt.rate, (999.49, "999"), (999.5, "1k")),
        (fmt.operations, (999.4e9, "999 GFLOP"), (999.5e9, "1 TFLOP")),
        (fmt.operations_rate, (999.4e9, "999 GFLOP/s"), (3.42e12, "3.42 TFLOP/s")),
        (fmt.byte_size, (999, "999 B"), (1000, "0.977 KiB")),
        (fmt.byte_size, (999 * 2**20, "999 MiB"), (1000 * 2**20, "0.977 GiB")),
        (fmt.mebibytes, (9.94 * 2**20, "9.94"), (9.96 * 2**20, "10.0")),
        (fmt.mebibytes, (99.4 * 2**20, "99.4"), (1234 * 2**20, "1,234")),
        (fmt.milliseconds, (0.000994, "0.994"), (0.000996, "1.00")),
        (fmt.seconds, (9.94, "9.9"), (9.96, "10")),
        (fmt.duration, (99.4, "99 s"), (99.6, "1 min 40 s")),
        (fmt.duration, (7199.4, "119 min 59 s"), (7199.6, "2 h 0 min")),
        (fmt.estimate, (119, "119 s"), (120, "2 min")),
        (fmt.estimate, (7199, "120 min"), (7200, "2.0 h")),
        (fmt.amount, (9_999, "9,999.00"), (10_000, "10,000")),
        (fmt.days_text, (1.99, "47.8 hours"), (2, "2 days")),
    ],
)
def test_a_unit_begins_where_the_one_below_it_ends(
    show: Callable[[float], str], below: tuple[float, str], above: tuple[float, str]
) -> None:
    assert [show(number) for number, _ in (below, above)] == [below[1], above[1]]


def test_nothing_is_none_and_zero_is_zero() -> None:
    assert [fmt.percent(None), fmt.moment(None)] == ["-", "-"]
    assert [fmt.human(0), fmt.rate(0), fmt.operations(0), fmt.byte_size(0)] == ["0", "0", "0 FLOP", "0 B"]
    assert [fmt.percent(0.3, 0), fmt.percent(0.9144), fmt.percent(0)] == ["30 %", "91.4 %", "0.0 %"]
