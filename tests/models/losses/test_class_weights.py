"""Weights of classes: a weighted mean over the labelled rows of a whole step, in both forms of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.objective import Objective
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.losses.chunked import Head, chunked_loss
from models.losses.class_weights import weights_of
from models.losses.loss import StepObjective, TeacherSignal, distillation_loss
from models.signals.sources import live
from models.training.loop import Plan, Step, train

NAMES = ("common", "rare", "unseen")


def test_balanced_gives_each_class_the_same_sum() -> None:
    weights = weights_of("balanced", NAMES[:2], [90, 10], "stages[0].objective")
    assert weights == pytest.approx((100 / 180, 100 / 20))
    assert weights is not None
    assert 90 * weights[0] == pytest.approx(10 * weights[1])
    assert weights_of("balanced", NAMES, [90, 10, 0], "x") == pytest.approx((100 / 270, 100 / 30, 1.0))
    assert weights_of("none", NAMES, [1, 1, 1], "x") is None
    assert weights_of({"rare": 5.0}, NAMES, [90, 10, 0], "x") == (1.0, 5.0, 1.0)


def test_a_class_that_the_data_do_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages\[0\]\.objective\.class_weights: got 'odd'.*The classes of the data are: common, rare"):
        weights_of({"odd": 2.0}, NAMES, [1, 1, 1], "stages[0].objective")


@pytest.mark.parametrize("taught", [False, True])
def test_both_forms_of_the_loss_weigh_alike(taught: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, teacher = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((12, 5), (3, 5), (12, 3)))
    targets = torch.tensor([0, 1, 2, 0, 0, 1, -100, 2, 0, -1, 0, 1])
    at = StepObjective(Objective(), 0.3, 2.0, class_weights=torch.tensor([0.5, 2.0, 1.25]))
    signals = [TeacherSignal(teacher)] if taught else []
    found = []
    for chunked in (False, True):
        own = hidden.clone().requires_grad_()
        loss = (
            chunked_loss(own, Head(weight, None), signals, targets, at)
            if chunked
            else distillation_loss(own @ weight.T, signals, targets, at)
        )
        loss.total.backward()
        found.append((loss.total.detach(), loss.ce, own.grad))
    for plain, other in zip(*found, strict=True):
        assert plain is not None
        assert torch.allclose(plain, other, rtol=1e-12)
    known = targets >= 0
    rows = nn.functional.cross_entropy((hidden @ weight.T)[known], targets[known], reduction="none")
    assert at.class_weights is not None
    assert found[0][1] == pytest.approx(float((rows * at.class_weights.double()[targets[known]]).sum()))


@pytest.mark.parametrize("case", ["sentences", "images"])
@pytest.mark.parametrize("taught", [False, True])
def test_micro_batches_of_weighted_classes_equal_one_batch(
    case: str, taught: bool, request: pytest.FixtureRequest, training: Any, model_for: Any
) -> None:
    corpus: Corpus = request.getfixturevalue(case)
    weights = tuple(1.0 + 3.0 * number for number in range(corpus.info.classes))
    batches, objective = TrainingBatches(corpus, 8, 0), Objective.model_validate({"alpha": 0.4}) if taught else None

    def run(accumulation: int) -> list[Step]:
        steps = list[Step]()
        plan = Plan(training(accumulation=accumulation, steps=3), objective, 0, None, class_weights=weights)
        signals = live(model_for(corpus, seed=1), None) if taught else None
        train(model_for(corpus), batches, plan, signals=signals, on_step=steps.append)
        return steps

    whole, steps = run(1), run(4)
    for one, other in zip(whole, steps, strict=True):
        assert (other.loss, other.ce, other.kd, other.grad_norm) == pytest.approx((one.loss, one.ce, one.kd, one.grad_norm), rel=1e-5)
    batch = batches.at(0)
    with torch.no_grad():
        logits = model_for(corpus)(**batch.inputs).logits
    mean = nn.functional.cross_entropy(logits, batch.targets, weight=torch.tensor(weights))  # PyTorch's own weighted mean
    assert steps[0].ce == pytest.approx(float(mean), rel=1e-5)
