"""Settings of the break-even: prices, traffic, uncertainty."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from conf.schema.base import Settings, setting

Input = Literal[
    "training_hours",
    "signal_hours",
    "price_per_hour",
    "search_factor",
    "data_cost",
    "evaluation_cost",
    "requests_per_day",
    "teacher_price",
    "student_price",
    "fixed_per_day",
    "redistill_days",
]


class Range(Settings):
    """Lowest and highest value of an uncertain input."""

    input: Input = setting(..., "The input", identity=False)
    low: float = setting(..., "Its lowest value", "unit of the input", identity=False, ge=0, le=1e15)
    high: float = setting(..., "Its highest value", "unit of the input", identity=False, ge=0, le=1e15)

    @model_validator(mode="after")
    def _low_is_lower(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"got low {self.low:g} and high {self.high:g}; allowed: a low of at most high. Swap them.")
        return self


class Economics(Settings):
    """Prices and traffic, for `ladder plan`, `ladder economics` and the report; see docs/explanation/economics.md."""

    currency: str = setting("USD", "Name of the currency, for the reader", identity=False, min_length=1, max_length=8)
    price_per_hour: float = setting(1.0, "Price of a compute hour of training", "currency/hour", identity=False, ge=0, le=1e15)
    machine_factor: float = setting(
        1.0,
        "Hours of the priced machine for one hour measured here; 0.25: it is four times as fast",
        "ratio",
        identity=False,
        gt=0,
        le=1e06,
    )
    requests_per_day: float = setting(100_000.0, "Requests answered", "requests/day", identity=False, gt=0, le=1e15)
    teacher_price: float | None = setting(
        None, "Serving price of the teacher; none: by its measured throughput", "currency/1,000 requests", identity=False, ge=0, le=1e15
    )
    student_price: float | None = setting(
        None, "Serving price of the student; none: by its measured throughput", "currency/1,000 requests", identity=False, ge=0, le=1e15
    )
    serving_price_per_hour: float | None = setting(
        None, "Price of an hour of the machine that serves; none: price_per_hour", "currency/hour", identity=False, ge=0, le=1e15
    )
    fixed_per_day: float = setting(0.0, "Fixed cost of serving the student", "currency/day", identity=False, ge=0, le=1e15)
    data_cost: float = setting(0.0, "Cost of the data, labels included", "currency", identity=False, ge=0, le=1e15)
    evaluation_cost: float = setting(0.0, "Cost of evaluation, people included", "currency", identity=False, ge=0, le=1e15)
    search_factor: float = setting(
        0.0, "Trial trainings beside the final ones, relative to their cost", "ratio", identity=False, ge=0, le=1e06
    )
    include_teacher: bool = setting(False, "Count the root teacher's training too; usually the teacher exists anyway", identity=False)
    redistill_days: float = setting(90.0, "Days until the student must be distilled again", "days", identity=False, gt=0, le=36_525)
    swing: float = setting(
        0.5, "How far the tornado moves each input both ways, as a share of its value", "ratio", identity=False, gt=0, le=1
    )
    ranges: tuple[Range, ...] = setting((), "Ranges of inputs, in place of swing", "inputs", identity=False)
