"""Losses at the edges: logits of -inf and of 1e4, and refused objectives."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from conf.errors import UserError
from conf.schema.stage.objective import DENSE_ONLY, EMBEDDING_ONLY, Objective, ObjectiveKind
from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.losses import divergences as d
from models.losses.chunked import Head, chunked_loss
from models.losses.loss import DIVERGENCES, HiddenSignal, Signal, SparseSignal, StepObjective, TeacherSignal, distillation_loss
from models.losses.sparse import sparse_forward_kl
from models.losses.support import infinite_for
from models.losses.taid import interpolated
from models.losses.teacher_controls import moved_to_label
from models.signals.sources import live
from models.training.loop import Plan, Step, train

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
KINDS = [kind for kind in get_args(ObjectiveKind) if kind not in EMBEDDING_ONLY]
CONTROLS = ("none", "correct-only", "confidence-gate", "correct")
FORMS = [(kind, standardize) for kind in KINDS for standardize in (False, True) if not (standardize and kind == "logit-mse")]
LIMITS = [("jsd", {"beta": 0.0}), ("jsd", {"beta": 1.0}), ("skew-kl", {"skew": 0.0}), ("skew-reverse-kl", {"skew": 0.0})]
ALL_FORMS = [*((kind, {}) for kind in KINDS), *LIMITS]
REAL = st.floats(-8, 8, width=64)
LARGE = st.sampled_from([-1e4, -1.0, 0.0, 1.0, 1e4]) | st.floats(-1e4, 1e4, width=32)


@st.composite
def cases(draw: st.DrawFn, elements: st.SearchStrategy[float] = REAL, dtype: type = np.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Teacher and student logits (N, V), labels (N,), and which ids to rule out (V,): neither a label nor all."""
    rows, vocabulary = draw(st.integers(1, 4)), draw(st.integers(3, 8))
    pair = [torch.from_numpy(draw(arrays.arrays(dtype, (rows, vocabulary), elements=elements))) for _ in range(2)]
    left = draw(st.sets(st.integers(0, vocabulary - 1), min_size=2, max_size=vocabulary - 1))
    targets = torch.tensor(draw(st.lists(st.sampled_from(sorted(left)), min_size=rows, max_size=rows)))
    return pair[0], pair[1], targets, torch.tensor([index not in left for index in range(vocabulary)])


def ruled_out(logits: Tensor, holes: Tensor) -> Tensor:
    return logits.masked_fill(holes, -torch.inf)


def objective_at(raw: dict[str, Any], alpha: float = 0.7, temperature: float = 2.0) -> StepObjective:
    return StepObjective(Objective.model_validate(raw), alpha, temperature, taid_share=0.6)


def value_and_gradient(at: StepObjective, teacher: Tensor, student: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    leaf = student.clone().requires_grad_()
    total = distillation_loss(leaf, [TeacherSignal(teacher)], targets, at).total
    return total.detach(), torch.autograd.grad(total, leaf)[0]


@pytest.mark.parametrize(("kind", "standardize"), FORMS)
@QUICK
@given(case=cases(), control=st.sampled_from(CONTROLS))
def test_an_id_that_both_rule_out_changes_nothing(kind: str, standardize: bool, case: tuple[Tensor, ...], control: str) -> None:
    teacher, student, targets, holes = case
    moved = (torch.cumsum(~holes, 0) - 1)[targets]
    at = objective_at({"kind": kind, "standardize": standardize, "wrong_teacher": control})
    expected, expected_gradient = value_and_gradient(at, teacher[:, ~holes], student[:, ~holes], moved)
    found, gradient = value_and_gradient(at, ruled_out(teacher, holes), ruled_out(student, holes), targets)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    if kind == "tvd":  # where two probabilities are equal, `|p - q|` has no gradient: another one a step of 1e-9 away
        kept = student[:, ~holes]
        steps = 1e-9 * torch.arange(1, kept.shape[1] + 1, dtype=kept.dtype)
        near = [value_and_gradient(at, teacher[:, ~holes], kept + sign * steps, moved)[1] for sign in (1, -1)]
        assume(all(torch.allclose(each, expected_gradient, rtol=1e-3, atol=1e-4) for each in near))
    # Standardising divides by a deviation that may be all but zero.
    assert torch.allclose(gradient[:, ~holes], expected_gradient, rtol=1e-6, atol=1e-9)
    assert not gradient[:, holes].any()


@pytest.mark.parametrize(("kind", "standardize"), FORMS)
@QUICK
@given(case=cases())
def test_equal_models_with_ids_ruled_out_have_no_divergence(kind: str, standardize: bool, case: tuple[Tensor, ...]) -> None:
    teacher, _, targets, holes = case
    logits = ruled_out(teacher, holes).requires_grad_()
    prepared = d.standardized(logits) if standardize else logits
    value = DIVERGENCES[kind](prepared.detach(), prepared, targets, Objective.model_validate({"kind": kind}))
    assert value.abs().max() < 1e-12
    gradient = torch.autograd.grad(value.sum(), logits)[0]
    assert gradient.abs().max() < 1e-6
    assert not gradient[:, holes].any()


@pytest.mark.parametrize(("kind", "more"), ALL_FORMS)
@QUICK
@given(case=cases(), alone=st.sampled_from(["teacher", "student"]))
def test_ids_that_one_model_rules_out_give_a_finite_loss_or_are_declared_infinite(
    kind: str, more: dict[str, float], case: tuple[Tensor, ...], alone: str
) -> None:
    teacher, student, targets, holes = case
    at = objective_at({"kind": kind, **more})
    pair = (ruled_out(teacher, holes), student) if alone == "teacher" else (teacher, ruled_out(student, holes))
    value, gradient = value_and_gradient(at, *pair, targets)
    infinite = infinite_for(at.settings)[alone == "student"]
    assert bool(value.isfinite()) == (not infinite)
    if not infinite:
        assert gradient.isfinite().all()


@QUICK
@given(case=cases())
def test_taid_rules_out_what_either_model_does_at_every_share(case: tuple[Tensor, ...]) -> None:
    teacher, student, _, holes = case
    for share in (0.0, 0.4, 0.5, 0.9, 1.0):
        kept = interpolated(teacher, student, share)
        for pair in ((ruled_out(teacher, holes), student), (teacher, ruled_out(student, holes))):
            assert torch.equal(interpolated(*pair, share), ruled_out(kept, holes))


def test_decoupled_distillation_where_the_label_is_the_only_class_left() -> None:
    logits = torch.tensor([[1.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    student, label = torch.tensor([[0.0, 0.0, -torch.inf]], dtype=torch.float64, requires_grad=True), torch.tensor([0])
    value = d.dkd(logits, student, label, 1.0, 8.0)
    assert float(value.detach()) == pytest.approx(np.log(2))  # of the label's probability, 1 against 1/2; there are no other classes
    assert torch.allclose(torch.autograd.grad(value, student)[0], torch.tensor([[-0.5, 0.5, 0.0]], dtype=torch.float64))
    same = logits.clone().requires_grad_()
    nothing = d.dkd(logits, same, label, 1.0, 8.0)
    assert float(nothing.detach()) == 0
    assert not torch.autograd.grad(nothing, same)[0].any()


@pytest.mark.parametrize(("kind", "standardize"), FORMS)
@QUICK
@given(case=cases(LARGE, np.float32), temperature=st.sampled_from([0.5, 1.0, 4.0]), control=st.sampled_from(CONTROLS))
def test_logits_of_ten_thousand_give_a_finite_loss_and_gradient(
    kind: str, standardize: bool, case: tuple[Tensor, ...], temperature: float, control: str
) -> None:
    teacher, student, targets, _ = case
    at = objective_at({"kind": kind, "standardize": standardize, "wrong_teacher": control}, temperature=temperature)
    value, gradient = value_and_gradient(at, teacher, student, targets)
    assert value.isfinite()
    assert gradient.isfinite().all()


@QUICK
@given(case=cases(LARGE, np.float32), margin=st.floats(0, 0.9))
def test_a_corrected_teacher_rules_out_no_id_whose_probability_rounds_to_zero(case: tuple[Tensor, ...], margin: float) -> None:
    teacher, _, targets, _ = case
    moved = moved_to_label(teacher, targets, margin)
    assert moved.isfinite().all()
    assert torch.allclose(moved.exp().sum(-1), torch.ones(len(teacher)), atol=1e-5)


@QUICK
@given(case=cases(), count=st.integers(1, 8))
def test_a_sparse_teacher_does_not_see_ids_that_the_student_rules_out(case: tuple[Tensor, ...], count: int) -> None:
    teacher, student, _, holes = case
    values, ids = ruled_out(teacher, holes).log_softmax(-1).topk(min(count, int((~holes).sum())), -1)
    signal = SparseSignal(ids, values, torch.log1p(-values.exp().sum(-1).clamp(max=1)))
    place = torch.cumsum(~holes, 0) - 1
    cut = SparseSignal(place[ids], values, signal.log_residual)
    leaf = ruled_out(student, holes).requires_grad_()
    found, expected = sparse_forward_kl(signal, leaf), sparse_forward_kl(cut, student[:, ~holes])
    assert torch.allclose(found.detach(), expected, rtol=1e-9, atol=1e-9)
    gradient = torch.autograd.grad(found.sum(), leaf)[0]
    assert gradient.isfinite().all()
    assert not gradient[:, holes].any()


N, H, V = 9, 4, 7
HOLES = torch.tensor([False, False, True, False, True, False, False])


def head_and_signal(form: str) -> tuple[Tensor, Head, Signal, Tensor]:
    """A student and a teacher whose ids 2 and 4 have a bias of -inf, in double precision."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, theirs, bias = (torch.randn(*shape, generator=generator).double() for shape in ((N, H), (V, H), (V, H), (V,)))
    bias = ruled_out(bias, HOLES)
    signal: Signal = HiddenSignal(hidden.flip(0), theirs, bias)
    if form == "dense":
        signal = TeacherSignal(signal.logits)
    elif form == "top-k":
        values, ids = signal.logits.log_softmax(-1).topk(3, -1)
        signal = SparseSignal(ids, values, torch.log1p(-values.exp().sum(-1)))
    return hidden, Head(weight, bias), signal, torch.arange(N) % 2


CHUNKED = [*((kind, "hidden") for kind in KINDS), ("forward-kl", "dense"), *((kind, "top-k") for kind in KINDS if kind not in DENSE_ONLY)]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("kind", "form"), CHUNKED)
def test_the_chunked_loss_is_the_plain_one_with_ids_ruled_out(kind: str, form: str, temperature: float) -> None:
    hidden, head, signal, targets = head_and_signal(form)
    assert head.bias is not None
    at, outcomes = objective_at({"kind": kind}, temperature=temperature), []
    for chunked in (False, True):
        states, weight = hidden.clone().requires_grad_(), head.weight.clone().requires_grad_()
        if chunked:
            total = chunked_loss(states, Head(weight, head.bias), [signal], targets, at, chunk=4).total
        else:
            total = distillation_loss(states @ weight.T + head.bias, [signal], targets, at).total
        outcomes.append((total.detach(), *torch.autograd.grad(total, (states, weight))))
    for plain, found in zip(*outcomes, strict=True):
        assert found.isfinite().all()
        assert torch.allclose(found, plain, rtol=1e-9, atol=1e-12)
    assert not outcomes[1][2][HOLES].any()


Make = Callable[..., nn.Module]


class Masked(nn.Module):
    """A classifier that never gives its last class."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs: Tensor) -> Any:
        answer = self.model(**inputs)
        answer.logits = answer.logits.masked_fill(torch.arange(answer.logits.shape[-1]) == answer.logits.shape[-1] - 1, -torch.inf)
        return answer


@pytest.mark.parametrize(
    ("kind", "alone"), [("reverse-kl", "teacher"), ("logit-mse", "teacher"), ("forward-kl", "student"), ("dkd", "student")]
)
def test_an_infinite_objective_is_refused_at_the_first_step(
    images: Corpus, training: Callable[..., Training], model_for: Make, kind: str, alone: str
) -> None:
    teacher, student = model_for(images, seed=1), model_for(images)
    teacher, student = (Masked(teacher), student) if alone == "teacher" else (teacher, Masked(student))
    before, steps = {name: tensor.clone() for name, tensor in student.state_dict().items()}, list[Step]()
    plan = Plan(training(accumulation=2), Objective.model_validate({"kind": kind, "alpha": 1.0}), 0, None)
    said = rf"^objective\.kind: got '{kind}'; allowed: jsd, .*Ids with logit -inf in the {alone} alone: 1; .*Choose another"
    with pytest.raises(UserError, match=said):
        train(student, TrainingBatches(images, 8, 0), plan, signals=live(teacher, None), on_step=steps.append)
    assert not steps
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_finite_objective_trains_with_a_class_that_the_teacher_never_gives(
    images: Corpus, training: Callable[..., Training], model_for: Make
) -> None:
    plan = Plan(training(), Objective.model_validate({"kind": "taid", "alpha": 1.0}), 0, None)
    student = model_for(images)
    train(student, TrainingBatches(images, 8, 0), plan, signals=live(Masked(model_for(images, seed=1)), None))
    assert all(tensor.isfinite().all() for tensor in student.state_dict().values())
