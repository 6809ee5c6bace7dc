"""Laws of the loss against sparse signals."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from conf.errors import UserError
from conf.schema.stage.compatibility import check_objective
from conf.schema.stage.objective import DENSE_ONLY, Objective, ObjectiveKind
from models.losses.divergences import WITHOUT_SQUARE
from models.losses.loss import DIVERGENCES, StepObjective, TeacherSignal, distillation_loss, forward_kl
from models.losses.sparse import SparseSignal, sparse_forward_kl, sparse_gradient_, tempered

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
REAL = st.floats(-6, 6, width=64)
KINDS = [kind for kind in get_args(ObjectiveKind) if kind not in DENSE_ONLY]
SHAPES = st.tuples(st.integers(1, 5), st.integers(3, 9))
PAIRS = SHAPES.flatmap(lambda s: st.tuples(*[arrays.arrays(np.float64, s, elements=REAL).map(torch.from_numpy)] * 2))


def top(teacher: Tensor, k: int) -> SparseSignal:
    values, ids = teacher.log_softmax(-1).topk(k, -1)
    listed = torch.zeros_like(teacher, dtype=torch.bool).scatter(-1, ids, True)
    return SparseSignal(ids, values, teacher.log_softmax(-1).masked_fill(listed, -torch.inf).logsumexp(-1))


def sampled(teacher: Tensor, draws: int, generator: torch.Generator) -> SparseSignal:
    """Random sampling as it is stored: distinct ids with log(count / N), unused places repeating the first."""
    drawn = torch.multinomial(teacher.softmax(-1), draws, replacement=True, generator=generator)
    ids, logs = torch.empty(len(teacher), draws, dtype=torch.int64), torch.full((len(teacher), draws), -torch.inf, dtype=teacher.dtype)
    for row, values in enumerate(drawn):
        distinct, counts = values.unique(return_counts=True)
        ids[row] = distinct[0]
        ids[row, : len(distinct)] = distinct
        logs[row, : len(distinct)] = (counts.double() / draws).log()
    return SparseSignal(ids, logs, torch.full((len(teacher),), -torch.inf, dtype=teacher.dtype))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-8) -> bool:
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@QUICK
@given(PAIRS, st.floats(0.5, 4))
def test_every_id_listed_is_forward_kl_at_any_temperature(pair: tuple[Tensor, Tensor], temperature: float) -> None:
    teacher, student = pair
    signal = tempered(top(teacher, teacher.shape[1]), temperature, teacher.shape[1])
    assert close(sparse_forward_kl(signal, student / temperature), forward_kl(teacher / temperature, student / temperature))


@QUICK
@given(PAIRS, st.data())
def test_sparse_kl_is_kl_of_the_lumped_distributions_and_a_lower_bound(pair: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    teacher, student = pair
    k = data.draw(st.integers(1, teacher.shape[1] - 1))
    signal = top(teacher, k)
    value = sparse_forward_kl(signal, student)

    def lumped(z: Tensor) -> Tensor:
        p = z.softmax(-1)
        kept = p.gather(-1, signal.ids)
        rest = p.scatter(-1, signal.ids, 0.0).sum(-1, keepdim=True)
        return torch.cat([kept, rest], -1).log()

    assert close(value, forward_kl(lumped(teacher), lumped(student)))
    assert (value >= -1e-12).all()
    assert (value <= forward_kl(teacher, student) + 1e-9).all()
    assert sparse_forward_kl(signal, teacher + 2).abs().max() < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(PAIRS, st.sampled_from([0.5, 1.0, 3.0]), st.data())
def test_every_kind_is_its_divergence_of_the_lumped_distributions(
    kind: ObjectiveKind, pair: tuple[Tensor, Tensor], temperature: float, data: st.DataObject
) -> None:
    teacher, student = pair
    vocabulary, settings = teacher.shape[1], Objective(kind=kind)
    at = StepObjective(settings, 1.0, temperature, taid_share=0.6)
    labels = torch.zeros(len(teacher), dtype=torch.int64)
    k = data.draw(st.integers(1, vocabulary))

    def kd(signal: SparseSignal | TeacherSignal, own: Tensor = student) -> float:
        return float(distillation_loss(own, [signal], labels, at).kd)

    def lumps(p: Tensor) -> Tensor:
        rest = p.scatter(-1, top(teacher, k).ids, 0.0).sum(-1, keepdim=True)
        return torch.cat([p.gather(-1, top(teacher, k).ids), rest][: 1 + (k < vocabulary)], -1)

    warm = tempered(top(teacher, k), temperature, vocabulary)
    p = torch.cat([warm.log_probs, warm.log_residual[:, None]][: 1 + (k < vocabulary)], -1)
    q = lumps((student / temperature).softmax(-1)).log()
    if kind == "taid":
        p = torch.lerp(q, p, 0.6)
    square = 1.0 if kind in WITHOUT_SQUARE else temperature**2
    expected = square * DIVERGENCES[kind](p, q, labels, settings).sum()
    assert kd(top(teacher, k)) == pytest.approx(float(expected), rel=1e-8, abs=1e-10)
    assert kd(top(teacher, vocabulary)) == pytest.approx(kd(TeacherSignal(teacher)), rel=1e-8, abs=1e-10)
    if temperature == 1 and kind != "taid":
        assert kd(top(teacher, k)) <= kd(TeacherSignal(teacher)) + 1e-9
    if temperature == 1:
        assert abs(kd(top(teacher, k), teacher + 2)) < 1e-9


def test_top_one_with_a_bucket_by_hand() -> None:
    teacher, student = torch.tensor([[3.0, 0, 0, 0]]).double(), torch.tensor([[9.0, 1, 0, 2]]).double()
    p, q = float(teacher.softmax(-1)[0, 0]), float(student.softmax(-1)[0, 0])
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(sparse_forward_kl(top(teacher, 1), student)) == pytest.approx(expected, rel=1e-12)


@QUICK
@given(PAIRS)
def test_an_even_residual_is_tempered_exactly(pair: tuple[Tensor, Tensor]) -> None:
    teacher = pair[0].clone()
    teacher[:, 1:] = teacher[:, 1:2] - 20  # one id stands out, all others are alike
    teacher[:, 0] = 0
    for temperature in (0.5, 2.0):
        warm = tempered(top(teacher, 1), temperature, teacher.shape[1])
        exact = top(teacher / temperature, 1)
        assert close(warm.log_probs, exact.log_probs)
        assert close(warm.log_residual, exact.log_residual)


@QUICK
@given(PAIRS, st.integers(1, 12))
def test_sampled_is_cross_entropy_less_the_samples_entropy(pair: tuple[Tensor, Tensor], draws: int) -> None:
    teacher, student = pair
    signal = sampled(teacher, draws, torch.Generator().manual_seed(0))
    target = torch.zeros_like(teacher).scatter_add(-1, signal.ids, signal.log_probs.exp())
    assert close(target.sum(-1), torch.ones(len(teacher), dtype=torch.float64))
    crossed = -(target * student.log_softmax(-1)).sum(-1)
    entropy = -torch.special.xlogy(target, target).sum(-1)
    assert close(sparse_forward_kl(signal, student), crossed - entropy)


def test_the_mean_gradient_over_draws_is_that_of_the_whole_teacher() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 6).double(), torch.randn(3, 6).double()
    generator, repeats = torch.Generator().manual_seed(1), 3000
    mean = torch.zeros_like(student)
    for _ in range(repeats):
        gradient = student.clone()
        sparse_gradient_(gradient, sampled(teacher, 10, generator), 1.0)
        mean += gradient / repeats
    # The standard error of a mean of 30,000 draws is at most 1/2 / sqrt(30,000) = 0.0029.
    assert (mean - (student.softmax(-1) - teacher.softmax(-1))).abs().max() < 0.012


@QUICK
@given(PAIRS, st.data())
def test_the_closed_gradient_is_autograds(pair: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    teacher, student = pair[0], pair[1].clone().requires_grad_()
    k = data.draw(st.integers(1, teacher.shape[1]))
    for signal in (top(teacher, k), sampled(teacher, 5, torch.Generator().manual_seed(k))):
        gradient = student.detach().clone()
        value, lse = sparse_gradient_(gradient, signal, 1.0)
        expected = sparse_forward_kl(signal, student)
        (wanted,) = torch.autograd.grad(expected.sum(), student)
        assert close(value, expected.detach())
        assert close(lse, student.detach().logsumexp(-1))
        assert close(gradient, wanted)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(3, 6).double(), torch.randn(3, 6).double().requires_grad_()
    y = torch.tensor([0, 3, 5])
    signals = (top(teacher, 2), top(teacher, 6), sampled(teacher, 4, torch.Generator().manual_seed(0)))
    objectives = [(Objective(), signals), *((Objective(kind=kind), signals[:2]) for kind in KINDS if kind != "taid")]
    for objective, signal in ((objective, signal) for objective, some in objectives for signal in some):
        for temperature in (1.0, 2.5):
            at = StepObjective(objective, 0.6, temperature)
            assert torch.autograd.gradcheck(lambda z, s=signal, at=at: distillation_loss(z, [s], y, at).total, (student,))


def test_sparse_and_dense_teachers_add_up() -> None:
    teacher, student, y = torch.randn(3, 6).double(), torch.randn(3, 6).double(), torch.tensor([0, 3, 5])
    at = StepObjective(Objective(), 1.0, 1.0)
    signals = [top(teacher, 3), TeacherSignal(teacher)]
    sums = distillation_loss(student, signals, y, at)
    assert float(sums.kd) == pytest.approx(float((sparse_forward_kl(signals[0], student) + forward_kl(teacher, student)).sum() / 2))
    assert math.isnan(float(sums.teacher_ce))


REFUSED = [
    ({"kind": "dkd"}, "top-k", "objective.kind: got 'dkd'; allowed: forward-kl, reverse-kl, jsd, .* with top-k signals"),
    ({"kind": "reverse-kl"}, "sampled", "objective.kind: got 'reverse-kl'; allowed: forward-kl with sampled signals"),
    ({"kind": "taid"}, "sampled", "objective.kind: got 'taid'"),
    ({"temperature": 2.0}, "sampled", "objective.temperature: got 2.0; allowed: 1 with sampled signals"),
    ({"temperature": {"kind": "cosine", "start": 1.0, "end": 2.0}}, "sampled", "objective.temperature"),
    ({"wrong_teacher": "correct"}, "top-k", "objective.wrong_teacher: got 'correct'; allowed: none with top-k signals"),
    ({"standardize": True}, "top-k", "objective.standardize"),
    ({"features": [{"kind": "hidden"}]}, "full", r"objective.features\[0\].kind: got 'hidden'"),
]


@pytest.mark.parametrize(("raw", "kind", "message"), REFUSED)
def test_an_objective_that_sparse_signals_cannot_serve_is_refused(raw: dict[str, object], kind: str, message: str) -> None:
    objective = Objective.model_validate(raw)
    check_objective(objective, "causal-lm")
    with pytest.raises(UserError, match=message):
        check_objective(objective, "causal-lm", kind)


def test_compatible_objectives_and_signals_are_accepted() -> None:
    check_objective(Objective.model_validate({"temperature": 2.0}), "causal-lm", "top-k")
    check_objective(Objective(), "causal-lm", "sampled")
    check_objective(Objective.model_validate({"kind": "jsd"}), "causal-lm", "full")
    for raw in ({"kind": "logit-mse"}, {"features": [{"kind": "minilm"}]}):
        check_objective(Objective.model_validate(raw), "image-classification")
        with pytest.raises(UserError):
            check_objective(Objective.model_validate(raw), "causal-lm")
    with pytest.raises(UserError, match="features"):
        check_objective(Objective.model_validate({"features": [{}]}), "causal-lm", teachers=2)
