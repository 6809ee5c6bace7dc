"""Prices a planned ladder, beside one jump from the root with as many operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from conf.schema.measures.economics import Economics
from tasks.planning.costs.economics import HOUR, training_cost
from tasks.records.base import Record


class Jump(NamedTuple):
    """The last student trained from the root alone, with as many operations as all stages take together."""

    student: str
    steps: int
    flops: float
    seconds: float


class JumpPlan(Record):
    """A jump with its price."""

    student: str
    steps: int
    flops: float
    seconds: float
    price: float


class PlanCosts(Record):
    """Prices of a plan, in the currency; the root's own training is not in them unless `economics.include_teacher` says so.

    Attributes:
        to_compute: Of the trainings that the run would do, trial trainings not counted.
        flops: Of all stages from their start, whatever is finished of them.
        seconds: The same; estimated.
        price: The same, with trial trainings, data and evaluation.
        jump: The proof's arm `direct-matched`; None where the root's size is unknown or the last student cannot start from the root.
    """

    currency: str
    price_per_hour: float
    to_compute: float
    flops: float
    seconds: float
    price: float
    jump: JumpPlan | None


def plan_costs(settings: Economics, seconds_to_compute: float, trainings: Sequence[tuple[float, float]], jump: Jump | None) -> PlanCosts:
    """Price a plan.

    Args:
        settings: Prices.
        seconds_to_compute: Estimated time of the trainings that the run would do.
        trainings: FLOPs and seconds of each training that counts, from its start.
        jump: The comparison; None: there is none.
    """
    flops, seconds = sum(each[0] for each in trainings), sum(each[1] for each in trainings)
    return PlanCosts(
        currency=settings.currency,
        price_per_hour=settings.price_per_hour,
        to_compute=seconds_to_compute / HOUR * settings.machine_factor * settings.price_per_hour,
        flops=flops,
        seconds=seconds,
        price=with_extras(seconds, settings),
        jump=None if jump is None else JumpPlan(**jump._asdict(), price=with_extras(jump.seconds, settings)),
    )


def with_extras(seconds: float, settings: Economics) -> float:
    """Price of so many seconds of training, with data and evaluation."""
    return training_cost(seconds, settings) + settings.data_cost + settings.evaluation_cost
