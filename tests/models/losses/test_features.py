"""Laws and golden figures of feature losses and their projectors."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conf.errors import UserError
from conf.schema.stage.objective import Feature, Objective
from conf.schema.stage.training import Training
from models.data.batches import IGNORE, TrainingBatches
from models.data.corpus import Corpus
from models.losses.features import Features, hidden_loss, relation_loss
from models.signals.sources import live
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, train

pytestmark = pytest.mark.thorough

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]
CASES = [("prose", "hidden", "cosine"), ("images", "hidden", "mse"), ("images", "minilm", "cosine"), ("sentences", "minilm", "cosine")]


def test_hidden_loss_by_hand() -> None:
    one, other = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[6.0, 8.0], [0.0, 2.0]])
    assert hidden_loss(one, other, "cosine").tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert hidden_loss(one, -one, "cosine").tolist() == pytest.approx([2.0, 2.0])
    assert hidden_loss(one, other, "mse").tolist() == [12.5, 2.5]
    assert not hidden_loss(one, one, "mse").any()


def test_relation_loss_by_hand_and_its_laws() -> None:
    # One head of one feature, two positions: scores x_i y_j; for the teacher x = y = (0, 1): rows (0, 0) and (0, 1).
    teacher = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    student = torch.zeros(1, 2, 1, dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    found = relation_loss((student, student), (teacher, teacher), 1, mask)
    p = math.e / (1 + math.e)
    assert found[0].tolist() == pytest.approx([0.0, p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))], rel=1e-12, abs=1e-12)
    torch.manual_seed(0)
    x, y, wide = torch.randn(2, 5, 8).double(), torch.randn(2, 5, 8).double(), torch.randn(2, 5, 12).double()
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert not relation_loss((x, y), (x, y), 4, mask).any()
    assert (relation_loss((x, y), (wide, wide), 4, mask) >= 0).all()
    mask[0, 3:] = False
    cut = relation_loss((x[:1, :3], y[:1, :3]), (wide[:1, :3], wide[:1, :3]), 4, mask[:1, :3])
    assert torch.allclose(relation_loss((x, y), (wide, wide), 4, mask)[0, :3], cut[0])


def test_gradcheck() -> None:
    torch.manual_seed(0)
    x, y, t = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(3))
    x.requires_grad_()
    y.requires_grad_()
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda a, b: relation_loss((a, b), (t, t), 2, mask), (x, y))
    for form in ("cosine", "mse"):
        assert torch.autograd.gradcheck(lambda a, f=form: hidden_loss(a, t, f), (x,))


def plan_of(corpus: Corpus, training: Training, kind: str, form: str) -> Plan:
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    objective = Objective.model_validate({"alpha": 0.5, "features": [{"kind": kind, "weight": 2.0, "form": form}]})
    return Plan(training, objective, 0, vocabulary, "cpu", "fp32")


def lesson(corpus: Corpus, plan: Plan, model_for: Make, **more: Any) -> tuple[nn.Module, Features, list[Step]]:
    assert plan.objective is not None
    student, teacher = model_for(corpus), model_for(corpus, seed=1, hidden=32, layers=2)
    features, steps = Features(plan.objective.features, student, teacher, 0), list[Step]()
    more.setdefault("on_step", steps.append)
    train(student, TrainingBatches(corpus, 8, 0), plan, signals=live(teacher, plan.vocabulary), features=features, **more)
    return student, features, steps


@pytest.mark.parametrize(("case", "kind", "form"), CASES)
def test_the_projector_is_trained_and_not_saved_with_the_student(
    case: str, kind: str, form: str, request: pytest.FixtureRequest, training: Settings, model_for: Make
) -> None:
    corpus: Corpus = request.getfixturevalue(case)
    plan = plan_of(corpus, training(steps=30, learning_rate=1e-2), kind, form)
    student, features, steps = lesson(corpus, plan, model_for)
    apart = [step.loss - 0.5 * step.ce - 0.5 * step.kd for step in steps]
    assert apart[0] > 0
    assert apart[-1] < 0.9 * apart[0]
    first = Features(plan.objective.features if plan.objective else (), model_for(corpus), model_for(corpus, hidden=32), 0)
    assert len(list(features.parameters())) == (kind == "hidden")
    assert all(not torch.equal(a, b) for a, b in zip(features.parameters(), first.parameters(), strict=True))
    assert set(student.state_dict()) == set(model_for(corpus).state_dict())


def test_the_loss_is_a_mean_over_the_steps_valid_rows(prose: Corpus, training: Settings, model_for: Make) -> None:
    class Padded(TrainingBatches):
        def at(self, step: int) -> Any:
            batch = super().at(step)
            batch.targets[:3, 5:] = IGNORE
            return batch

    found = []
    for accumulation in (1, 4):
        plan = plan_of(prose, training(steps=3, accumulation=accumulation), "hidden", "cosine")
        assert plan.objective is not None
        student, teacher, steps = model_for(prose), model_for(prose, seed=1, hidden=32), list[Step]()
        features = Features(plan.objective.features, student, teacher, 0)
        train(student, Padded(prose, 8, 0), plan, signals=live(teacher, 258), features=features, on_step=steps.append)
        found.append([(step.loss, step.grad_norm) for step in steps])
    for one, other in zip(*found, strict=True):
        assert other == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("kind", ["hidden", "taid"])
def test_a_resumed_training_ends_with_the_same_weights(
    kind: str, prose: Corpus, training: Settings, model_for: Make, tmp_path: Path
) -> None:
    plan = plan_of(prose, training(steps=8, checkpoint_every=3), "hidden", "mse")
    if kind == "taid":
        objective = Objective.model_validate({"kind": "taid", "features": [Feature().model_dump()]})
        plan = Plan(plan.training, objective, 0, plan.vocabulary, "cpu", "fp32")
    whole, own, _ = lesson(prose, plan, model_for, checkpoints=Checkpoints(tmp_path / "whole"))

    def interrupt(step: Step) -> None:
        if step.step == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        lesson(prose, plan, model_for, checkpoints=Checkpoints(tmp_path / "cut"), on_step=interrupt)
    again, other, steps = lesson(prose, plan, model_for, checkpoints=Checkpoints(tmp_path / "cut"))
    assert steps[0].step == 4
    for one, two in zip((*whole.parameters(), *own.parameters()), (*again.parameters(), *other.parameters()), strict=True):
        assert torch.equal(one, two)


def test_models_that_do_not_fit_are_refused(prose: Corpus, images: Corpus, sentences: Corpus, model_for: Make) -> None:
    minilm = (Feature(kind="minilm"),)
    llama = model_for(sentences, family="llama")
    with pytest.raises(UserError, match=r"objective\.features\.kind: got 'minilm'; allowed: encoders"):
        Features(minilm, model_for(sentences), llama, 0)
    odd = model_for(images, hidden=18)
    cast_heads: Any = odd
    cast_heads.config.num_attention_heads = 4
    with pytest.raises(UserError, match="whose width the student's 4 heads divide"):
        Features(minilm, odd, model_for(images, hidden=32), 0)


def test_hidden_states_of_other_lengths_are_refused(images: Corpus, model_for: Make) -> None:
    features = Features((Feature(),), model_for(images), model_for(images, hidden=32), 0)
    student, teacher = features._seen
    student["hidden"], teacher["hidden"] = torch.zeros(2, 5, 16), torch.zeros(2, 17, 32)
    batch = TrainingBatches(images, 2, 0).at(0)
    with pytest.raises(UserError, match="the teacher has 17, the student 5"):
        features.loss(batch)


def test_the_feature_is_tensors_mean_per_example(images: Corpus, model_for: Make) -> None:
    features = Features((Feature(form="mse", weight=3.0),), model_for(images), model_for(images), 0)
    with torch.no_grad():
        features.projectors[0].weight.copy_(torch.eye(16))
    states: list[Tensor] = [torch.randn(4, 5, 16), torch.randn(4, 5, 16)]
    for seen, state in zip(features._seen, states, strict=True):
        seen["hidden"] = state
    batch = TrainingBatches(images, 4, 0).at(0)
    assert float(features.loss(batch).detach()) == pytest.approx(3 * 4 * float((states[0] - states[1]).pow(2).mean()), rel=1e-5)
