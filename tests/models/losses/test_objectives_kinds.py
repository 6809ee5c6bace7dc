"""Laws, golden vectors and gradient checks of every divergence and control."""

import math
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from conf.schema.stage.objective import EMBEDDING_ONLY, Objective, ObjectiveKind
from models.data.batches import IGNORE
from models.losses import divergences as d
from models.losses.loss import DIVERGENCES, StepObjective, TeacherSignal, distillation_loss
from models.losses.schedules import kept_teachers
from models.losses.taid import Taid, advance
from models.losses.teacher_controls import log_mean, moved_to_label, teacher_weights

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REAL = st.floats(-8, 8, width=64)
KINDS = [kind for kind in get_args(ObjectiveKind) if kind not in EMBEDDING_ONLY]


def drawn(count: int) -> st.SearchStrategy[tuple[Tensor, ...]]:
    shapes = st.tuples(st.integers(1, 5), st.integers(2, 8))
    return shapes.flatmap(lambda shape: st.tuples(*[arrays.arrays(np.float64, shape, elements=REAL).map(torch.from_numpy)] * count))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def labels_of(logits: Tensor) -> Tensor:
    return torch.arange(len(logits)) % logits.shape[-1]


# V = 4, B = 2, L = 3. The expected figures come from numpy, below, and two of them were worked out by hand.
TEACHER = np.array([[[2, 1, 0, -1], [0, 0, 0, 0], [-1, 3, 1, 0]], [[1, 1, -2, 0], [4, 0, 0, 0], [0, -1, 2, 1]]], dtype=np.float64)
STUDENT = np.array([[[1, 1, 0, 0], [0, 1, 2, 3], [0, 2, 2, 0]], [[0, 2, -1, 0], [1, 0, 0, 0], [2, 1, 0, -1]]], dtype=np.float64)
LABELS = np.array([[0, 1, 1], [1, 2, 2]])


def soft(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


def numpy_value(kind: str, zt: np.ndarray, zs: np.ndarray) -> np.ndarray:
    p, q = soft(zt), soft(zs)
    if kind == "dkd":
        hot = np.eye(4)[LABELS]
        py, qy = (p * hot).sum(-1), (q * hot).sum(-1)
        target = numpy_kl(np.stack([py, 1 - py], -1), np.stack([qy, 1 - qy], -1))
        rest = [np.array([np.delete(v[b, t], LABELS[b, t]) for b in range(2) for t in range(3)]) for v in (p, q)]
        rest = [v / v.sum(-1, keepdims=True) for v in rest]
        return target + 8 * numpy_kl(*rest).reshape(2, 3)
    if kind == "logit-mse":
        gap = zs - zt
        return ((gap - gap.mean(-1, keepdims=True)) ** 2).mean(-1)
    if kind == "taid":
        return numpy_kl(soft(0.6 * zs + 0.4 * zt), q)
    m = 0.5 * p + 0.5 * q
    return {
        "forward-kl": numpy_kl(p, q),
        "reverse-kl": numpy_kl(q, p),
        "jsd": 0.5 * numpy_kl(p, m) + 0.5 * numpy_kl(q, m),
        "skew-kl": numpy_kl(p, 0.1 * p + 0.9 * q),
        "skew-reverse-kl": numpy_kl(q, 0.9 * p + 0.1 * q),
        "tvd": 0.5 * np.abs(p - q).sum(-1),
    }[kind]


def objective(kind: str, **more: Any) -> Objective:
    return Objective.model_validate({"kind": kind, **more})


def whole(kind: str, teacher: Tensor, student: Tensor, targets: Tensor, alpha: float = 1.0, temperature: float = 1.0, **more: Any):
    at = StepObjective(objective(kind, **more), alpha, temperature, taid_share=0.4)
    return distillation_loss(student, [TeacherSignal(teacher)], targets, at)


@pytest.mark.parametrize("kind", KINDS)
def test_golden_vector_of_every_kind(kind: str) -> None:
    zt, zs, y = torch.from_numpy(TEACHER).flatten(0, 1), torch.from_numpy(STUDENT).flatten(0, 1), torch.from_numpy(LABELS).flatten()
    expected = numpy_value(kind, TEACHER, STUDENT)
    assert float(whole(kind, zt, zs, y).kd) == pytest.approx(expected.sum(), rel=1e-12)
    for row in range(6):  # a sum over V for each position, not only altogether
        assert float(whole(kind, zt[row : row + 1], zs[row : row + 1], y[row : row + 1]).kd) == pytest.approx(
            expected.flatten()[row], rel=1e-11
        )


def test_two_figures_by_hand() -> None:
    uniform, ramp = torch.from_numpy(TEACHER[0, 1]), torch.from_numpy(STUDENT[0, 1])
    # p = 1/4 each: KL(p || q) = -log 4 - mean(z_s) + lse(z_s), of z_s = 0, 1, 2, 3.
    lse = math.log(1 + math.e + math.e**2 + math.e**3)
    assert float(d.forward_kl(uniform, ramp)) == pytest.approx(-math.log(4) - 1.5 + lse, rel=1e-12)
    # 1/2 sum |1/4 - q|: q exceeds 1/4 for the last id alone.
    assert float(d.tvd(uniform, ramp)) == pytest.approx(math.e**3 / math.exp(lse) - 0.25, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(pair=drawn(2))
def test_never_negative_and_zero_at_equality(kind: str, pair: tuple[Tensor, Tensor]) -> None:
    teacher, student = pair
    targets, settings_ = labels_of(teacher), objective(kind)
    values = DIVERGENCES[kind](teacher, student, targets, settings_)
    assert values.shape == targets.shape
    assert (values >= -1e-12).all()
    assert DIVERGENCES[kind](teacher, teacher + 3.0, targets, settings_).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_every_kind(kind: str) -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, IGNORE, 4, 0])

    def total(z: Tensor, **more: Any) -> Tensor:
        return whole(kind, teacher, z, targets, 0.7, 2.0, **more).total

    # TAID's teacher holds the student fixed, which finite differences do not.
    if kind != "taid":
        assert torch.autograd.gradcheck(total, (student,))
    if kind not in ("taid", "logit-mse"):
        for control in ("correct-only", "confidence-gate", "correct"):
            assert torch.autograd.gradcheck(lambda z, c=control: total(z, wrong_teacher=c, standardize=True), (student,))


@QUICK
@given(drawn(2), st.floats(0.01, 0.99))
def test_bounds(pair: tuple[Tensor, Tensor], share: float) -> None:
    entropy = -share * math.log(share) - (1 - share) * math.log1p(-share)
    assert (d.jsd(*pair, share) <= entropy + 1e-9).all()
    assert (d.skew_kl(*pair, share) <= -math.log(share) + 1e-9).all()
    assert (d.skew_reverse_kl(*pair, share) <= -math.log(share) + 1e-9).all()
    assert (d.tvd(*pair) <= 1 + 1e-12).all()
    assert (2 * d.tvd(*pair) ** 2 <= d.reverse_kl(*pair) + 1e-9).all()


@QUICK
@given(drawn(2))
def test_special_cases_and_symmetries(pair: tuple[Tensor, Tensor]) -> None:
    t, s = pair
    assert torch.equal(d.jsd(t, s, 0.0), d.forward_kl(t, s))
    assert torch.equal(d.jsd(t, s, 1.0), d.reverse_kl(t, s))
    assert close(d.jsd(t, s, 0.5), d.jsd(s, t, 0.5))
    assert close(d.jsd(t, s, 0.3), d.jsd(s, t, 0.7))
    mild = t / 8, s / 8  # the limit is slow where q is small
    assert close(d.jsd(*mild, 1e-6) / 1e-6, d.forward_kl(*mild), 1e-4)
    assert torch.equal(d.skew_kl(t, s, 0.0), d.forward_kl(t, s))
    assert torch.equal(d.skew_reverse_kl(t, s, 0.0), d.reverse_kl(t, s))
    assert torch.equal(d.reverse_kl(t, s), d.forward_kl(s, t))


@QUICK
@given(drawn(2))
def test_kl_is_tckd_plus_its_weighted_nckd(pair: tuple[Tensor, Tensor]) -> None:
    t, s = pair
    y = labels_of(t)
    others = 1 - t.softmax(-1).gather(-1, y[:, None])[:, 0]
    assert close(d.dkd(t, s, y, 1.0, 0.0) + others * d.dkd(t, s, y, 0.0, 1.0), d.forward_kl(t, s), 1e-7)


def test_gradient_of_dkd_is_finite_where_the_student_is_sure() -> None:
    student = torch.tensor([[40.0, 0.0, -40.0]], requires_grad=True)
    d.dkd(torch.randn(1, 3), student, torch.tensor([0]), 1.0, 8.0).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@QUICK
@given(drawn(2), st.floats(0.1, 20), st.floats(-9, 9))
def test_standardized_sees_neither_scale_nor_offset(pair: tuple[Tensor, Tensor], scale: float, offset: float) -> None:
    spread = pair[0] + torch.arange(pair[0].shape[-1])  # a row of equal logits has no scale
    if spread.std(-1).min() > 1e-2:
        assert close(d.standardized(scale * spread + offset), d.standardized(spread), 1e-3)
        assert close(d.standardized(spread).mean(-1), torch.zeros(len(spread), dtype=torch.float64), 1e-6)


def test_the_square_of_the_temperature_belongs_to_kl_forms_alone() -> None:
    teacher, student, targets = torch.randn(3, 5).double(), torch.randn(3, 5).double(), torch.tensor([0, 1, 2])
    for kind in KINDS:
        warm = float(whole(kind, teacher, student, targets, temperature=3.0).kd)
        if kind == "taid":
            continue
        if kind == "logit-mse":
            assert warm == pytest.approx(float(d.logit_mse(teacher, student).sum()))
            continue
        plain = float(DIVERGENCES[kind](teacher / 3, student / 3, targets, objective(kind)).sum())
        assert warm == pytest.approx(plain * (1 if kind == "tvd" else 9)), kind


def test_taids_interpolated_teacher_carries_no_gradient() -> None:
    teacher, student = torch.randn(3, 5).double(), torch.randn(3, 5).double().requires_grad_()
    whole("taid", teacher, student, torch.tensor([0, 1, 2])).total.backward()
    fixed = student.detach()
    between = (0.6 * fixed + 0.4 * teacher).softmax(-1)
    assert student.grad is not None
    assert close(student.grad, fixed.softmax(-1) - between)


def test_taids_share_grows_from_its_start_to_one_and_faster_while_the_loss_falls() -> None:
    def course(losses: list[float]) -> list[float]:
        state, shares = Taid(), []
        for step, value in enumerate(losses, 1):
            state = advance(state, value, step, 100_000)
            shares.append(state.share)
        return shares

    falling, rising = course([2.0 * 0.99**i for i in range(500)]), course([0.1 * 1.01**i for i in range(500)])
    for shares in (falling, rising):
        assert all(0.4 <= a <= b <= 1 for a, b in pairwise(shares))
    assert falling[-1] > rising[-1]
    assert advance(Taid(0.9, 0.0, 1.0), 1.0, 100, 100).share == 1.0
    # By hand: no change, so momentum 0 and sigmoid 1/2: 0.4 + 5e-4 * 0.6 / 2.
    assert advance(Taid(0.4, 0.0, 1.0), 1.0, 1, 10**9).share == pytest.approx(0.40015)


@QUICK
@given(drawn(2), st.floats(0, 0.9))
def test_the_label_leads_by_the_margin_where_the_teacher_was_wrong(pair: tuple[Tensor, Tensor], margin: float) -> None:
    teacher = pair[0]
    y, p = labels_of(teacher), teacher.softmax(-1)
    moved = moved_to_label(teacher, y, margin).exp()
    assert close(moved.sum(-1), torch.ones(len(p), dtype=torch.float64))
    wrong = p.argmax(-1) != y
    assert close(moved[~wrong], p[~wrong])
    first = p.argmax(-1, keepdim=True)
    lead = (moved.gather(-1, y[:, None]) - moved.gather(-1, first))[wrong, 0]
    assert close(lead, torch.full_like(lead, margin))


def test_rows_are_weighed_by_the_teachers_probability_of_the_label() -> None:
    teacher, student, y = torch.tensor([[2.0, 0, 0], [0, 1, 3]]), torch.zeros(2, 3), torch.tensor([0, 1])
    assert teacher_weights(teacher, y, "none") is None
    only = teacher_weights(teacher, y, "correct-only")
    gate = teacher_weights(teacher, y, "confidence-gate")
    assert only is not None
    assert gate is not None
    assert only.tolist() == [1.0, 0.0]
    assert gate.tolist() == pytest.approx([math.e**2 / (math.e**2 + 2), math.e / (1 + math.e + math.e**3)])
    values = d.forward_kl(teacher, student)
    found = [float(whole("forward-kl", teacher, student, y, wrong_teacher=each).kd) for each in ("correct-only", "confidence-gate")]
    assert found == pytest.approx([float(values[0]), float((gate * values).sum())])


@QUICK
@given(drawn(3), st.floats(0.5, 4))
def test_several_teachers_share_alpha(three: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    a, b, student = three
    y, at = labels_of(a), StepObjective(Objective(), 0.8, temperature)
    both = distillation_loss(student, [TeacherSignal(a), TeacherSignal(b)], y, at)
    single = [distillation_loss(student, [TeacherSignal(each)], y, at) for each in (a, b)]
    assert close(both.kd, (single[0].kd + single[1].kd) / 2)
    assert close(both.teacher_ce, (single[0].teacher_ce + single[1].teacher_ce) / 2)
    mean = StepObjective(objective("forward-kl", combine="mean"), 0.8, temperature)
    mixed = distillation_loss(student, [TeacherSignal(a), TeacherSignal(b)], y, mean)
    p = (a / temperature).softmax(-1) / 2 + (b / temperature).softmax(-1) / 2
    assert close(mixed.kd, temperature**2 * d.forward_kl(p.log(), student / temperature).sum(), 1e-8)
    assert mixed.kd <= both.kd + 1e-9  # KL is convex
    assert close(log_mean([a, a]), a.log_softmax(-1))


def test_teachers_are_dropped_as_a_function_of_seed_and_step() -> None:
    assert kept_teachers(1, 0.1, 0, 5) == [0]
    drawn_ = [kept_teachers(3, 0.75, 7, step) for step in range(4000)]
    assert drawn_ == [kept_teachers(3, 0.75, 7, step) for step in range(4000)]
    assert drawn_ != [kept_teachers(3, 0.75, 8, step) for step in range(4000)]
    assert all(drawn_)
    # Kept with 0.75, and one of three where all are dropped (1/64).
    for index in range(3):
        assert np.mean([index in kept for kept in drawn_]) == pytest.approx(0.75 + 1 / 192, abs=0.03)
    assert np.mean([len(kept) == 3 for kept in drawn_]) == pytest.approx(27 / 64, abs=0.03)


def test_every_kind_in_the_settings_has_its_divergence() -> None:
    assert set(DIVERGENCES) == {*KINDS, *EMBEDDING_ONLY}
