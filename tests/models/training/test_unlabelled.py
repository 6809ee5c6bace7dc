"""Training with examples that have no label: who sees them, how they are averaged, and from a cache."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.data.batches import IGNORE, UNLABELLED, TrainingBatches
from models.data.corpus import SPLITS, Corpus
from models.losses.loss import StepObjective, distillation_loss
from models.signals.cache import MANIFEST, SignalCache
from models.signals.codec import FORMAT
from models.signals.fill import fill_cache
from models.signals.sources import live, rows
from models.training.loop import Plan, Step, accelerator_for, train
from models.training.step import StudentInTraining, gradients
from tests.factories import corpus_in

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]
OBJECTIVE = Objective.model_validate({"alpha": 0.4, "temperature": 2.0})


@pytest.fixture
def few(images: Corpus, tmp_path: Path) -> Corpus:
    """The corpus of images with every third label."""
    splits = {name: images.split(name) for name in SPLITS}
    labels = np.where(np.arange(len(splits["train"])) % 3 == 1, splits["train"].labels, -1)
    splits["train"] = replace(splits["train"], labels=labels)
    return corpus_in(tmp_path / "few", "image-classification", 2, splits, classes=3, image=(1, 4, 4))


def steps_of(
    corpus: Corpus, model: nn.Module, training: Training, teacher: nn.Module | None, objective: Objective = OBJECTIVE
) -> list[Step]:
    steps = list[Step]()
    batches = TrainingBatches(corpus, training.batch_size, 0, labelled=teacher is None)
    plan = Plan(training, objective if teacher else None, 0, None)
    train(model, batches, plan, signals=live(teacher, None) if teacher else None, on_step=steps.append)
    return steps


def test_micro_batches_with_other_shares_of_labels_equal_one_batch(few: Corpus, training: Settings, model_for: Make) -> None:
    sources, batch = [live(model_for(few, seed=1, hidden=32), None)], TrainingBatches(few, 8, 0).at(1)
    shares = [batch.part(index, 4).labelled for index in range(4)]
    assert len(set(shares)) > 1, "the test could not tell"
    runs = []
    for parts in (1, 4):
        model, plan = model_for(few), Plan(training(accumulation=parts), OBJECTIVE, 0, None)
        student = StudentInTraining(model, model, None, None)
        runs.append(gradients(accelerator_for("cpu", "fp32"), student, batch, plan, sources, StepObjective(OBJECTIVE, 0.4, 2.0))[0][:4])
        runs.append([p.grad for p in model.parameters()])
    assert runs[2] == pytest.approx(runs[0], rel=1e-6)
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-7) for one, other in zip(runs[1], runs[3], strict=True))


def test_the_loss_is_the_mean_over_all_rows_and_the_cross_entropy_over_labelled_ones(
    few: Corpus, training: Settings, model_for: Make
) -> None:
    teacher, model = model_for(few, seed=1, hidden=32), model_for(few).train()
    batch = TrainingBatches(few, 8, 0).at(0)
    assert 0 < batch.labelled < batch.valid == 8
    sums = distillation_loss(rows(model, batch, None), [live(teacher, None)(batch)], batch.targets, StepObjective(OBJECTIVE, 0.4, 2.0))
    (step,) = steps_of(few, model_for(few), training(steps=1), teacher)
    assert step.loss == pytest.approx(sums.total.item() / 8, rel=1e-5)
    assert step.kd == pytest.approx(float(sums.kd) / 8, rel=1e-5)
    assert step.ce == pytest.approx(float(sums.ce) / batch.labelled, rel=1e-5)


def test_without_a_teacher_every_step_is_of_labelled_examples(few: Corpus, training: Settings, model_for: Make) -> None:
    labels = few.split("train").labels
    batches = TrainingBatches(few, 8, 3, labelled=True)
    assert batches.examples == 16
    drawn = np.concatenate([batches.numbers(step) for step in range(4)])
    assert sorted(drawn[:16]) == sorted(drawn[16:]) == np.flatnonzero(labels >= 0).tolist()
    assert all((batches.at(step).targets >= 0).all() for step in range(4))
    assert steps_of(few, model_for(few), training(steps=2), None)[0].ce > 0


def test_a_step_that_asks_no_teacher_counts_labels_alone(few: Corpus, training: Settings, model_for: Make) -> None:
    growing = Objective.model_validate({"alpha": {"kind": "cosine", "start": 0.0, "end": 1.0}})
    first, second = steps_of(few, model_for(few), training(steps=2), model_for(few, seed=1), growing)
    assert (first.kd, first.teacher_ce) == (0.0, None)
    assert first.loss == pytest.approx(first.ce)
    assert second.kd > 0
    batch = TrainingBatches(few, 8, 0).at(0)
    assert batch.labels_alone().targets.tolist() == [IGNORE if label == UNLABELLED else label for label in batch.targets.tolist()]


def test_a_labelled_corpus_is_drawn_as_ever(images: Corpus) -> None:
    plain, labelled = TrainingBatches(images, 8, 5), TrainingBatches(images, 8, 5, labelled=True)
    assert all(np.array_equal(plain.numbers(step), labelled.numbers(step)) for step in range(12))


def test_a_training_part_without_labels_needs_a_teacher(images: Corpus, tmp_path: Path) -> None:
    splits = {name: images.split(name) for name in SPLITS}
    splits["train"] = replace(splits["train"], labels=np.full(len(splits["train"]), -1))
    corpus = corpus_in(tmp_path / "none", "image-classification", 2, splits, classes=3, image=(1, 4, 4))
    assert TrainingBatches(corpus, 4, 0).at(0).labelled == 0
    with pytest.raises(UserError, match=r"data\.columns\.label: got 'no label'"):
        TrainingBatches(corpus, 4, 0, labelled=True)


@pytest.mark.parametrize("kind", ["full", "top-k"])
def test_stored_answers_teach_as_live_ones(few: Corpus, model_for: Make, tmp_path: Path, kind: str) -> None:
    teacher, student = model_for(few, seed=1, hidden=32), model_for(few)
    batches, at = TrainingBatches(few, 16, 0), StepObjective(Objective(), 0.4, 1.0)
    identity = {"kind": "signals", "format": FORMAT, "signal": kind, "size": 3, "vocabulary": 3, "seed": 0}
    (tmp_path / "cache").mkdir()
    np.save(tmp_path / "cache" / "order.npy", np.arange(3))
    (tmp_path / "cache" / MANIFEST).write_text("{}")
    cache = SignalCache.open(tmp_path / "cache", "f" * 64, identity, pytest.fail)
    fill_cache(cache, batches, 3, lambda batch: rows(teacher, batch, None).detach(), "test")
    batch = batches.at(1)
    found = []
    for source in (live(teacher, None), cache.source):
        leaf = rows(student, batch, None).detach().requires_grad_()
        found.append(torch.autograd.grad(distillation_loss(leaf, [source(batch)], batch.targets, at).total, leaf)[0])
    assert 0 < batch.labelled < batch.valid
    # A full record holds half precision; top-k one of 80 steps of sqrt(p), half a step off at most: an error of p below 0.0125.
    assert torch.allclose(*found, atol=1e-3 if kind == "full" else 0.0125)
