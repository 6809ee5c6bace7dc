"""What a planned ladder would cost, beside one jump from the root to the last student with as many operations."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.economics import Economics
from tasks.planning.economics import HOUR, training_cost
from tasks.records.base import Record


class JumpPlan(Record):
    """The last student taught by the root alone, for as long as all stages take together."""

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
        jump: None where the root's size is unknown.
    """

    currency: str
    price_per_hour: float
    to_compute: float
    flops: float
    seconds: float
    price: float
    jump: JumpPlan | None


def plan_costs(
    settings: Economics,
    seconds_to_compute: float,
    trainings: Sequence[tuple[float, float]],
    student: str,
    steps: int,
    direct: dict[str, float] | None,
) -> PlanCosts:
    """Price a plan.

    Args:
        settings: Prices.
        seconds_to_compute: Estimated time of the trainings that the run would do.
        trainings: FLOPs and seconds of each training that counts, from its start.
        student: Name of the last student.
        steps: Of its own schedule.
        direct: `flops` and `seconds` of that schedule with the root as its teacher; None where the root's size is unknown.
    """
    flops, seconds = sum(each[0] for each in trainings), sum(each[1] for each in trainings)
    jump = None
    if direct is not None:
        longer = flops / direct["flops"]
        jump = JumpPlan(
            student=student,
            steps=round(steps * longer),
            flops=flops,
            seconds=direct["seconds"] * longer,
            price=_whole(direct["seconds"] * longer, settings),
        )
    return PlanCosts(
        currency=settings.currency,
        price_per_hour=settings.price_per_hour,
        to_compute=seconds_to_compute / HOUR * settings.machine_factor * settings.price_per_hour,
        flops=flops,
        seconds=seconds,
        price=_whole(seconds, settings),
        jump=jump,
    )


def _whole(seconds: float, settings: Economics) -> float:
    return training_cost(seconds, settings) + settings.data_cost + settings.evaluation_cost
