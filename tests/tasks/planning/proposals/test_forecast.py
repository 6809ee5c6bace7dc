"""Forecasts from pilots: coverage, laws of the curve, and a real ladder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conf.errors import UserError
from conf.loading.load import load_text
from conf.schema.ladder import Ladder
from flows.cli.show.forecast import forecast_text, jump_words
from tasks.data.prepare import prepare_data
from tasks.planning.proposals.curve import LEVEL, Point, ScalingCurve
from tasks.planning.proposals.forecast import FarStage, LadderForecast, check_length, foretell, line_through, sampling_noise
from tasks.planning.proposals.measured import SCHEDULES, measure_schedule, settled_ladder
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher

pytestmark = pytest.mark.thorough

FEW = ((1 / 8, 0), (1 / 4, 0))
WHOLE = 1e12  # operations of a whole schedule


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_intervals_hold_what_they_say(noise: float) -> None:
    """Power laws with random floors, exponents and plateaus, measured with the noise of seeds: 90 % intervals hold 85 to 99 of 100."""
    generator, inside, times = np.random.default_rng(0), 0, 300
    for _ in range(times):
        floor, scale = generator.uniform(0, 2), generator.uniform(0.2, 2)
        exponent, plateau = np.exp(generator.uniform(np.log(0.1), 0)), generator.choice([0, 0.02, 0.1])

        def loss(share: float, law: tuple[float, float, float, float] = (floor, scale, exponent, plateau)) -> float:
            exact = law[0] + law[1] * ((share + law[3]) / (1 + law[3])) ** -law[2]
            return float(exact * (1 + noise * generator.standard_normal()))

        foretold = ScalingCurve([Point(share * WHOLE, loss(share)) for share, _ in SCHEDULES]).at(WHOLE)
        inside += foretold.low <= loss(1.0) <= foretold.high
    assert 0.85 <= inside / times <= 0.99
    assert LEVEL == 0.9


def test_more_pilots_and_longer_ones_make_intervals_narrower() -> None:
    def width(*shares: float) -> float:
        foretold = ScalingCurve([Point(share * WHOLE, 1 + 0.5 * share**-0.3) for share in shares]).at(WHOLE)
        assert foretold.low < 1.5 < foretold.high
        return foretold.high - foretold.low

    assert width(1 / 4, 1 / 2) < width(1 / 8, 1 / 4) < width(1 / 16, 1 / 8)
    assert width(1 / 16, 1 / 8, 1 / 4) < width(1 / 8, 1 / 4)


def test_noise_widens_an_interval_and_a_seed_repeats_it() -> None:
    points = [Point(share * WHOLE, 0.1 + 0.05 * share**-0.5) for share, _ in SCHEDULES]
    quiet, loud = ScalingCurve(points), ScalingCurve(points, noise=0.3)
    assert loud.at(WHOLE).high - loud.at(WHOLE).low > 2 * (quiet.at(WHOLE).high - quiet.at(WHOLE).low)
    assert ScalingCurve(points).at(WHOLE) == quiet.at(WHOLE)
    assert quiet.at(WHOLE).low >= 0
    assert sampling_noise(0.1, 360) == pytest.approx((0.9 / 0.1 / 360) ** 0.5, rel=0.02), "relative to the error rate"
    assert sampling_noise(0.0, 360) == pytest.approx(1, rel=0.01), "no error of 360 may be one of them"
    assert sampling_noise(2.3, 360) == 0.0, "bits per byte are no share of rows"


def test_operations_that_reach_a_loss() -> None:
    curve = ScalingCurve([Point(share * WHOLE, 1 + 0.5 * share**-0.5) for share, _ in SCHEDULES])
    found = curve.reaches(1.5, 20 * WHOLE)
    assert found == pytest.approx(WHOLE, rel=0.3)
    assert curve.reaches(0.1, 20 * WHOLE) is None


def test_time_is_a_line_whose_start_costs_something_or_nothing() -> None:
    assert line_through([(10, 3.0), (20, 5.0), (40, 9.0)], 160) == pytest.approx(1 + 0.2 * 160)
    assert line_through([(10, 1.0), (20, 4.0)], 100) == pytest.approx(100 * (10 + 80) / 500), "a start below nothing is none"
    assert line_through([(10, 4.0), (20, 2.0)], 100) == pytest.approx(3.0), "more steps take no less"
    assert line_through([(10, 2.0)], 100) == pytest.approx(20)


def stage(name: str, flops: float) -> FarStage:
    return FarStage(
        name=name,
        parameters=1000,
        steps=100,
        flops=flops,
        loss=0.1,
        low=0.05,
        high=0.2,
        seconds=3.0,
        learned=True,
        measured=((0.25, 0, 0.15),),
    )


def forecast(as_good: float, equal: float | None) -> LadderForecast:
    stages = (stage("half", 1e9), stage("small", 2e9))
    return LadderForecast(
        ladder="x",
        workload="sequence-classification",
        level=LEVEL,
        stages=stages,
        jump=stage("small", 2e9),
        as_good=as_good,
        equal_flops=equal,
        seconds=9.0,
    )


def test_words_on_the_jump() -> None:
    sure, open_, never = forecast(0.97, 1e9), forecast(0.6, 3e9), forecast(0.02, None)
    assert "as good as the ladder (probability 97 %)" in jump_words(sure)[0]
    assert jump_words(sure)[-1] == "It comes level at 50 % of the ladder's FLOPs: distil directly."
    assert jump_words(open_)[1:] == ["The pilots do not decide it: `ladder prove` does.", "It comes level at 1.5 times the ladder's FLOPs."]
    assert "worse than the ladder (probability 98 %)" in jump_words(never)[0]
    assert "80.0 % to 95.0 %" in forecast_text(sure)
    alone = never.model_copy(update={"stages": never.stages[:1], "jump": None, "as_good": None})
    assert jump_words(alone) == ["The ladder is one jump already."]


LADDER = """
name: tiny
workload: image-classification
data: {source: digits, valid_fraction: 0.2}
compute: {at_once: null}
evaluation: {examples: 100}
teacher:
  source: train
  shape: {family: vit, hidden_size: 16, layers: 1, heads: 2, feed_forward: 32, patch_size: 4}
  training: {steps: 100, batch_size: 16, precision: fp32}
defaults: {training: {steps: STEPS, batch_size: 16, precision: fp32}}
stages:
  - {name: half, student: {shape: {family: vit, hidden_size: 12, layers: 1, heads: 2, feed_forward: 24, patch_size: 4}}}
  - name: small
    student: {shape: {family: vit, hidden_size: 8, layers: 1, heads: 2, feed_forward: 16, patch_size: 4}}
    teachers: [root]
    signals: {source: cached, kind: full}
"""


def tiny(folder: Path, steps: int = 160) -> Ladder:
    return load_text(LADDER.replace("STEPS", str(steps)), folder, "tiny").ladder


@pytest.mark.slow
def test_a_ladder_and_its_jump_are_foretold_with_the_operations_of_their_trainings(tmp_path: Path) -> None:
    ladder = tiny(tmp_path)
    context = Context(run="run-1", ladder="tiny", home=str(tmp_path / "home"), base=str(tmp_path))
    inputs = StageInputs(ladder, prepare_data(ladder, context), context)
    root = prepare_teacher(inputs)
    foretold = foretell(ladder, root, inputs, FEW)
    assert [each.name for each in foretold.stages] == ["half", "small"]
    assert [(share, seed) for share, seed, _ in foretold.stages[0].measured] == list(FEW)
    assert foretold.jump
    assert foretold.jump.flops == pytest.approx(foretold.stages[-1].flops, rel=0.01)
    assert foretell(ladder, root, inputs, FEW) == foretold, "pilots are found in the store, with their times"
    away = context.model_copy(update={"home": str(tmp_path / "other")})
    fresh = StageInputs(ladder, prepare_data(ladder, away), away)
    made = measure_schedule(settled_ladder(ladder, fresh), prepare_teacher(fresh), fresh)
    spent = 0.0
    for far, whole in zip(foretold.stages, made.stages, strict=True):
        spent += whole.trained_flops
        assert far.flops == whole.flops == spent


def test_a_ladder_too_short_for_pilots(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages.half.training.steps: got 40; allowed: at least 80 with --pilot"):
        check_length(tiny(tmp_path, steps=40))
    check_length(tiny(tmp_path, steps=80))
