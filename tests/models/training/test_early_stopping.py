"""Early stopping: the best weights win, also after an interruption."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import collect
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, Trained, train

pytestmark = pytest.mark.thorough

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


def plan_for(corpus: Corpus, training: Training) -> Plan:
    return Plan(training, None, 0, corpus.info.vocabulary, "cpu", training.precision)


def equal(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def held_out_nll(corpus: Corpus) -> Callable[[nn.Module], dict[str, float]]:
    def validate(model: nn.Module) -> dict[str, float]:
        columns = collect(model, {}, evaluation_batches(corpus, "valid", 8, 8), corpus.info.vocabulary, torch.device("cpu"), "fp32")
        return {"nll": float(columns.nll.mean(dtype=np.float64))}

    return validate


@pytest.fixture
def overfitted(lm_corpus: Callable[..., Corpus]) -> Corpus:
    """Held-out text shares a few letters with the training text and nothing else: it is learned first and unlearned then."""
    return lm_corpus([list(b"abcdefgh" * 40)], [list(b"hgfedcba" * 12)], length=16)


def test_early_stopping_returns_to_the_best_weights(overfitted: Corpus, training: Settings, model_for: Make, tmp_path: Path) -> None:
    lesson = training(steps=60, learning_rate=1e-2, validate_every=2, patience=3, checkpoint_every=4)
    validate = held_out_nll(overfitted)

    def run(folder: Path, stop_after: int | None = None) -> tuple[Trained, nn.Module]:
        def on_step(step: Step) -> None:
            if step.step == stop_after:
                raise InterruptedError

        model, batches = model_for(overfitted), TrainingBatches(overfitted, 8, 0)
        plan = plan_for(overfitted, lesson)
        return train(model, batches, plan, checkpoints=Checkpoints(folder), validate=validate, on_step=on_step), model

    trained, model = run(tmp_path / "whole")
    course = [point["nll"] for point in trained.curve["valid"]]
    best = course.index(min(course))
    assert trained.early_stopped
    assert trained.steps == 2 * (best + 1 + 3) < 60
    assert best > 0
    assert validate(model)["nll"] == min(course) < course[-1]
    for stop in (2 * best + 1, 2 * best + 3, trained.steps - 1):
        with pytest.raises(InterruptedError):
            run(tmp_path / str(stop), stop)
        resumed, again = run(tmp_path / str(stop))
        assert resumed.resumed_at
        assert (resumed.steps, resumed.early_stopped) == (trained.steps, True)
        assert equal(again, model)
    finished, last = run(tmp_path / "whole")
    assert (finished.steps, finished.early_stopped, finished.resumed_at) == (trained.steps, True, trained.steps)
    assert equal(last, model)


def test_a_training_to_its_last_step_with_patience_ends_with_the_best_weights_too(
    overfitted: Corpus, training: Settings, model_for: Make, tmp_path: Path
) -> None:
    lesson = training(steps=30, learning_rate=1e-2, validate_every=2, patience=30)
    model, validate = model_for(overfitted), held_out_nll(overfitted)
    batches = TrainingBatches(overfitted, 8, 0)
    trained = train(model, batches, plan_for(overfitted, lesson), checkpoints=Checkpoints(tmp_path / "work"), validate=validate)
    assert (trained.steps, trained.early_stopped) == (30, False)
    assert validate(model)["nll"] == min(point["nll"] for point in trained.curve["valid"])
