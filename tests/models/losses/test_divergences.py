import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor
from torch.nn import functional

from conf.schema.stage.objective import Objective
from models.data.batches import IGNORE, Batch
from models.losses.loss import StepObjective, TeacherSignal, cross_entropy, distillation_loss, forward_kl
from models.signals.sources import uniform

REAL = st.floats(-8, 8, width=64)
SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 9))
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def logits(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    return arrays.arrays(np.float64, shape, elements=REAL).map(torch.from_numpy)


PAIRS = SHAPES.flatmap(lambda shape: st.tuples(logits(shape), logits(shape)))
LABELLED = SHAPES.flatmap(
    lambda shape: st.tuples(logits(shape), logits(shape), arrays.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
).map(lambda values: (values[0], values[1], torch.from_numpy(values[2])))


def loss(teacher: Tensor | None, student: Tensor, targets: Tensor, alpha: float = 0.7, temperature: float = 2.0):
    signals = [] if teacher is None else [TeacherSignal(teacher)]
    return distillation_loss(student, signals, targets, StepObjective(Objective(), alpha, temperature))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@QUICK
@given(PAIRS)
def test_kl_of_a_distribution_to_itself_is_zero(pair: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(forward_kl(pair[0], pair[0]), torch.zeros(len(pair[0]), dtype=torch.float64))


@QUICK
@given(PAIRS)
def test_kl_is_never_negative_and_zero_only_for_equal_distributions(pair: tuple[Tensor, Tensor]) -> None:
    teacher, student = pair
    divergence = forward_kl(teacher, student)
    assert (divergence >= -1e-12).all()
    # Pinsker: KL >= 2 TV^2.
    distance = 0.5 * (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1)
    assert (divergence >= 2 * distance**2 - 1e-12).all()


@QUICK
@given(PAIRS, st.floats(-50, 50), st.floats(-50, 50))
def test_kl_does_not_see_a_constant_added_to_either_logits(pair: tuple[Tensor, Tensor], a: float, b: float) -> None:
    teacher, student = pair
    assert close(forward_kl(teacher + a, student + b), forward_kl(teacher, student), 1e-9)


@QUICK
@given(PAIRS)
def test_kl_equals_torch_and_the_formula(pair: tuple[Tensor, Tensor]) -> None:
    teacher, student = pair
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    theirs = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    assert close(forward_kl(teacher, student), theirs)
    p, q = teacher.softmax(-1), student.softmax(-1)
    assert close(forward_kl(teacher, student), (p * (p / q).log()).sum(-1), 1e-8)


def test_kl_by_hand() -> None:
    half, quarter = torch.tensor([0.5, 0.5]).log().double(), torch.tensor([0.25, 0.75]).log().double()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(forward_kl(half, quarter)) == pytest.approx(expected, rel=1e-6)


@QUICK
@given(LABELLED)
def test_cross_entropy_equals_torch(labelled: tuple[Tensor, Tensor, Tensor]) -> None:
    student, _, targets = labelled
    assert torch.equal(cross_entropy(student, targets), functional.cross_entropy(student, targets, reduction="none"))
    assert close(cross_entropy(student[None], targets[None])[0], cross_entropy(student, targets))
    assert cross_entropy(student[0], targets[0]).shape == ()


@QUICK
@given(PAIRS)
def test_gradient_at_temperature_one_is_q_minus_p(pair: tuple[Tensor, Tensor]) -> None:
    teacher, student = pair[0], pair[1].clone().requires_grad_()
    forward_kl(teacher, student).sum().backward()
    assert student.grad is not None
    assert close(student.grad, student.detach().softmax(-1) - teacher.softmax(-1))


@QUICK
@given(PAIRS)
def test_at_high_temperature_the_loss_tends_to_the_error_of_centred_logits(pair: tuple[Tensor, Tensor]) -> None:
    teacher, student = pair
    vocabulary = student.shape[-1]
    gap = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = gap.pow(2).sum(-1) / (2 * vocabulary)
    errors = []
    for temperature in (1e3, 1e4, 1e5):  # at 1e2 the second order of the remainder can outweigh the first
        scaled = temperature**2 * forward_kl(teacher / temperature, student / temperature)
        errors.append(float((scaled - limit).abs().max()))
    # The remainder is of order 1/T: ten times the temperature, a tenth of the error, down to rounding.
    assert errors[1] <= 0.2 * errors[0] + 1e-4
    assert errors[2] <= 0.2 * errors[1] + 1e-4
    assert errors[2] < 1e-3 * max(1.0, float(limit.max()))


@QUICK
@given(PAIRS, st.floats(1, 100))
def test_the_gradients_size_does_not_fall_with_the_temperature(pair: tuple[Tensor, Tensor], temperature: float) -> None:
    teacher, student = pair[0], pair[1].clone().requires_grad_()
    targets = torch.zeros(len(student), dtype=torch.int64)
    loss(teacher, student, targets, alpha=1.0, temperature=temperature).total.backward()
    assert student.grad is not None
    # softmax is 1/2-Lipschitz, so |T (q - p)| <= |z_s - z_t| / 2 for every T; without T^2 it would fall as 1 / T^2.
    assert (student.grad.norm(dim=-1) <= 0.5 * (student.detach() - teacher).norm(dim=-1) + 1e-9).all()


def test_the_gradient_at_high_temperature_is_that_of_the_limit() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    loss(teacher, student, torch.zeros(3, dtype=torch.int64), alpha=1.0, temperature=1e4).total.backward()
    gap = student.detach() - teacher
    assert student.grad is not None
    assert torch.allclose(student.grad, (gap - gap.mean(-1, keepdim=True)) / 7, rtol=2e-3, atol=1e-4)


@QUICK
@given(LABELLED, st.integers(1, 5), st.randoms(use_true_random=False))
def test_padding_changes_nothing(labelled: tuple[Tensor, Tensor, Tensor], extra: int, random) -> None:
    student, teacher, targets = labelled
    plain = student.clone().requires_grad_()
    sums = loss(teacher, plain, targets)
    sums.total.backward()
    # Padded positions may hold anything, NaN included.
    rubbish = torch.full((extra, student.shape[1]), random.choice([0.0, 1e6, math.nan]), dtype=torch.float64)
    order = list(range(len(student) + extra))
    random.shuffle(order)
    padded = torch.cat([student, rubbish])[order].clone().requires_grad_()
    marked = torch.cat([targets, torch.full((extra,), IGNORE)])[order]
    again = loss(torch.cat([teacher, rubbish])[order], padded, marked)
    again.total.backward()
    for before, after in zip(sums, again, strict=True):
        assert close(before.detach(), after.detach())
    assert padded.grad is not None
    assert plain.grad is not None
    assert torch.equal(padded.grad[marked == IGNORE], torch.zeros_like(rubbish))
    assert close(padded.grad, torch.cat([plain.grad, torch.zeros_like(rubbish)])[order])


def test_only_padding_gives_zero_and_no_nan() -> None:
    student = torch.randn(3, 4, requires_grad=True)
    sums = loss(torch.randn(3, 4), student, torch.full((3,), IGNORE))
    sums.total.backward()
    assert [float(value.detach()) for value in sums] == [0.0] * 4
    assert student.grad is not None
    assert not student.grad.any()


@QUICK
@given(LABELLED, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_the_vocabulary_changes_nothing(labelled: tuple[Tensor, Tensor, Tensor], random) -> None:
    student, teacher, targets = labelled
    rows, ids = list(range(student.shape[0])), list(range(student.shape[1]))
    random.shuffle(rows)
    random.shuffle(ids)
    moved = torch.tensor([ids.index(int(target)) for target in targets])
    before = loss(teacher, student, targets)
    after = loss(teacher[rows][:, ids], student[rows][:, ids], moved[rows])
    for one, other in zip(before, after, strict=True):
        assert close(one, other, 1e-9)


@QUICK
@given(LABELLED, st.floats(0.5, 10))
def test_alpha_weighs_the_teacher(labelled: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    student, teacher, targets = labelled
    ce = functional.cross_entropy(student, targets, reduction="sum")
    kd = temperature**2 * functional.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1), log_target=True, reduction="sum"
    )
    assert close(loss(teacher, student, targets, 0.0, temperature).total, ce)
    assert close(loss(None, student, targets, 0.9, temperature).total, ce)
    assert close(loss(teacher, student, targets, 1.0, temperature).total, kd, 1e-9)
    mixed = loss(teacher, student, targets, 0.3, temperature)
    assert close(mixed.total, 0.7 * ce + 0.3 * kd, 1e-9)
    assert close(mixed.teacher_ce, functional.cross_entropy(teacher, targets, reduction="sum"))


@QUICK
@given(PAIRS, st.data())
def test_an_id_that_the_teacher_rules_out_costs_nothing(pair: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    teacher, student = pair[0].clone(), pair[1].clone().requires_grad_()
    vocabulary = teacher.shape[1]
    banned = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=vocabulary - 1, unique=True))
    assume(len(banned) < vocabulary)
    teacher[:, banned] = -torch.inf
    divergence = forward_kl(teacher, student)
    divergence.sum().backward()
    p = teacher.softmax(-1)
    entropy = -torch.special.xlogy(p, p).sum(-1)
    crossed = -(p * student.detach().log_softmax(-1)).sum(-1)
    assert close(divergence.detach(), crossed - entropy, 1e-9)
    assert student.grad is not None
    assert close(student.grad, student.detach().softmax(-1) - p)


def test_an_id_that_both_rule_out_costs_nothing() -> None:
    teacher, student = torch.randn(2, 5), torch.randn(2, 5)
    cut = forward_kl(teacher[:, :4], student[:, :4])
    teacher[:, 4] = student[:, 4] = -torch.inf
    assert torch.allclose(forward_kl(teacher, student), cut, atol=1e-6)


def test_gradcheck_of_the_divergence_and_of_the_loss() -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(forward_kl, (teacher, student))
    fixed, targets = teacher.detach(), torch.tensor([1, IGNORE, 5, 0])
    for alpha, temperature in ((0.0, 1.0), (0.5, 1.0), (0.7, 3.0), (1.0, 0.5)):
        assert torch.autograd.gradcheck(lambda z, a=alpha, t=temperature: loss(fixed, z, targets, a, t).total, (student,))


def test_half_precision_logits_are_judged_in_full_precision() -> None:
    torch.manual_seed(0)
    student, teacher, targets = torch.randn(6, 300).bfloat16(), torch.randn(6, 300).bfloat16(), torch.arange(6)
    for half, full in zip(loss(teacher, student, targets), loss(teacher.float(), student.float(), targets), strict=True):
        assert half.dtype == torch.float32
        assert torch.equal(half, full)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_a_null_teacher_smooths_the_labels_as_torch_does(smoothing: float) -> None:
    torch.manual_seed(0)
    student = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2, IGNORE, 1, 3])
    answer = uniform(5)(Batch({}, targets, targets))
    ours = distillation_loss(student, [answer], targets, StepObjective(Objective(), smoothing, 1.0)).total
    theirs = functional.cross_entropy(student, targets, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum")
    constant = 5 * smoothing * math.log(5)  # the entropy of the uniform answer, on five rows
    assert close(ours, theirs - constant, 1e-6)
    assert close(torch.autograd.grad(ours, student)[0], torch.autograd.grad(theirs, student)[0], 1e-6)
