"""Foretell quality and time of whole schedules from measured short ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from scipy.optimize import nnls

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from tasks.planning.matching import LEAST_STEPS, direct, matched, with_stages
from tasks.planning.proposals.curve import LEVEL, Point, ScalingCurve
from tasks.planning.proposals.measured import (
    SCHEDULES,
    MeasuredSchedule,
    answers_needed,
    counted,
    measure_schedules,
    operations_down,
    settled_ladder,
)
from tasks.records.base import Record
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs

LIKELY = 0.5  # probability from which on a jump is called as good
AHEAD = 20.0  # times the ladder's operations, up to which a jump is followed


class FarStage(Record):
    """A student of a whole schedule, foretold.

    Attributes:
        flops: Of all trainings down to it.
        loss: Median: bits per byte, or the error rate; `low` and `high` end an interval that holds the loss of one seed.
        seconds: Of its training and of the answers that it stores, as of an empty store.
        learned: Whether all its pilots are better than a guess; else they say little.
        measured: Loss of each pilot, by its share of the steps and its seed.
    """

    name: str
    parameters: int
    steps: int
    flops: float
    loss: float
    low: float
    high: float
    seconds: float
    learned: bool
    measured: tuple[tuple[float, int, float], ...]


class LadderForecast(Record):
    """Whole schedules of a ladder and of one jump from its root, foretold.

    Attributes:
        level: Probability that the intervals are made for.
        stages: Of the ladder.
        jump: The last student taught by the root alone, with as many operations as the ladder; None where the ladder is such a jump.
        as_good: Probability that the jump's last student is no worse than the ladder's, the noise of seeds included.
        equal_flops: Operations from which on the jump is foretold to be no worse; None: more than `AHEAD` times the ladder's.
        seconds: Of the pilots, as measured where each was computed.
    """

    ladder: str
    workload: str
    level: float
    stages: tuple[FarStage, ...]
    jump: FarStage | None = None
    as_good: float | None = None
    equal_flops: float | None = None
    seconds: float


def check_length(ladder: Ladder) -> None:
    """Refuse a ladder whose pilots would be of one length.

    Raises:
        UserError: A stage has too few steps.
    """
    least = round(LEAST_STEPS / (min(share for share, _ in SCHEDULES) * 2))
    for stage in ladder.stages:
        if stage.training.steps < least:
            allowed = f"at least {least} with --pilot, whose pilots have {LEAST_STEPS} steps or more"
            raise UserError.about(f"stages.{stage.name}.training.steps", stage.training.steps, allowed, "Raise it, or leave out --pilot.")


def foretell(ladder: Ladder, root: StageRecord, inputs: StageInputs, schedules: Sequence[tuple[float, int]] = SCHEDULES) -> LadderForecast:
    """Train pilots of a ladder and of one jump, and foretell both.

    Args:
        ladder: Its students settled.
        root: The root teacher, in the store.
        inputs: Data, home.
        schedules: Of the pilots: shares of the steps, and increments of the seeds.
    """
    whole = settled_ladder(ladder, inputs)
    pilots = measure_schedules(whole, root, inputs, schedules)
    curves = [curve_of(pilots, place) for place in range(len(whole.stages))]
    stages = far_stages(whole, pilots, curves, inputs)
    seconds = _seconds(pilots)
    if len(whole.stages) == 1:
        return LadderForecast(
            ladder=ladder.name,
            workload=ladder.workload,
            level=LEVEL,
            stages=stages,
            jump=None,
            as_good=None,
            equal_flops=None,
            seconds=seconds,
        )
    jump, last = matched_jump(whole, stages[-1].flops, inputs), stages[-1]
    jumps = measure_schedules(jump, root, inputs, schedules)  # as dear as the ladder's
    curve = curve_of(jumps, 0, seed=1)
    (far,) = far_stages(jump, jumps, [curve], inputs)
    return LadderForecast(
        ladder=ladder.name,
        workload=ladder.workload,
        level=LEVEL,
        stages=stages,
        jump=far,
        as_good=float(np.mean(curve.draws(far.flops) <= curves[-1].draws(last.flops))),
        equal_flops=curve.reaches(last.loss, AHEAD * last.flops),
        seconds=seconds + _seconds(jumps),
    )


def curve_of(pilots: Sequence[MeasuredSchedule], place: int, seed: int = 0) -> ScalingCurve:
    """The curve of a stage through its pilots; curves with different seeds are drawn independently."""
    stages = [pilot.stages[place] for pilot in pilots]
    best = min(stages, key=lambda stage: stage.loss)  # the nearest to the whole schedule
    return ScalingCurve([Point(stage.flops, stage.loss) for stage in stages], sampling_noise(best.loss, best.rows), seed)


def sampling_noise(loss: float, rows: int) -> float:
    """Standard error of an error rate of so many rows, relative to it (with one more error, as of none); 0 for losses that are no rate."""
    rate = (loss * rows + 1) / (rows + 1)
    return sqrt((1 - rate) / rate / rows) if loss <= 1 and rows else 0.0


def far_stages(
    ladder: Ladder, pilots: Sequence[MeasuredSchedule], curves: Sequence[ScalingCurve], inputs: StageInputs
) -> tuple[FarStage, ...]:
    """The stages of a whole schedule, by their curves, and by the seconds of the longest pilot."""
    forwards, examples = counted(ladder, inputs)
    flops, answers = operations_down(ladder, forwards, examples), answers_needed(ladder, examples)
    longest = max(pilots, key=lambda pilot: pilot.share)
    found = []
    for place, (stage, curve) in enumerate(zip(ladder.stages, curves, strict=True)):
        pilot, foretold = longest.stages[place], curve.at(flops[place])
        timed = [(float(each.stages[place].steps), each.stages[place].seconds) for each in pilots]
        seconds = line_through(timed, stage.training.steps)
        if pilot.answers:
            seconds += pilot.answering / pilot.answers * answers[place][1]
        found.append(
            FarStage(
                name=stage.name,
                parameters=pilot.parameters,
                steps=stage.training.steps,
                flops=flops[place],
                loss=foretold.median,
                low=foretold.low,
                high=foretold.high,
                seconds=seconds,
                learned=all(each.stages[place].learned for each in pilots),
                measured=tuple((each.share, each.seed, each.stages[place].loss) for each in pilots),
            )
        )
    return tuple(found)


def line_through(points: Sequence[tuple[float, float]], at: float) -> float:
    """The value at a place of the line that fits points best, neither its start nor its slope below 0."""
    places, values = np.array(points, dtype=np.float64).T
    (start, slope), _ = nnls(np.stack((np.ones_like(places), places), axis=1), values)
    return float(start + slope * at)


def matched_jump(ladder: Ladder, target: float, inputs: StageInputs) -> Ladder:
    """One jump from the root to the last student, with as many steps as take a number of operations."""
    jump = direct(ladder)
    forwards, examples = counted(jump, inputs)

    def cost(stage: Stage) -> float:
        return operations_down(with_stages(jump, stage), forwards, examples)[-1]

    return with_stages(jump, matched(jump.stages[0], cost, target))


def _seconds(pilots: Sequence[MeasuredSchedule]) -> float:
    return sum(stage.seconds + stage.answering for pilot in pilots for stage in pilot.stages)
