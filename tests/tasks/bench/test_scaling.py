"""How speed goes with size: the fit by hand, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tasks.bench.scaling import Exponent, answer, fit_exponent, headline, parts
from tasks.records.bench import BenchMachine, Case, Limit, ModelBench, Spread

MACHINE = BenchMachine(processor="p", device="cpu", threads=1, dtype="fp32", torch="2")


def spread(seconds: float) -> Spread:
    return Spread(p50=seconds, p95=2 * seconds, p99=3 * seconds, mean=seconds, count=5)


def bench(name: str, parameters: int, seconds: float, decode: float | None = None, sizes: Sequence[int] = (1, 4)) -> ModelBench:
    cases = [
        Case(
            batch_size=size,
            whole=spread(size * seconds),
            prefill=None if decode is None else spread(size * seconds / 2),
            decode=None if decode is None else spread(size * decode),
            requests_per_second=1 / seconds,
            tokens_per_second=None if decode is None else 1 / decode,
        )
        for size in sizes
    ]
    limits = tuple(Limit(batch_size=size, prefill=seconds / 2, decode=None if decode is None else decode / 4) for size in sizes)
    return ModelBench(
        name=name,
        weights_sha256=name,
        parameters=parameters,
        file_bytes=4 * parameters,
        tokens=8,
        new_tokens=0 if decode is None else 3,
        rounds=5,
        cases=tuple(cases),
        limits=limits,
        machine=MACHINE,
    )


class TestFit:
    def test_a_power_is_found_exactly(self) -> None:
        found = fit_exponent([10, 100, 1000], [10**0.65, 100**0.65, 1000**0.65])
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((0.65, 0.65, 0.65))
        assert found.at_ten()[0] == pytest.approx(4.4668, abs=1e-4)

    def test_the_interval_by_hand(self) -> None:
        # logs (1, 1), (2, 1) and (2, 1): a = 5 / 9; residuals 4/9, -1/9, -1/9; s^2 = 1/9; half = t(0.975, 2) sqrt(1/9 / 9)
        found = fit_exponent([math.e, math.e**2, math.e**2], [math.e] * 3)
        assert found is not None
        assert found.value == pytest.approx(5 / 9)
        assert (found.low, found.high) == pytest.approx((5 / 9 - 4.3026527 / 9, 5 / 9 + 4.3026527 / 9))
        assert found.students == 3

    def test_one_and_two_students_have_no_interval_and_none_no_exponent(self) -> None:
        assert fit_exponent([100], [10]) == pytest.approx(Exponent(0.5, None, None, 1))
        assert fit_exponent([100, 10], [10, 0.2]) == pytest.approx(Exponent(0.2602060, None, None, 2))
        assert fit_exponent([], []) is None
        assert fit_exponent([1.0], [3.0]) is None  # as large as the root: nothing is said of size


class TestParts:
    def test_against_the_root(self) -> None:
        found = parts([bench("root", 1000, 0.8), bench("s", 100, 0.2)])
        assert [(part.part, part.batch_size) for part in found] == [("whole", 1), ("whole", 4)]
        student = found[1].rows[1]
        assert (student.speed_up, student.ratio, student.throughput) == pytest.approx((4, 10, 5))
        assert student.limit == pytest.approx(0.1)
        assert student.limit_speed_up == pytest.approx(4)

    def test_language_models_have_three_parts(self) -> None:
        found = parts([bench("root", 1000, 0.8, 0.04), bench("s", 100, 0.2, 0.02)])
        assert [part.part for part in found] == ["whole", "whole", "prefill", "prefill", "decode", "decode"]
        assert found[4].rows[1].speed_up == pytest.approx(2)
        assert found[4].rows[1].throughput == pytest.approx(50)
        assert found[0].rows[1].limit == pytest.approx(0.1 + 2 * 0.005)  # the first token, and two more
        assert headline(found) is found[4]

    def test_only_sizes_that_all_have(self) -> None:
        found = parts([bench("root", 1000, 0.8), bench("s", 100, 0.2, sizes=(4, 9))])
        assert [part.batch_size for part in found] == [4]

    def test_nothing_measured(self) -> None:
        assert parts([]) == []
        assert headline([]) is None


@pytest.mark.parametrize(
    ("powers", "words"),
    [
        ((0.6, 0.6, 0.6), 'as "10x smaller is 3-5x faster" says'),
        ((0.9, 0.9, 0.9), 'more than "10x smaller'),
        ((0.2, 0.2, 0.2), 'less than "10x smaller'),
        ((0.2, 0.6, 0.9), "neither shown nor refuted"),
        ((0.5,), "from one student: too few for an interval"),
        ((0.5, 0.9), "from 2 students: too few for an interval"),
        ((), "nothing is said about how speed goes with size"),
    ],
)
def test_the_claim_is_answered_by_a_figure(powers: Sequence[float], words: str) -> None:
    sizes = [1000 // 4 ** (i + 1) for i in range(len(powers))]
    students = [bench(f"s{i}", size, (size / 1000) ** power) for i, (size, power) in enumerate(zip(sizes, powers, strict=True))]
    main = headline(parts([bench("root", 1000, 1.0), *students]))
    assert main is not None
    assert words in answer(main)
