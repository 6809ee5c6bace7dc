"""Break-even of a ladder: costs, savings a day, and the inputs that decide it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from conf.errors import UserError
from conf.schema.measures.economics import Economics, Input
from tasks.records.base import Record
from tasks.records.bench import ModelBench
from tasks.records.format import days_text, money, rate
from tasks.records.run import RunRecord, StageRecord
from tasks.records.speeds import model_benches

MONTH = 365.25 / 12  # days
HOUR = 3600.0  # seconds
POINTS = 60  # of the payback curve

WORDS: dict[Input, str] = {
    "training_hours": "training hours",
    "signal_hours": "hours of signals",
    "price_per_hour": "training's hour",
    "search_factor": "search",
    "data_cost": "data",
    "evaluation_cost": "evaluation",
    "requests_per_day": "requests a day",
    "teacher_price": "teacher's 1,000",
    "student_price": "student's 1,000",
    "fixed_per_day": "fixed, a day",
    "redistill_days": "days of a cycle",
}  # of inputs, for readers

Outcome = Literal["pays", "too late", "never"]


class Costs(Record):
    """One-off costs of a ladder, in the currency."""

    training: float
    search: float
    signals: float
    data: float
    evaluation: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.training + self.search + self.signals + self.data + self.evaluation


class Inputs(Record):
    """Every number that a break-even is computed from.

    Attributes:
        training_hours: Of the priced machine; `signal_hours` too.
        teacher_price: Serving 1,000 requests; `student_price` too.
    """

    training_hours: float
    signal_hours: float
    price_per_hour: float
    search_factor: float
    data_cost: float
    evaluation_cost: float
    requests_per_day: float
    teacher_price: float
    student_price: float
    fixed_per_day: float
    redistill_days: float

    @property
    def costs(self) -> Costs:
        """The one-off costs."""
        training = self.training_hours * self.price_per_hour
        return Costs(
            training=training,
            search=training * self.search_factor,
            signals=self.signal_hours * self.price_per_hour,
            data=self.data_cost,
            evaluation=self.evaluation_cost,
        )

    @property
    def saving_per_day(self) -> float:
        """Saving a day from serving the student in the teacher's place; below 0 where it costs more."""
        return self.requests_per_day * (self.teacher_price - self.student_price) / 1000 - self.fixed_per_day


class BreakEven(Record):
    """The break-even of one student.

    Attributes:
        break_even_days: Days until the one-off costs are saved; None: never.
        outcome: Whether it pays, pays only after it must be distilled again, or never.
        saving_per_month: Of serving alone, without the one-off costs; a month has 365.25 / 12 days.
        net_per_cycle: Saving until the student must be distilled again, less the one-off costs.
    """

    student: str
    inputs: Inputs
    costs: Costs
    total: float
    saving_per_day: float
    break_even_days: float | None
    outcome: Outcome
    saving_per_month: float
    net_per_cycle: float


class Bar(Record):
    """One input of the tornado, moved down and up with all others as they are; figures are those of `BreakEven`."""

    input: Input
    value: float
    low: float
    high: float
    net_low: float
    net_high: float
    days_low: float | None
    days_high: float | None


class Report(Record):
    """The economics of a run.

    Attributes:
        main: Of the last student that its gate did not refuse.
        students: Of every student, each as if it were the last: the models above it are part of its price.
        tornado: Inputs by how much they move `net_per_cycle`, the strongest first.
        curve: Day, and the saving by then less the one-off costs: the payback curve.
        basis: Where the inputs come from, in sentences.
        assumed: Whether every setting is a default, so that price and traffic are assumptions of nobody.
    """

    run: str
    root: str
    currency: str
    main: BreakEven
    students: tuple[BreakEven, ...]
    tornado: tuple[Bar, ...]
    curve: tuple[tuple[float, float], ...]
    basis: tuple[str, ...]
    assumed: bool


def break_even_days(cost: float, saving_per_day: float) -> float | None:
    """Days until a cost is saved; None where nothing is saved."""
    return cost / saving_per_day if saving_per_day > 0 else None


def result_of(student: str, inputs: Inputs) -> BreakEven:
    """The break-even that follows from some inputs."""
    costs, saving = inputs.costs, inputs.saving_per_day
    days = break_even_days(costs.total, saving)
    return BreakEven(
        student=student,
        inputs=inputs,
        costs=costs,
        total=costs.total,
        saving_per_day=saving,
        break_even_days=days,
        outcome="never" if days is None else "too late" if days > inputs.redistill_days else "pays",
        saving_per_month=saving * MONTH,
        net_per_cycle=saving * inputs.redistill_days - costs.total,
    )


def economics_of(record: RunRecord, settings: Economics) -> Report:
    """The economics of a run: measured hours and throughput, stated prices and traffic.

    Raises:
        UserError: The run has no finished student, or a serving price is neither stated nor measured.
    """
    models = record.models
    if record.teacher is None or len(models) < 2:
        raise UserError.about("RUN", record.run, "a run with a finished student", "This one ended before its first student was ready.")
    speeds = {bench.name: bench for bench in model_benches(record)}
    results = [result_of(model.name, _inputs(models[: place + 1], settings, speeds)) for place, model in enumerate(models) if place]
    main = next((r for r, model in zip(reversed(results), reversed(models), strict=False) if model.gate != "stopped"), results[-1])
    return Report(
        run=record.run,
        root=record.teacher.name,
        currency=settings.currency,
        main=main,
        students=tuple(results),
        tornado=tuple(tornado(main, settings)),
        curve=tuple(payback(main)),
        basis=tuple(_basis(models, next(m for m in models if m.name == main.student), settings, speeds)),
        assumed=settings == Economics(currency=settings.currency),
    )


def verdict(result: BreakEven, currency: str) -> str:
    """The break-even in one sentence."""
    name, period = result.student, result.inputs.redistill_days
    cost = money(result.total, currency)
    if result.break_even_days is None:
        more = "nothing" if result.saving_per_day == 0 else f"{money(-result.saving_per_day, currency)} a day more than it saves"
        effect = "saves nothing" if result.saving_per_day == 0 else f"costs {more}"
        return f"{name} never pays: serving it {effect}, and it cost {cost} to make."
    days = f"{days_text(result.break_even_days)} at {money(result.saving_per_day, currency)} saved a day"
    if result.outcome == "too late":
        loss = money(-result.net_per_cycle, currency)
        return (
            f"{name} pays back its {cost} after {days}, longer than the {days_text(period)} until it must be distilled again: "
            f"each cycle loses {loss}."
        )
    gain = money(result.net_per_cycle, currency)
    return f"{name} pays back its {cost} after {days}; a cycle of {days_text(period)} saves {gain} net."


def tornado(result: BreakEven, settings: Economics) -> list[Bar]:
    """Effect of each input on the net saving of a cycle, the strongest first; inputs that move nothing are left out."""
    stated = {given.input: given for given in settings.ranges}
    bars = []
    for name in get_args(Input):
        value = float(getattr(result.inputs, name))
        low, high = value * (1 - settings.swing), value * (1 + settings.swing)
        if name in stated:
            low, high = stated[name].low, stated[name].high
        at = [result_of(result.student, result.inputs.model_copy(update={name: moved})) for moved in (low, high)]
        if at[0].net_per_cycle != at[1].net_per_cycle or at[0].break_even_days != at[1].break_even_days:
            bars.append(
                Bar(
                    input=name,
                    value=value,
                    low=low,
                    high=high,
                    net_low=at[0].net_per_cycle,
                    net_high=at[1].net_per_cycle,
                    days_low=at[0].break_even_days,
                    days_high=at[1].break_even_days,
                )
            )
    return sorted(bars, key=lambda bar: -abs(bar.net_high - bar.net_low))


def payback(result: BreakEven) -> list[tuple[float, float]]:
    """Day and balance, from the first day to the end of a cycle, or of twice the break-even where that is longer."""
    period, days = result.inputs.redistill_days, result.break_even_days
    until = period if days is None or days <= period else min(2 * days, 20 * period)
    return [(day, day * result.saving_per_day - result.total) for day in (until * i / POINTS for i in range(POINTS + 1))]


def training_cost(seconds: float, settings: Economics) -> float:
    """Price of so many seconds of training on this machine, trial trainings included, in the currency."""
    return seconds / HOUR * settings.machine_factor * settings.price_per_hour * (1 + settings.search_factor)


def _inputs(models: Sequence[StageRecord], settings: Economics, speeds: dict[str, ModelBench]) -> Inputs:
    """Inputs of the last of some models, the root first; all stages above it are part of its cost."""
    trained = models if settings.include_teacher else models[1:]
    scale = settings.machine_factor / HOUR
    return Inputs(
        training_hours=sum(model.seconds for model in trained) * scale,
        signal_hours=sum(model.signal_seconds for model in trained) * scale,
        price_per_hour=settings.price_per_hour,
        search_factor=settings.search_factor,
        data_cost=settings.data_cost,
        evaluation_cost=settings.evaluation_cost,
        requests_per_day=settings.requests_per_day,
        teacher_price=_price(models[0], "teacher_price", settings.teacher_price, settings, speeds),
        student_price=_price(models[-1], "student_price", settings.student_price, settings, speeds),
        fixed_per_day=settings.fixed_per_day,
        redistill_days=settings.redistill_days,
    )


def _price(model: StageRecord, key: str, stated: float | None, settings: Economics, speeds: dict[str, ModelBench]) -> float:
    """Price of 1,000 requests: as stated, or of the hours that they take at the best throughput measured."""
    if stated is not None:
        return stated
    if model.name not in speeds:
        remedy = f"No throughput of {model.name} was measured: `ladder bench` measures it. Or give {key}=..."
        raise UserError.about(f"economics.{key}", None, "a price of 1,000 requests, or none where the throughput is measured", remedy)
    hourly = settings.price_per_hour if settings.serving_price_per_hour is None else settings.serving_price_per_hour
    return 1000 / best_throughput(speeds[model.name])[0] / HOUR * settings.machine_factor * hourly


def best_throughput(bench: ModelBench) -> tuple[float, int]:
    """Most requests a second that were measured, and at which batch size."""
    best = max(bench.cases, key=lambda case: case.requests_per_second)
    return best.requests_per_second, best.batch_size


def _basis(models: Sequence[StageRecord], main: StageRecord, settings: Economics, speeds: dict[str, ModelBench]) -> list[str]:
    """The source of each number, in sentences."""
    what = "the teacher's and the students' trainings" if settings.include_teacher else "the students' trainings; the teacher was there"
    sentences = [f"Hours are measured: {what}; times {settings.machine_factor:g} for the priced machine."]
    for model, key, stated in ((models[0], "teacher", settings.teacher_price), (main, "student", settings.student_price)):
        if stated is None:
            speed, size = best_throughput(speeds[model.name])
            sentences.append(
                f"The price of the {key}'s requests follows from {rate(speed)} requests/s of {model.name}, measured {size} at once on one "
                "machine that is never idle."
            )
    return sentences
