"""The arithmetic of a break-even, by hand; the exact cases of docs/explanation/economics.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.measures.economics import Economics
from tasks.planning.costs.economics import HOUR, MONTH, Inputs, economics_of, payback, result_of, tornado, training_cost, verdict
from tasks.records.bench import BenchMachine, Case, ModelBench, Spread
from tasks.records.format import amount, days_text
from tasks.records.run import RunRecord, StageRecord
from tasks.records.speeds import FILE
from tests.factories import model_record, run_record

NOTHING: dict[str, Any] = {
    "training_hours": 0.0,
    "signal_hours": 0.0,
    "price_per_hour": 0.0,
    "search_factor": 0.0,
    "data_cost": 0.0,
    "evaluation_cost": 0.0,
    "requests_per_day": 10e6,
    "teacher_price": 0.01,
    "student_price": 0.0,
    "fixed_per_day": 0.0,
    "redistill_days": 90.0,
}


def inputs(**more: float) -> Inputs:
    return Inputs(**{**NOTHING, **more})


def bench(name: str, per_second: float) -> ModelBench:
    one = Spread(p50=1 / per_second, p95=1 / per_second, p99=1 / per_second, mean=1 / per_second, count=9)
    slow = Case(batch_size=1, whole=one, requests_per_second=per_second / 2)
    machine = BenchMachine(processor="p", device="cpu", threads=1, dtype="fp32", torch="2")
    fast = Case(batch_size=8, whole=one, requests_per_second=per_second)
    return ModelBench(
        name=name,
        weights_sha256=name,
        parameters=10,
        file_bytes=1,
        tokens=1,
        new_tokens=0,
        rounds=9,
        cases=(slow, fast),
        machine=machine,
    )


def model(name: str, seconds: float, speed: float | None = None, **more: Any) -> StageRecord:
    return model_record(name, weights_sha256=name, seconds=seconds, bench=bench(name, speed) if speed else None, **more)


def run(tmp_path: Path, *models: StageRecord) -> RunRecord:
    return run_record("r", *models, folder=str(tmp_path))


class TestExactCases:
    @pytest.mark.parametrize(("cost", "days"), [(1_000, 10), (5_000, 50), (10_000, 100)])
    def test_a_cent_saved_on_a_thousand_requests(self, cost: float, days: float) -> None:
        assert result_of("s", inputs(data_cost=cost)).break_even_days == pytest.approx(days, rel=1e-12)

    def test_a_student_at_a_tenth_of_the_teachers_price(self) -> None:
        days = result_of("s", inputs(data_cost=5_000, student_price=0.001)).break_even_days
        assert days == pytest.approx(5_000 / 90, rel=1e-12)
        assert f"{days:.1f}" == "55.6"

    def test_every_part_of_the_formula(self) -> None:
        # (200 + 3 x 2 + 40 x 2 x (1 + 0.5) + 74) / (1e6 x 0.004 / 1000 - 1) = 400 / 3
        given = inputs(
            data_cost=200,
            signal_hours=3,
            training_hours=40,
            price_per_hour=2,
            search_factor=0.5,
            evaluation_cost=74,
            requests_per_day=1e6,
            teacher_price=0.005,
            student_price=0.001,
            fixed_per_day=1,
        )
        result = result_of("s", given)
        assert result.total == pytest.approx(400)
        assert result.saving_per_day == pytest.approx(3)
        assert result.break_even_days == pytest.approx(400 / 3)
        assert result.saving_per_month == pytest.approx(3 * 365.25 / 12)
        assert result.net_per_cycle == pytest.approx(3 * 90 - 400)
        assert result.outcome == "too late"

    def test_the_price_of_training(self) -> None:
        settings = Economics(price_per_hour=3, machine_factor=0.25, search_factor=1)
        assert training_cost(2 * HOUR, settings) == pytest.approx(2 * 0.25 * 3 * 2)


class TestVerdict:
    def test_it_pays(self) -> None:
        said = verdict(result_of("s", inputs(data_cost=5_000)), "EUR")
        assert said == "s pays back its 5,000.00 EUR after 50 days at 100.00 EUR saved a day; a cycle of 90 days saves 4,000.00 EUR net."

    def test_too_late_says_so(self) -> None:
        said = verdict(result_of("s", inputs(data_cost=10_000)), "EUR")
        assert "after 100 days" in said
        assert "longer than the 90 days until it must be distilled again: each cycle loses 1,000.00 EUR" in said

    @pytest.mark.parametrize(
        ("more", "words"),
        [({"student_price": 0.01}, "saves nothing"), ({"fixed_per_day": 101.0}, "costs 1.00 EUR a day more than it saves")],
    )
    def test_it_never_pays(self, more: dict[str, float], words: str) -> None:
        result = result_of("s", inputs(data_cost=5, **more))
        assert result.break_even_days is None
        assert result.outcome == "never"
        assert verdict(result, "EUR") == f"s never pays: serving it {words}, and it cost 5.00 EUR to make."

    def test_a_student_that_cost_nothing_pays_at_once(self) -> None:
        assert "after 0 days" in verdict(result_of("s", inputs()), "EUR")


class TestTornado:
    def test_the_ends_are_those_of_the_input_moved_alone(self) -> None:
        bars = {bar.input: bar for bar in tornado(result_of("s", inputs(data_cost=5_000)), Economics())}
        assert set(bars) == {"data_cost", "requests_per_day", "teacher_price", "redistill_days"}  # what is 0 moves nothing
        assert (bars["requests_per_day"].low, bars["requests_per_day"].high) == (5e6, 15e6)
        assert (bars["requests_per_day"].net_low, bars["requests_per_day"].net_high) == pytest.approx((-500, 8_500))
        assert (bars["requests_per_day"].days_low, bars["requests_per_day"].days_high) == pytest.approx((100, 100 / 3))
        assert (bars["data_cost"].net_low, bars["data_cost"].net_high) == pytest.approx((6_500, 1_500))

    def test_the_strongest_comes_first(self) -> None:
        bars = tornado(result_of("s", inputs(data_cost=5_000, student_price=0.001)), Economics())
        spans = [abs(bar.net_high - bar.net_low) for bar in bars]
        assert spans == sorted(spans, reverse=True)
        assert bars[0].input == "teacher_price"

    def test_a_stated_range_replaces_the_swing_even_of_nothing(self) -> None:
        settings = Economics.model_validate({"ranges": [{"input": "fixed_per_day", "low": 0, "high": 200}]})
        bars = {bar.input: bar for bar in tornado(result_of("s", inputs(data_cost=5_000)), settings)}
        assert (bars["fixed_per_day"].net_low, bars["fixed_per_day"].net_high) == pytest.approx((4_000, -14_000))
        assert bars["fixed_per_day"].days_high is None  # never

    def test_a_smaller_swing(self) -> None:
        bars = {bar.input: bar for bar in tornado(result_of("s", inputs(data_cost=5_000)), Economics(swing=0.1))}
        assert (bars["data_cost"].low, bars["data_cost"].high) == pytest.approx((4_500, 5_500))


def test_the_payback_curve_crosses_zero_at_the_break_even() -> None:
    result = result_of("s", inputs(data_cost=5_000))
    curve = payback(result)
    assert curve[0] == (0.0, -5_000.0)
    assert curve[-1] == pytest.approx((90.0, 4_000.0))
    assert all(balance == pytest.approx(day * 100 - 5_000) for day, balance in curve)
    assert payback(result_of("s", inputs(data_cost=10_000)))[-1][0] == pytest.approx(200)  # twice the break-even


class TestOfARun:
    def test_hours_and_throughput_are_the_measured_ones(self, tmp_path: Path) -> None:
        record = run(tmp_path, model("teacher", 7 * HOUR, 100), model("one", 2 * HOUR, 200, signal_seconds=HOUR), model("two", HOUR, 1000))
        settings = Economics(price_per_hour=2, machine_factor=0.5, serving_price_per_hour=3.6, requests_per_day=1e6)
        found = economics_of(record, settings)
        given = found.main.inputs
        assert (given.training_hours, given.signal_hours) == (1.5, 0.5)  # of both stages, not of the root
        # 1,000 requests take 10 s of the teacher here, 5 s on the priced machine, at 3.6 an hour: 0.005
        assert (given.teacher_price, given.student_price) == pytest.approx((0.005, 0.0005))
        assert found.main.total == pytest.approx(4)
        assert found.main.saving_per_day == pytest.approx(4.5)
        assert [result.student for result in found.students] == ["one", "two"]
        assert found.students[0].total == pytest.approx(3)
        assert not found.assumed

    def test_the_teachers_training_counts_when_asked(self, tmp_path: Path) -> None:
        record = run(tmp_path, model("teacher", 7 * HOUR, 100), model("one", HOUR, 200))
        assert economics_of(record, Economics(include_teacher=True)).main.inputs.training_hours == 8
        assert economics_of(record, Economics()).assumed

    def test_a_stated_price_needs_no_measurement(self, tmp_path: Path) -> None:
        found = economics_of(run(tmp_path, model("teacher", 1), model("one", 1)), Economics(teacher_price=2, student_price=1))
        assert (found.main.inputs.teacher_price, found.main.inputs.student_price) == (2, 1)
        assert len(found.basis) == 1

    def test_neither_stated_nor_measured(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"economics.student_price.*`ladder bench` measures it"):
            economics_of(run(tmp_path, model("teacher", 1, 10), model("one", 1)), Economics())

    def test_a_refused_student_is_not_the_one_that_is_served(self, tmp_path: Path) -> None:
        record = run(tmp_path, model("teacher", 1, 10), model("one", 1, 20, gate="passed"), model("two", 1, 30, gate="stopped"))
        assert economics_of(record, Economics()).main.student == "one"

    def test_a_run_that_was_stopped_before_its_first_student(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="a run with a finished student"):
            economics_of(run(tmp_path, model("teacher", 1, 10)), Economics())

    def test_a_damaged_measurement_is_none(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text("{")
        record = run(tmp_path, model("teacher", 1, 10), model("one", 1, 20))
        assert economics_of(record, Economics()).main.inputs.requests_per_day == Economics().requests_per_day


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("price_per_hour", "-1", "economics.price_per_hour: got -1; allowed: a number in [0, 1e+15]"),
        ("teacher_price", "-0.5", "economics.teacher_price: got -0.5; allowed: a number in [0, 1e+15], or none"),
        ("student_price", "-1", "economics.student_price: got -1"),
        ("serving_price_per_hour", "-1", "economics.serving_price_per_hour: got -1"),
        ("fixed_per_day", "-1", "economics.fixed_per_day: got -1"),
        ("data_cost", "-1", "economics.data_cost: got -1"),
        ("evaluation_cost", "-1", "economics.evaluation_cost: got -1"),
        ("requests_per_day", "0", "economics.requests_per_day: got 0; allowed: a number in (0, 1e+15]"),
        ("requests_per_day", "-5", "economics.requests_per_day: got -5; allowed: a number in (0, 1e+15]"),
        ("redistill_days", "0", "economics.redistill_days: got 0; allowed: a number in (0, 36525]"),
        ("machine_factor", "0", "economics.machine_factor: got 0; allowed: a number in (0, 1e+06]"),
        ("ranges", "[{input: data_cost, low: 2, high: 1}]", "economics.ranges[0]: got low 2 and high 1"),
        ("ranges", "[{input: data_cost, low: -2, high: 1}]", "economics.ranges[0].low: got -2"),
    ],
)
def test_bad_prices_and_traffic_are_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load("digits", [f"economics.{key}={value}"])
    assert words in str(caught.value)


def test_days_and_amounts_in_words() -> None:
    days = [0, 0.0001, 0.02, 0.5, 2, 55.55, 999, 1500]
    assert [days_text(day) for day in days] == [
        *("0 days", "less than a minute", "29 minutes", "12.0 hours", "2 days", "55.5 days", "999 days", "4.1 years")
    ]
    assert [amount(value) for value in (0, 0.0012345, -0.5, 1234.5, 26085.2)] == ["0.00", "0.00123", "-0.50", "1,234.50", "26,085"]
    assert pytest.approx(30.4375) == MONTH
