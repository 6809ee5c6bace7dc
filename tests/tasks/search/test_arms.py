"""Every arm of a proof gets as many trials, on seeds that are not the proof's, of settings that change no FLOPs."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from tasks.planning.matching import direct
from tasks.proof.arms import replicate, scratch
from tasks.search.arms import arm_plan, require_equal_flops
from tasks.search.space import applied


def ladder(*overrides: str) -> Ladder:
    return load("digits", overrides).ladder


def test_an_arm_is_searched_with_its_own_stages_and_other_seeds() -> None:
    base = ladder("search.seeds=8", "search.trials=3", "search.metric=nll")
    plans = {arm: arm_plan(arm, own, 7) for arm, own in (("staged", base), ("direct", direct(base)), ("scratch", scratch(base)))}
    assert {plan.settings.trials for plan in plans.values()} == {7}
    assert {plan.metric for plan in plans.values()} == {"accuracy"}, "the proof's own"
    assert len({plan.study for plan in plans.values()}) == 3
    assert [plan.stages for plan in plans.values()] == [("half", "quarter", "eighth"), ("eighth",), ("eighth",)]
    assert {dimension.key for dimension in plans["scratch"].space} == {"training.learning_rate", "training.weight_decay"}
    seeds = {plan.ladder.stage_seed(stage) for plan in plans.values() for stage in plan.ladder.stages}
    proofs = {one.stage_seed(stage) for number in range(1000) for one in (replicate(base, number),) for stage in one.stages}
    assert not seeds & proofs


def test_the_values_of_an_arm_go_to_its_replicates_and_keep_their_steps_and_seeds() -> None:
    base = ladder()
    plan = arm_plan("direct", direct(base), 5)
    own = replicate(direct(base), 3)
    made = applied(own, plan.space, {"training.learning_rate": 2.0, "objective.alpha": 0.5})
    assert (made.stages[0].training.learning_rate, made.stages[0].objective.alpha.start) == (0.012, 0.5)
    assert (made.stages[0].seed, made.stages[0].training.steps) == (own.stages[0].seed, own.stages[0].training.steps)


@pytest.mark.parametrize(
    "key", ["training.batch_size", "student.shape.layers", "teachers", "objective.keep", "stages.half.training.batch_size"]
)
def test_settings_that_change_flops_are_refused(key: str) -> None:
    require_equal_flops(ladder("search.space={objective: {alpha: [0.5, 0.7]}, stages: {half: {training: {clip: [0.5, 1]}}}}"))
    with pytest.raises(
        UserError, match=rf"search.space: got '{key}'; allowed: in a proof, settings that change no FLOPs \(objective: kind"
    ):
        require_equal_flops(ladder(f"search.space={{{key}: [1, 2]}}"))
