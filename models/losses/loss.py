"""The distillation loss in plain form, for any objective and signal.

Shape legend: N rows (positions of a batch, flattened), V vocabulary or classes, H width of a hidden state.

Conventions, fixed once: a divergence is a sum over V for each position, in nats. Nothing here averages: a caller sums over valid
rows and divides by their number over the whole optimisation step, so that k micro-batches equal one batch. alpha weighs the
teacher; `T^2` keeps the gradient's size independent of the temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from conf.schema.stage.objective import Objective
from models.data.batches import IGNORE, UNLABELLED
from models.losses import divergences as d
from models.losses.divergences import DIVERGENCES, WITHOUT_SQUARE, WITHOUT_TEMPERATURE, cross_entropy, forward_kl
from models.losses.sorted import SortedSignal, sorted_distance
from models.losses.sparse import SparseSignal, lumped, sparse_forward_kl, tempered
from models.losses.taid import interpolated
from models.losses.teacher_controls import log_mean, moved_to_label, teacher_weights


class TeacherSignal(NamedTuple):
    """A teacher's logits for every row of a batch, computed without gradient."""

    logits: Tensor  # (N, V)


class HiddenSignal(NamedTuple):
    """A causal LM's hidden states before its head; the logits of any rows are one matrix product away."""

    hidden: Tensor  # (N, H)
    weight: Tensor  # (V, H) of the head, cut to the tokenizer's ids
    bias: Tensor | None  # (V,)

    @property
    def logits(self) -> Tensor:
        """All logits at once, (N, V)."""
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return functional.linear(self.hidden.to(self.weight.dtype), self.weight, bias)


Signal = TeacherSignal | HiddenSignal | SparseSignal | SortedSignal


@dataclass(frozen=True)
class StepObjective:
    """An objective as it stands at one step."""

    settings: Objective
    alpha: float
    temperature: float
    taid_share: float = 1.0  # TAID's t
    class_weights: Tensor | None = None  # (V,) of classes in the cross-entropy, of mean 1 over the labelled rows of the step; None: all 1


class LossSums(NamedTuple):
    """Sums over the valid rows of a micro-batch, in nats; divide by the step's valid rows, `ce` and `teacher_ce` by its labelled ones."""

    total: Tensor  # (), carries the gradient
    ce: Tensor  # (), detached
    kd: Tensor  # (), the divergence, times T^2 where that applies, detached
    teacher_ce: Tensor  # (), the teachers' own cross-entropy, detached; NaN where signals are sparse or sorted


def distillation_loss(student_logits: Tensor, signals: Sequence[Signal], targets: Tensor, at: StepObjective) -> LossSums:
    """`(1 - alpha) CE + alpha T^2 D(softmax(z_t / T), softmax(z_s / T))`, summed over valid rows.

    Several teachers share alpha evenly: the mean of their divergences, or the divergence to the mean of their probabilities. On a row
    without label alpha is 1: its loss is `T^2 D`, with the weight in the mean that a labelled row has. Weights of classes multiply each
    labelled row's CE; the caller gives them a mean of 1 over the step.

    Args:
        student_logits: (N, V).
        signals: The teachers' signals for the same rows; none: learn from labels alone (then `alpha` is taken as 0).
        targets: (N,) ids, `IGNORE` where the row does not count, for the divergence either; `UNLABELLED` where it has no label, which
            without signals does not count.
        at: The objective at this step.

    Returns:
        Sums; `total` carries the gradient.
    """
    keep = counted(targets, signals)
    student_logits, targets = to_at_least_fp32(student_logits[keep]), targets[keep]
    chosen = [select_rows(signal, keep) for signal in signals]
    unlabelled = targets == UNLABELLED
    if not bool(unlabelled.any()):
        return _labelled(student_logits, chosen, targets, at)
    rest = [select_rows(signal, unlabelled) for signal in chosen]
    kd, teacher_ce = divergence_sum(student_logits[unlabelled], rest, None, at)
    taught = LossSums(kd, torch.zeros_like(kd.detach()), kd.detach(), teacher_ce)
    known = ~unlabelled
    labelled = _labelled(student_logits[known], [select_rows(signal, known) for signal in chosen], targets[known], at)
    return LossSums(*(one + other for one, other in zip(labelled, taught, strict=True)))


def _labelled(student_logits: Tensor, signals: Sequence[Signal], targets: Tensor, at: StepObjective) -> LossSums:
    rows = cross_entropy(student_logits, targets)
    ce = (rows if at.class_weights is None else rows * at.class_weights.to(rows)[targets]).sum()
    if not signals:
        zero = torch.zeros((), device=ce.device)
        return LossSums(ce, ce.detach(), zero, zero)
    kd, teacher_ce = divergence_sum(student_logits, signals, targets, at)
    return LossSums((1 - at.alpha) * ce + at.alpha * kd, ce.detach(), kd.detach(), teacher_ce)


def counted(targets: Tensor, signals: Sequence[Signal]) -> Tensor:
    """Mask of the rows that count, (N,) bool: those without label only where a teacher answers."""
    return targets != IGNORE if signals else targets >= 0


def divergence_sum(student_logits: Tensor, signals: Sequence[Signal], targets: Tensor | None, at: StepObjective) -> tuple[Tensor, Tensor]:
    """Divergence from the teachers, summed over rows that all count, and the teachers' mean cross-entropy (no gradient).

    Args:
        student_logits: (N, V), at least fp32.
        signals: One or more.
        targets: (N,) labels in [0, V); None: there are none, and the cross-entropy is 0.
        at: The objective at this step.
    """
    dense = [to_at_least_fp32(signal.logits) for signal in signals if not isinstance(signal, SparseSignal | SortedSignal)]
    sparse = [signal for signal in signals if isinstance(signal, SparseSignal)]
    by_rank = [signal for signal in signals if isinstance(signal, SortedSignal)]
    total = torch.zeros((), dtype=student_logits.dtype, device=student_logits.device)
    for signal in sparse:
        total = total + _square(at) * _sparse(student_logits, signal, at).sum()
    for signal in by_rank:  # whatever the divergence to other teachers
        total = total + sorted_distance(signal, student_logits).sum()
    if dense:
        total = total + len(dense) * _dense(student_logits, dense, targets, at).sum()
    with torch.no_grad():
        own = [total.new_zeros(()) if targets is None else cross_entropy(logits, targets).sum() for logits in dense]
    teacher_ce = torch.stack(own).mean() if dense and len(dense) == len(signals) else total.new_full((), torch.nan)
    return total / len(signals), teacher_ce.detach()


def _dense(student_logits: Tensor, teachers: Sequence[Tensor], targets: Tensor | None, at: StepObjective) -> Tensor:
    """Mean divergence from dense teachers, (N,), times T^2 where it applies; without labels each teacher's first choice stands for them."""
    settings, divergence = at.settings, DIVERGENCES[at.settings.kind]
    labels = [each.argmax(-1) if targets is None else targets for each in teachers]
    if settings.kind == "taid":
        teachers = [interpolated(each, student_logits, at.taid_share) for each in teachers]
    if settings.kind == "similarity-kl":
        student_logits, teachers = d.similarities(student_logits), [d.similarities(each) for each in teachers]
    student, scaled = _scaled(student_logits, at), [_scaled(each, at) for each in teachers]
    if settings.combine == "mean" and len(scaled) > 1:
        scaled = [log_mean(scaled)]
        labels = [scaled[0].argmax(-1) if targets is None else targets]
    values = []
    for teacher, label in zip(scaled, labels, strict=True):
        weight = teacher_weights(teacher, label, settings.wrong_teacher)
        if settings.wrong_teacher == "correct":
            teacher = moved_to_label(teacher, label, settings.margin)
        value = divergence(teacher, student, label, settings)
        values.append(value if weight is None else weight * value)
    return _square(at) * torch.stack(values).mean(0)


def _sparse(student_logits: Tensor, signal: SparseSignal, at: StepObjective) -> Tensor:
    """Divergence from a sparse teacher over the listed ids and the bucket of all others, (N,)."""
    settings, student = at.settings, student_logits / at.temperature
    moved = tempered(signal, at.temperature, student_logits.shape[-1])
    if settings.kind == "forward-kl":
        return sparse_forward_kl(moved, student)
    teacher, own = lumped(moved, student)
    if settings.kind == "taid":
        teacher = interpolated(teacher, own, at.taid_share)
    return DIVERGENCES[settings.kind](teacher, own, moved.ids[:, 0], settings)  # none of these kinds reads labels


def _square(at: StepObjective) -> float:
    return 1.0 if at.settings.kind in WITHOUT_SQUARE else at.temperature**2


def _scaled(logits: Tensor, at: StepObjective) -> Tensor:
    if at.settings.standardize:
        logits = d.standardized(logits)
    return logits if at.settings.kind in WITHOUT_TEMPERATURE or at.temperature == 1 else logits / at.temperature


def select_rows(signal: Signal, rows: Tensor | slice) -> Signal:
    """Some rows of a signal."""
    if isinstance(signal, TeacherSignal):
        return TeacherSignal(signal.logits[rows])
    if isinstance(signal, HiddenSignal):
        return HiddenSignal(signal.hidden[rows], signal.weight, signal.bias)
    if isinstance(signal, SortedSignal):
        return SortedSignal(signal.log_probs[rows], signal.rest[rows])
    return SparseSignal(signal.ids[rows], signal.log_probs[rows], signal.log_residual[rows])


def to_at_least_fp32(logits: Tensor) -> Tensor:
    """At least fp32: a sum over V in half precision loses the small terms."""
    return logits if logits.dtype == torch.float64 else logits.float()


__all__ = [
    "DIVERGENCES",
    "IGNORE",
    "HiddenSignal",
    "LossSums",
    "Signal",
    "SortedSignal",
    "SparseSignal",
    "StepObjective",
    "TeacherSignal",
    "counted",
    "cross_entropy",
    "distillation_loss",
    "divergence_sum",
    "forward_kl",
    "select_rows",
    "to_at_least_fp32",
]
