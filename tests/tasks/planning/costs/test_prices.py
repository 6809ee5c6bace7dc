"""Prices of a plan, by hand; and of the shipped ladder, against the counts of its shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import load
from conf.schema.measures.economics import Economics
from conf.schema.teacher import TrainedTeacher
from flows.cli.show.plan import costs_text, plan_text
from models.architectures.shapes import size_of
from tasks.data.prepare import prepare_data
from tasks.planning.costs.prices import Jump, plan_costs
from tasks.planning.plan import LadderPlan, make_plan
from tasks.planning.preflight import expected_interface
from tasks.proof.prepare_arms import arms_of
from tasks.runtime.runs.run_registry import Context

PRICES = Economics(currency="EUR", price_per_hour=2, machine_factor=0.5, search_factor=1, data_cost=3, evaluation_cost=1)


def planned(tmp_path: Path, *overrides: str) -> LadderPlan:
    loaded = load("digits", overrides)
    return make_plan(loaded.ladder, loaded.base, Home(tmp_path / "home"))


def test_by_hand() -> None:
    trainings, jump = [(1e12, 1800.0), (2e12, 5400.0)], Jump("small", 300, 2.99e12, 2700)
    costs = plan_costs(PRICES, 3600.0, trainings, jump)
    assert costs.to_compute == pytest.approx(1)  # an hour here is half an hour there, at 2 an hour
    assert (costs.flops, costs.seconds) == (3e12, 7200)
    assert costs.price == pytest.approx(2 * 0.5 * 2 * 2 + 3 + 1)
    assert costs.jump is not None
    assert (costs.jump.steps, costs.jump.flops, costs.jump.seconds) == (300, 2.99e12, 2700)
    assert costs.jump.price == pytest.approx(0.75 * 0.5 * 2 * 2 + 3 + 1)
    said = costs_text(costs, "teacher", True)
    assert "1.00 EUR for this run" in said
    assert "one jump teacher -> small with as many FLOPs: 300 steps, about 45 min, 5.50 EUR." in said


def test_without_the_roots_size_there_is_no_jump() -> None:
    costs = plan_costs(PRICES, 0.0, [(1.0, 1.0)], None)
    assert costs.jump is None
    assert "one jump" not in costs_text(costs, "teacher", True)


def test_a_jump_has_the_operations_of_all_stages(tmp_path: Path) -> None:
    plan, ladder = planned(tmp_path), load("digits").ladder
    jump = plan.costs.jump
    assert jump is not None
    assert plan.costs.flops == sum(stage.flops for stage in plan.stages)
    assert isinstance(ladder.teacher, TrainedTeacher)
    interface, last = expected_interface(ladder, None), ladder.stages[-1]
    assert last.student.shape is not None
    root, student = size_of(ladder.teacher.shape, interface), size_of(last.student.shape, interface)
    step = last.training.batch_size * (3 * student.forward_flops + root.forward_flops)
    assert jump.flops == jump.steps * step
    assert abs(jump.flops - plan.costs.flops) <= step / 2
    assert "one jump teacher -> eighth" in " ".join(plan_text(plan).split())


def test_the_roots_training_counts_when_asked(tmp_path: Path) -> None:
    plan = planned(tmp_path, "economics.include_teacher=true", "economics.price_per_hour=36000")
    assert plan.costs.flops == plan.teacher.flops + sum(stage.flops for stage in plan.stages)
    assert plan.costs.price == pytest.approx(10 * plan.costs.seconds)
    assert plan.costs.to_compute == pytest.approx(10 * plan.seconds)


def test_a_jump_from_cached_answers_is_the_proofs_matched_arm(tmp_path: Path) -> None:
    """A live root in the jump, beside cached teachers in the stages, gave a third of the steps."""
    loaded, home = load("digits", ["defaults.signals={source: cached, kind: full}"]), Home(tmp_path)
    context = Context(run="r", ladder="digits", home=str(tmp_path), base=str(loaded.base))
    data = prepare_data(loaded.ladder, context)
    jump, arms = make_plan(loaded.ladder, loaded.base, home).costs.jump, arms_of(loaded.ladder, data, context)
    live = make_plan(load("digits").ladder, loaded.base, home).costs.jump
    assert jump is not None
    assert live is not None
    assert jump.steps == arms.ladders["direct-matched"].stages[0].training.steps
    assert jump.steps > 2 * live.steps
