"""Divergences between teacher and student, the labels' cross-entropy, and the one loss that is made of both.

Shape legend: `...` any leading shape, V vocabulary or classes, N rows (positions of a batch, flattened).

Conventions, fixed once: a divergence is a sum over V for each position, in nats. Nothing here averages: a caller sums over valid
rows and divides by their number over the whole optimisation step, so that k micro-batches equal one batch. alpha weighs the
teacher; `T^2` keeps the gradient's size independent of the temperature (Hinton, Vinyals and Dean 2015, arXiv:1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = -100  # target of a position without a label


class TeacherSignal(NamedTuple):
    """A teacher's answer for every row of a batch, computed without gradient."""

    logits: Tensor  # (N, V)


Divergence = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the labels, in nats.

    Args:
        logits: (..., V), any real numbers.
        targets: (...) ids in [0, V), or `IGNORE`, where the result is 0.

    Returns:
        (...) values >= 0.
    """
    flat = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view(targets.shape)


def forward_kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`KL(p || q) = sum_v p_v log(p_v / q_v)` of `p = softmax(teacher)` and `q = softmax(student)`, in nats.

    Covers every mode of the teacher; its gradient by the student's logits is `q - p`. Hinton et al. 2015, arXiv:1503.02531.

    Args:
        teacher_logits: (..., V), already divided by the temperature; -inf marks an id that cannot occur.
        student_logits: (..., V), likewise.

    Returns:
        (...) values >= 0; 0 where both agree up to a constant.
    """
    log_p = functional.log_softmax(teacher_logits, dim=-1)
    log_q = functional.log_softmax(student_logits, dim=-1)
    # Where p is 0 the term is 0, its limit; torch's kl_div gives NaN for a log-probability of -inf.
    gap = (log_p - log_q).masked_fill_(log_p == -torch.inf, 0.0)
    return (log_p.exp() * gap).sum(dim=-1)


DIVERGENCES: dict[str, Divergence] = {"forward-kl": forward_kl}


class LossSums(NamedTuple):
    """Sums over the valid rows of a micro-batch, in nats; divide by the step's valid rows."""

    total: Tensor  # (), carries the gradient
    ce: Tensor  # (), detached
    kd: Tensor  # (), T^2 times the divergence, detached
    teacher_ce: Tensor  # (), the teacher's own cross-entropy, detached


def distillation_loss(
    student_logits: Tensor,
    signal: TeacherSignal | None,
    targets: Tensor,
    *,
    divergence: Divergence,
    alpha: float,
    temperature: float,
) -> LossSums:
    """`(1 - alpha) CE + alpha T^2 D(softmax(z_t / T), softmax(z_s / T))`, summed over valid rows.

    Args:
        student_logits: (N, V).
        signal: The teacher's answer for the same rows, or None to learn from labels alone (then `alpha` is taken as 0).
        targets: (N,) ids, `IGNORE` where the row does not count, for the divergence either.
        divergence: One of `DIVERGENCES`.
        alpha: Weight of the teacher, in [0, 1].
        temperature: T > 0.

    Returns:
        Sums; `total` carries the gradient.
    """
    keep = targets != IGNORE
    student_logits, targets = _precise(student_logits[keep]), targets[keep]
    ce = cross_entropy(student_logits, targets).sum()
    zero = torch.zeros((), device=ce.device)
    if signal is None:
        return LossSums(ce, ce.detach(), zero, zero)
    teacher_logits = _precise(signal.logits[keep])
    kd = temperature**2 * divergence(teacher_logits / temperature, student_logits / temperature).sum()
    with torch.no_grad():
        teacher_ce = cross_entropy(teacher_logits, targets).sum()
    return LossSums((1 - alpha) * ce + alpha * kd, ce.detach(), kd.detach(), teacher_ce)


def _precise(logits: Tensor) -> Tensor:
    """At least fp32: a sum over V in half precision loses the small terms."""
    return logits if logits.dtype == torch.float64 else logits.float()
