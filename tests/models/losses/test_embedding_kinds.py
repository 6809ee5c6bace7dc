"""Laws of the objectives of embeddings, and of their place in the loop's loss."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from conf.errors import UserError
from conf.schema.stage.objective import EMBEDDING_ONLY, Objective
from conf.schema.stage.training import Training
from models.data.batches import UNLABELLED
from models.losses.divergences import similarities
from models.losses.loss import StepObjective, TeacherSignal, distillation_loss
from models.training.step import check_whole_batches


def loss(kind: str, teacher: Tensor, student: Tensor, temperature: float = 1.0, alpha: float = 1.0) -> Tensor:
    at = StepObjective(Objective.model_validate({"kind": kind}), alpha, temperature)
    return distillation_loss(student, [TeacherSignal(teacher)], torch.full((len(teacher),), UNLABELLED), at).total


def drawn(rows: int = 6, features: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, features, dtype=torch.float64, generator=generator) for _ in range(2))  # pyright: ignore


@pytest.mark.parametrize("kind", EMBEDDING_ONLY)
def test_zero_at_equality_above_it_else_and_a_right_gradient(kind: str) -> None:
    teacher, student = drawn()
    assert float(loss(kind, teacher, teacher)) == pytest.approx(0, abs=1e-12)
    assert float(loss(kind, teacher, student)) > 0
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(kind, teacher, z, 0.2), (student,))


@pytest.mark.parametrize("kind", EMBEDDING_ONLY)
def test_alpha_does_not_matter_without_labels(kind: str) -> None:
    teacher, student = drawn()
    assert float(loss(kind, teacher, student, alpha=0.9)) == float(loss(kind, teacher, student))


def test_values_by_plain_formulas() -> None:
    teacher, student = drawn()
    cosine = (teacher * student).sum(1) / teacher.norm(dim=1) / student.norm(dim=1)
    assert float(loss("cosine", teacher, student)) == pytest.approx(float((1 - cosine).sum()), rel=1e-12)
    assert float(loss("mse", teacher, student)) == pytest.approx(float(functional.mse_loss(student, teacher)) * 6, rel=1e-12)
    expected, t = 0.0, 0.3
    for row in range(6):
        others = [other for other in range(6) if other != row]
        p, q = (
            torch.stack([functional.cosine_similarity(each[row], each[other], dim=0) for other in others]).div(t).softmax(0)
            for each in (teacher, student)
        )
        expected += t**2 * float((p * (p / q).log()).sum())
    assert float(loss("similarity-kl", teacher, student, t)) == pytest.approx(expected, rel=1e-10)


def test_similarities_need_neither_the_same_width_nor_the_same_rotation() -> None:
    teacher, _ = drawn()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    assert float(loss("similarity-kl", teacher, 3 * teacher @ rotation, 0.1)) == pytest.approx(0, abs=1e-12)
    wider = torch.cat([teacher, torch.zeros(6, 2, dtype=torch.float64)], dim=1)
    assert float(loss("similarity-kl", teacher, wider, 0.1)) == pytest.approx(0, abs=1e-12)
    assert torch.isinf(similarities(teacher).diagonal()).all()


@pytest.mark.parametrize(
    ("accumulation", "processes", "words"), [(2, 1, "accumulation: got 2; allowed: 1"), (1, 2, "workers: got 2; allowed: 1,")]
)
def test_rows_that_are_compared_stay_in_one_batch(accumulation: int, processes: int, words: str) -> None:
    training = Training(steps=1, batch_size=4, accumulation=accumulation)
    with pytest.raises(UserError, match=words):
        check_whole_batches(Objective(kind="similarity-kl"), training, processes)
    check_whole_batches(Objective(kind="cosine"), training, processes)
    check_whole_batches(None, training, processes)
