"""Laws of rows without label: the teacher's answers are their only target, in every objective and form of signal."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from conf.schema.stage.objective import EMBEDDING_ONLY, Objective, ObjectiveKind
from models.data.batches import IGNORE, UNLABELLED
from models.losses.chunked import Head, chunked_loss
from models.losses.loss import HiddenSignal, LossSums, Signal, SparseSignal, StepObjective, TeacherSignal, distillation_loss

KINDS = [kind for kind in get_args(ObjectiveKind) if kind not in EMBEDDING_ONLY]
LABELS = torch.tensor([1, UNLABELLED, 3, UNLABELLED, IGNORE, 0])
LABELLED, WITHOUT = LABELS >= 0, LABELS == UNLABELLED


def logits(seed: int, rows: int = 6, outputs: int = 5) -> Tensor:
    return torch.randn(rows, outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def at(alpha: float = 0.3, temperature: float = 2.0, **settings: Any) -> StepObjective:
    return StepObjective(Objective.model_validate(settings), alpha, temperature, taid_share=0.4)


def both(student: Tensor, teachers: list[Tensor], targets: Tensor, objective: StepObjective) -> tuple[LossSums, Tensor]:
    leaf = student.clone().requires_grad_()
    sums = distillation_loss(leaf, [TeacherSignal(teacher) for teacher in teachers], targets, objective)
    return sums, torch.autograd.grad(sums.total, leaf)[0]


@pytest.mark.parametrize("wrong", ["none", "correct-only", "confidence-gate", "correct"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_label_has_the_gradient_of_its_divergence_alone(kind: str, wrong: str) -> None:
    student, teacher = logits(0), logits(1)
    sums, gradient = both(student, [teacher], LABELS, at(kind=kind, wrong_teacher=wrong))
    first = torch.where(WITHOUT, teacher.argmax(-1), LABELS)  # the teacher's first choice stands in where a kind needs a label
    alone, expected = both(student[WITHOUT], [teacher[WITHOUT]], first[WITHOUT], at(1.0, kind=kind, wrong_teacher=wrong))
    labelled, rest = both(student[LABELLED], [teacher[LABELLED]], LABELS[LABELLED], at(kind=kind, wrong_teacher=wrong))
    assert torch.allclose(gradient[WITHOUT], expected, rtol=1e-12)
    assert torch.allclose(gradient[LABELLED], rest, rtol=1e-12)
    assert not gradient[LABELS == IGNORE].any()
    assert sums.total.item() == pytest.approx((labelled.total + alone.total).item(), rel=1e-12)
    assert float(sums.ce) == pytest.approx(float(labelled.ce), rel=1e-12)
    assert float(sums.kd) == pytest.approx(float(labelled.kd + alone.kd), rel=1e-12)
    assert float(sums.teacher_ce) == pytest.approx(float(labelled.teacher_ce), rel=1e-12)


@pytest.mark.parametrize("kind", ["forward-kl", "reverse-kl"])
def test_without_labels_the_gradient_is_the_closed_form(kind: str) -> None:
    student, teacher = logits(2), logits(3)
    _, gradient = both(student, [teacher], torch.full((6,), UNLABELLED), at(temperature=1.0, kind=kind))
    q, p = student.softmax(-1), teacher.softmax(-1)
    gap = q.log() - p.log()
    wanted = q - p if kind == "forward-kl" else q * (gap - (q * gap).sum(-1, keepdim=True))
    assert torch.allclose(gradient, wanted, atol=1e-12)


def test_several_teachers_share_a_row_without_label() -> None:
    student, first, second = logits(0), logits(1), logits(2)
    nothing = torch.full((6,), UNLABELLED)
    for combine in ("sum", "mean"):
        _, gradient = both(student, [first, second], nothing, at(temperature=1.0, combine=combine))
        wanted = student.softmax(-1) - (first.softmax(-1) + second.softmax(-1)) / 2
        assert torch.allclose(gradient, wanted, atol=1e-12)


def test_without_a_teacher_such_a_row_does_not_count() -> None:
    student = logits(0)
    sums = distillation_loss(student, [], LABELS, at())
    assert sums.total.item() == distillation_loss(student[LABELLED], [], LABELS[LABELLED], at()).total.item()


def sparse(teacher: Tensor, kept: int = 2) -> SparseSignal:
    log_p = teacher.log_softmax(-1)
    listed = log_p.topk(kept)
    residual = (1 - listed.values.exp().sum(-1)).clamp(min=1e-12).log()
    return SparseSignal(listed.indices, listed.values, residual)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("form", ["dense", "hidden", "sparse"])
def test_chunks_give_value_and_gradient_of_the_plain_loss(form: str, temperature: float) -> None:
    hidden, weight, teacher = logits(4, 6, 3).requires_grad_(), logits(5, 5, 3).requires_grad_(), logits(6, 6, 3)
    head = logits(7, 5, 3)
    signal: Signal = HiddenSignal(teacher, head, None) if form == "hidden" else TeacherSignal(teacher @ head.T)
    signal = sparse(teacher @ head.T) if form == "sparse" else signal
    plain = distillation_loss(hidden @ weight.T, [signal], LABELS, at(temperature=temperature))
    expected = torch.autograd.grad(plain.total, (hidden, weight))
    chunked = chunked_loss(hidden, Head(weight, None), [signal], LABELS, at(temperature=temperature), chunk=2)
    found = torch.autograd.grad(chunked.total, (hidden, weight))
    for one, other in zip((*plain, *expected), (*chunked, *found), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, equal_nan=True)
