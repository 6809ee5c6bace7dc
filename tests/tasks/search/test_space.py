"""The space of a search: its dimensions, a trial's ladder, the overrides of a winner, and wrong spaces."""

from __future__ import annotations

from typing import Any

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from tasks.search.plan import plan_search
from tasks.search.space import applied, dimensions, overrides_of, own_value


def ladder(*overrides: str) -> Ladder:
    return load("digits", overrides).ladder


def space(text: str) -> str:
    return f"search.space={text}"


def test_the_default_space_leaves_the_ladder_as_it_is_with_its_own_values() -> None:
    base = ladder()
    found = dimensions(base, [stage.name for stage in base.stages])
    keys = ["training.learning_rate", "training.weight_decay", "objective.alpha", "objective.temperature"]
    assert [dimension.name for dimension in found] == keys
    own = {dimension.name: own_value(base, dimension) for dimension in found}
    assert own == dict(zip(keys, (1.0, 0.05, 0.7, 2.0), strict=True))
    assert applied(base, found, own) == base


def test_language_models_have_no_temperature_and_stages_without_a_teacher_no_objective() -> None:
    text = load("python-stdlib").ladder
    assert "objective.temperature" not in {dimension.key for dimension in dimensions(text, [text.stages[0].name])}
    alone = ladder("stages.eighth.teachers=none")
    assert {dimension.key.partition(".")[0] for dimension in dimensions(alone, ["eighth"])} == {"training"}


@pytest.mark.parametrize(
    "values",
    [
        {"training.learning_rate": 0.5, "objective.alpha": {"kind": "cosine", "start": 1, "end": 0.25}, "teachers": ["root"]},
        {"objective.kind": "reverse-kl", "training.batch_size": 32, "student.shape.layers": 1},
        {"training.batch_size": 128, "stages.eighth.training.learning_rate": 0.01},
        {},
    ],
)
def test_the_overrides_of_a_trial_make_its_ladder_from_the_file(values: dict[str, Any]) -> None:
    own = "{training: {learning_rate: {low: 0.1, high: 9, relative: true}, batch_size: [32, 64, 128]}, teachers: [[parent], [root]],"
    own += " objective: {kind: [forward-kl, reverse-kl], alpha: [0.7, {kind: cosine, start: 1, end: 0.25}]}, student.shape.layers: [1, 2],"
    own += " stages: {eighth: {training: {learning_rate: [0.01, 0.02]}}}}"
    plan = plan_search(ladder(space(own), "stages.half.student.initialisation=random"))
    changed = plan.trial(values)
    lines = overrides_of(plan.ladder, changed, plan.space)
    again = load("digits", ("stages.half.student.initialisation=random", *lines)).ladder
    assert again.stages == changed.stages
    assert bool(lines) == bool(values)


def test_the_overrides_of_a_ladder_whose_route_pilots_choose_keep_its_stages_as_written() -> None:
    plan = plan_search(ladder(space("{training: {batch_size: [32, 64]}}"), "route=auto"))
    lines = overrides_of(plan.ladder, plan.trial({"training.batch_size": 32}), plan.space)
    again = load("digits", ("route=auto", *lines)).ladder
    assert again.route == "as-written"
    assert again.stages == plan.trial({"training.batch_size": 32}).stages


def test_a_batch_changes_the_steps_so_that_as_many_examples_are_seen() -> None:
    plan = plan_search(ladder(space("{training: {batch_size: [32, 64, 128]}}")))
    seen = {batch: plan.trial({"training.batch_size": batch}).stages[0].training for batch in (32, 64, 128)}
    assert {training.steps * training.batch_size for training in seen.values()} == {300 * 64}


def test_ends_of_a_schedule_are_searched_apart() -> None:
    plan = plan_search(ladder(space("{objective: {alpha: {start: {low: 0.5, high: 1}, end: {low: 0, high: 0.5}}}}")))
    alpha = plan.trial({"objective.alpha.start": 0.9, "objective.alpha.end": 0.1}).stages[0].objective.alpha
    assert (alpha.kind, alpha.start, alpha.end) == ("cosine", 0.9, 0.1)


def test_rungs_are_whole_schedules_of_the_searched_stages_alone() -> None:
    plan = plan_search(ladder("search.stage=eighth"))
    assert [plan.steps(share) for share in plan.shares] == [50, 133, 400]
    assert [stage.training.steps for stage in plan.trial({}, plan.shares[0]).stages] == [300, 300, 50]
    short = plan_search(ladder("search.stage=eighth", "stages.eighth.training.steps=40"))
    assert short.shares == (1.0,), "rungs on which the schedules would be the same are one"
    assert plan_search(ladder("search.against=parameters")).shares == (1.0,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (space("{objective: {alfa: [1]}}"), "search.space.objective.alfa: got 'alfa'; allowed: kind, alpha, temperature"),
        (space("{objective: {alfa: [1]}}"), "Did you mean 'alpha'?"),
        (space("{x: [1]}"), "search.space.x: got 'x'; allowed: student, teachers, "),
        (space("{objective: {alpha: []}}"), "search.space: got [] for objective.alpha; allowed: a list of values"),
        (space("{objective: {alpha: {low: 1, high: 0.5}}}"), "low lies below high"),
        (space("{objective: {alpha: {low: 0, high: 0.5, log: true}}}"), "With log, low lies above 0"),
        (space("{objective: {alpha: {low: 0.5, high: 1.5}}}"), "search.space.objective.alpha: got 1.5, which does not fit: stages[0].obj"),
        (space("{training: {steps: [10, 20]}}"), "search.space.training.steps: got 'training.steps'; allowed: a setting of a stage"),
        (space("{seed: [1, 2]}"), "The best of several seeds is no better setting"),
        (
            space("{stages: {haff: {objective: {alpha: [1]}}}}"),
            "allowed: a stage that is searched: half, quarter, eighth. Did you mean 'half'?",
        ),
        (space("{teachers: {low: 1, high: 2}}"), "search.space.teachers: got 1.0, which does not fit: "),
        ("search.stage=tenth", "search.stage: got 'tenth'; allowed: a stage of this ladder: half, quarter, eighth"),
        ("search.metric=bits_per_byte", "search.metric: got 'bits_per_byte'; allowed: accuracy, macro_f1, nll, ece, for workload image"),
        ("search.sampler=nsga2", "search.sampler: got 'nsga2'; allowed: tpe or random, for one objective"),
        ("search.seeds=1", "search.seeds: got 1; allowed: 0, or 2 to 1000"),
        ("search.storage=postgresql://me:secret@db/studies", "search.storage: got "),
    ],
)
def test_a_mistake_is_one_message(override: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        plan_search(ladder(override))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
