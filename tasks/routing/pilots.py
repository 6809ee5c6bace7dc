"""Pilots: whole short schedules of a ladder, as long as a number of FLOPs allows.

A pilot is an ordinary ladder with fewer steps: warm-up, learning rate and all else that is a share of a schedule shrink with it, so that
its last student is judged at the end of a schedule and never in the middle. Its trainings lie in the store under fingerprints of their
own, and a run that is continued finds them there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from models.base.quality import main_metric
from tasks.planning.matching import lasting, matched_whole, reseeded, shortened, total_of, with_stages
from tasks.records.choice.route import PilotRecord
from tasks.records.run import StageRecord
from tasks.training.costs.cost_model import StageFlops, seconds_of

NAME_LETTERS = 40  # of a stage's name that a pilot keeps

Cost = Callable[[Ladder], float]  # operations of all stages


class Pilot(NamedTuple):
    """A pilot of a ladder.

    Attributes:
        route: Name of the route, or any label.
        number: Of its round; 0: outside a search.
        ladder: With the pilot's steps; see `pilot_ladder`.
        costs: Operations of its stages, less what was computed before.
    """

    route: str
    number: int
    ladder: Ladder
    costs: Sequence[StageFlops]

    @property
    def flops(self) -> float:
        """Operations that it adds to what was computed before."""
        return total_of(self.costs)


def pilot_ladder(ladder: Ladder, label: str, replicate: int = 0) -> Ladder:
    """A ladder as a pilot trains it: without gates, samples, other held-out data and tasks, its stages named after the pilot.

    Args:
        ladder: With the pilot's steps.
        label: Ends the names of its stages, in logs, in Prefect and in MLflow; a fingerprint does not hang on a name.
        replicate: Added to every stage's seed.
    """
    stages = (
        stage.model_copy(
            update={
                "name": f"{stage.name[:NAME_LETTERS]}-{label}",
                "gate": Gate(),
            }
        )
        for stage in reseeded(ladder, replicate).stages
    )
    evaluation = ladder.evaluation.model_copy(update={"samples": 0, "also": {}, "tasks": ()})
    return with_stages(ladder, *stages).model_copy(update={"evaluation": evaluation})


def with_steps(ladder: Ladder, steps: Sequence[int]) -> Ladder:
    """The ladder with a number of steps for each stage."""
    return with_stages(ladder, *(lasting(stage, count) for stage, count in zip(ladder.stages, steps, strict=True)))


def shortest(ladder: Ladder, least: int) -> Ladder:
    """The ladder shortened by one share until its last stage, whose student is judged, has the fewest steps that are allowed."""
    share = min(least / max(ladder.stages[-1].training.steps, 1), 1.0)
    return shortened(ladder, share, least=1)


def within(ladder: Ladder, cost: Cost, target: float) -> Ladder:
    """The ladder with stages shortened by one share, or its last stage lengthened, until it takes a number of operations and no more.

    Args:
        ladder: Any steps.
        cost: Operations of a ladder; grows with the steps.
        target: Most operations.
    """
    made = matched_whole(ladder, cost, target)
    steps = steps_of(made)
    return made if cost(made) <= target or steps[-1] == 1 else with_steps(made, [*steps[:-1], steps[-1] - 1])


def steps_of(ladder: Ladder) -> tuple[int, ...]:
    """Steps of each stage's schedule."""
    return tuple(stage.training.steps for stage in ladder.stages)


def record_of_pilot(pilot: Pilot, students: Sequence[StageRecord], flops: float | None = None) -> PilotRecord:
    """The record of a finished pilot.

    Args:
        pilot: The pilot.
        students: Its models, the last one judged on the validation split.
        flops: Operations of the steps that were taken; None: those of the schedules.
    """
    last = students[-1]
    return PilotRecord(
        route=pilot.route,
        number=pilot.number,
        seed=pilot.ladder.stage_seed(pilot.ladder.stages[-1]),
        steps=tuple(student.steps for student in students),
        score=last.metrics[main_metric(pilot.ladder.workload)],
        parameters=last.parameters,
        flops=pilot.flops if flops is None else flops,
        seconds=sum(map(seconds_of, students, pilot.costs)),
        fingerprints=tuple(student.fingerprint for student in students),
        reused=sum(student.reused for student in students),
    )


def failed_pilot(pilot: Pilot, error: Exception) -> PilotRecord:
    """The record of a pilot that has no score."""
    seed = pilot.ladder.stage_seed(pilot.ladder.stages[-1])
    return PilotRecord(
        route=pilot.route, number=pilot.number, seed=seed, steps=steps_of(pilot.ladder), flops=pilot.flops, failed=str(error)
    )
