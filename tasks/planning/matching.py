"""Stages made shorter, with other seeds, or with the operations of others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.stage import Stage, Teachers
from conf.schema.stage.training import Training
from models.data.corpus import CorpusInfo
from tasks.training.costs.cost_model import Forward, StageFlops, ladder_flops
from tasks.training.costs.examples import TrainingExamples
from tasks.training.signals.signal_policy import choose, settled_signals

LEAST_STEPS = 10  # of a training that is shortened, or all that it has
SHARE = 1e-5  # to which the share of steps of a shorter ladder is found


def settled(ladder: Ladder, info: CorpusInfo | None) -> Ladder:
    """The ladder as comparisons start from it: no gate ends or changes it, and `signals.source: auto` is decided for the whole ladder.

    In a ladder of one of its stages, `auto` might choose otherwise.
    """

    def stage(old: Stage) -> Stage:
        return old.model_copy(update={"gate": Gate(), "signals": settled_signals(old, ladder, info)})

    return ladder.model_copy(update={"stages": tuple(map(stage, ladder.stages))})


def flops_of(
    ladder: Ladder,
    forwards: Sequence[Forward],
    examples: TrainingExamples,
    taken: Sequence[int] | None = None,
    chosen: Sequence[int | None] = (),
) -> list[StageFlops]:
    """Operations of every stage of a settled ladder; for arguments see `ladder_flops`."""
    cached = [choose(stage, ladder, None).cached for stage in ladder.stages]
    return ladder_flops(ladder, forwards, cached, examples, taken, chosen=chosen)


def total_of(costs: Sequence[StageFlops]) -> float:
    """Operations of all stages."""
    return sum(cost.total for cost in costs)


def direct(ladder: Ladder) -> Ladder:
    """The last student, trained from the root and, where its first weights are a teacher's, made from the root."""
    return with_stages(ladder, taught(ladder.stages[-1], "parent"))


def taught(stage: Stage, choice: Teachers) -> Stage:
    """The stage with another choice of teachers, who share its steps evenly if they take turns."""
    objective = stage.objective.model_copy(update={"handover": ()})
    return stage.model_copy(update={"teachers": (choice,), "objective": objective})


def matched(stage: Stage, cost: Callable[[Stage], float], target: float) -> Stage:
    """The stage with as many steps as come nearest to a number of operations, one at least.

    Args:
        stage: Any steps.
        cost: Operations of a stage; grows with its steps.
        target: Operations wanted.
    """
    low, high = 0, 1
    while cost(lasting(stage, high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(lasting(stage, middle)) < target else (low, middle)
    nearer = low and target - cost(lasting(stage, low)) < cost(lasting(stage, high)) - target
    return lasting(stage, low if nearer else high)


def matched_single(ladder: Ladder, root: Forward, student: Forward, examples: TrainingExamples, target: float) -> Ladder:
    """A settled ladder of one stage, with as many steps as come nearest to a number of operations."""

    def cost(stage: Stage) -> float:
        return total_of(flops_of(with_stages(ladder, stage), (root, student), examples))

    return with_stages(ladder, matched(ladder.stages[0], cost, target))


def matched_whole(ladder: Ladder, cost: Callable[[Ladder], float], target: float) -> Ladder:
    """A ladder that costs a number of operations to half a step of its last stage.

    Where it costs less as it stands, its last stage is longer; where it costs more, all stages are shorter by one share.

    Args:
        ladder: Any steps.
        cost: Operations of a ladder; grows with its steps.
        target: Operations wanted.
    """

    def shorter(share: float) -> Ladder:
        return shortened(ladder, share, least=1)

    least, most = 0.0, 1.0
    while cost(ladder) > target and most - least > SHARE:
        middle = (least + most) / 2
        least, most = (middle, most) if cost(shorter(middle)) <= target else (least, middle)
    *above, last = (ladder if cost(ladder) <= target else shorter(least)).stages
    return with_stages(ladder, *above, matched(last, lambda stage: cost(with_stages(ladder, *above, stage)), target))


def lasting(stage: Stage, steps: int) -> Stage:
    """The stage with another number of steps."""
    return stage.model_copy(update={"training": stage.training.model_copy(update={"steps": steps})})


def scaled(training: Training, share: float, least: int = LEAST_STEPS) -> int:
    """Steps of a training with a share of its steps; at least `least`, or all that it has."""
    return max(min(least, training.steps), round(training.steps * share))


def shortened(ladder: Ladder, share: float, stages: Collection[str] | None = None, least: int = LEAST_STEPS) -> Ladder:
    """The ladder with a share of the steps of the stages of these names, or of all: whole schedules, only shorter."""
    made = (
        lasting(stage, scaled(stage.training, share, least)) if stages is None or stage.name in stages else stage for stage in ladder.stages
    )
    return with_stages(ladder, *made)


def reseeded(ladder: Ladder, number: int, stages: Collection[str] | None = None) -> Ladder:
    """The ladder with `number` added to the seeds of the stages of these names, or of all; 0: its own."""
    made = (
        stage.model_copy(update={"seed": (ladder.stage_seed(stage) + number) % 2**31}) if stages is None or stage.name in stages else stage
        for stage in ladder.stages
    )
    return with_stages(ladder, *made)


def with_stages(ladder: Ladder, *stages: Stage) -> Ladder:
    """The ladder with other stages."""
    return ladder.model_copy(update={"stages": stages})
