"""Several teachers of one student: their selection, weights and resumption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.losses.schedules import kept_teachers
from models.signals.sources import SignalSource, live
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, train

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


def plan_of(training: Training, **objective: Any) -> Plan:
    return Plan(training, Objective.model_validate(objective), 0, 258, "cpu", "fp32")


def sources_of(prose: Corpus, model_for: Make, asked: list[list[int]]) -> list[SignalSource]:
    """Two teachers that note by which call they were asked."""

    def noting(index: int) -> SignalSource:
        source = live(model_for(prose, seed=1 + index, hidden=32), 258)

        def answer(batch: Batch) -> Any:
            asked[-1].append(index)
            return source(batch)

        return answer

    return [noting(index) for index in range(2)]


def run(prose: Corpus, model_for: Make, plan: Plan, folder: Path | None = None, stop: int | None = None):
    asked: list[list[int]] = [[]]
    steps: list[Step] = []

    def on_step(step: Step) -> None:
        steps.append(step)
        asked.append([])
        if step.step == stop:
            raise InterruptedError

    model = model_for(prose)
    checkpoints = Checkpoints(folder) if folder else None
    train(model, TrainingBatches(prose, 8, 0), plan, signals=sources_of(prose, model_for, asked), checkpoints=checkpoints, on_step=on_step)
    return [parameter.detach().clone() for parameter in model.parameters()], steps, asked[:-1]


def test_only_the_kept_teachers_run(prose: Corpus, training: Settings, model_for: Make) -> None:
    _, _, asked = run(prose, model_for, plan_of(training(steps=12), keep=0.5))
    assert asked == [kept_teachers(2, 0.5, 0, step) for step in range(12)]
    assert {len(each) for each in asked} == {1, 2}
    _, _, everyone = run(prose, model_for, plan_of(training(steps=3), keep=1.0))
    assert everyone == [[0, 1]] * 3
    _, _, nobody = run(prose, model_for, plan_of(training(steps=3), alpha=0.0))
    assert nobody == [[]] * 3


@pytest.mark.parametrize("combine", ["sum", "mean"])
def test_two_equal_teachers_teach_as_one(combine: str, prose: Corpus, training: Settings, model_for: Make) -> None:
    plan, figures = plan_of(training(steps=4), keep=1.0, combine=combine), []
    for count in (1, 2):
        steps: list[Step] = []
        sources = [live(model_for(prose, seed=1, hidden=32), 258) for _ in range(count)]
        train(model_for(prose), TrainingBatches(prose, 8, 0), plan, signals=sources, on_step=steps.append)
        figures.append([(step.loss, step.kd, step.teacher_ce, step.grad_norm) for step in steps])
    for one, other in zip(*figures, strict=True):
        assert other == pytest.approx(one, rel=1e-4)


def test_a_resumed_training_asks_the_same_teachers(prose: Corpus, training: Settings, model_for: Make, tmp_path: Path) -> None:
    plan = plan_of(training(steps=9, checkpoint_every=4), keep=0.5)
    whole, _, _ = run(prose, model_for, plan, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        run(prose, model_for, plan, tmp_path / "cut", stop=6)
    again, steps, _ = run(prose, model_for, plan, tmp_path / "cut")
    assert steps[0].step == 5
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
