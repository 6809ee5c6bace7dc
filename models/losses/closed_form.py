"""The loss of a block of logits, and its gradient in closed form in their place.

Shape legend: R rows of a block, V vocabulary.

With `q = softmax(z)` of the student and `p` of the teacher, both at the temperature:

- forward KL: `q - p`;
- reverse KL: `q (log q - log p - KL(q || p))`;
- Jensen-Shannon with `m = beta p + (1 - beta) q`: `(1 - beta) q (log q - log m - KL(q || m))`, as the terms of `m` itself sum to 1;
- the labels' cross-entropy: `q - onehot`, so that `(1 - alpha) (q - onehot) + alpha (q - p)` at T = 1 is one softmax less one
  combined target.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conf.schema.stage.objective import Objective
from models.losses.divergences import kl_of, log_mix
from models.losses.loss import Signal, SortedSignal, SparseSignal, StepObjective
from models.losses.sparse import sparse_gradient_, tempered

TWO_SIDED = ("reverse-kl", "jsd")


def closed_form(signals: Sequence[Signal], at: StepObjective) -> bool:
    """Whether `block_` has this objective: labels alone, or one teacher whose divergence is KL or, from all logits, Jensen-Shannon."""
    settings = at.settings
    if at.class_weights is not None:
        return False
    if not signals:
        return True
    dense = not isinstance(signals[0], SparseSignal)
    known = settings.kind == "forward-kl" or (dense and settings.kind in TWO_SIDED)
    plain = known and settings.wrong_teacher == "none" and not settings.standardize
    return len(signals) == 1 and plain and not isinstance(signals[0], SortedSignal)


def block_(logits: Tensor, teacher: Tensor | SparseSignal | None, targets: Tensor | None, at: StepObjective, banned: bool) -> Tensor:
    """Put the gradient of `total` by a block's logits in their place; return (total, ce, kd, teacher_ce).

    Args:
        logits: (R, V), at least fp32, overwritten.
        teacher: Dense logits (overwritten) or sparse signals of the block; None: labels alone.
        targets: (R,) ids; None: these rows have no label, and the teacher's share is 1.
        at: The objective at this step.
        banned: Whether the teacher's logits may hold -inf.
    """
    label = None if targets is None else targets[:, None]
    label_logit = logits.new_zeros(len(logits)) if label is None else logits.gather(-1, label)[:, 0]
    if teacher is None:
        assert label is not None  # rows with neither do not count
        lse = _towards_(logits)
        ce = (lse - label_logit).sum()
        logits.scatter_add_(-1, label, torch.full_like(label_logit, -1.0)[:, None])
        zero = torch.zeros_like(ce)
        return torch.stack([ce, ce, zero, zero])
    alpha, temperature = 1.0 if label is None else at.alpha, at.temperature
    teacher_ce = None if temperature == 1 else _own_cross_entropy(teacher, label)
    warm = logits if temperature == 1 else logits / temperature
    weight = alpha if temperature == 1 else 1.0
    if isinstance(teacher, SparseSignal):
        kd, lse = sparse_gradient_(warm, tempered(teacher, temperature, logits.shape[1]), weight)
        teacher_ce = torch.full_like(kd, torch.nan)
    else:
        at_label = label_logit if label is None else teacher.gather(-1, label)[:, 0]
        teacher, beta = teacher if temperature == 1 else teacher.div_(temperature), _share_of_teacher(at.settings)
        kd, lse, teacher_lse = _forward_(warm, teacher, weight, banned) if beta == 0 else _two_sided_(warm, teacher, weight, beta)
        teacher_ce = teacher_lse - at_label if teacher_ce is None else teacher_ce
    if temperature != 1:
        lse = _towards_(logits) if alpha < 1 else logits.logsumexp(-1)
        warm.mul_(alpha * temperature)
        logits.mul_(1 - alpha).add_(warm) if alpha < 1 else logits.copy_(warm)
    kd = temperature**2 * kd.sum()
    if label is None:
        none = torch.zeros_like(kd)
        return torch.stack([kd, none, kd, teacher_ce.sum() if isinstance(teacher, SparseSignal) else none])
    ce = (lse - label_logit).sum()
    if alpha < 1:
        logits.scatter_add_(-1, label, torch.full_like(label_logit, alpha - 1)[:, None])
    return torch.stack([(1 - alpha) * ce + alpha * kd, ce, kd, teacher_ce.sum()])


def _share_of_teacher(settings: Objective) -> float:
    """Beta of the mixture that both are compared with: 0 forward, 1 reverse KL."""
    return settings.beta if settings.kind == "jsd" else float(settings.kind == "reverse-kl")


def _own_cross_entropy(teacher: Tensor | SparseSignal, label: Tensor | None) -> Tensor | None:
    return None if label is None or isinstance(teacher, SparseSignal) else teacher.logsumexp(-1) - teacher.gather(-1, label)[:, 0]


def _towards_(logits: Tensor) -> Tensor:
    """Put `softmax` in the place of the logits; return the log-partition (R,)."""
    top = logits.amax(-1, keepdim=True)
    total = logits.sub_(top).exp_().sum(-1, keepdim=True)
    logits.div_(total)
    return (total.log() + top)[:, 0]


def _forward_(logits: Tensor, teacher: Tensor, weight: float, banned: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Put `q - weight p` in the place of the logits; return the divergence and both log-partitions, all (R,)."""
    gap = teacher - logits
    if banned:
        gap.masked_fill_(teacher == -torch.inf, 0.0)
    top = teacher.amax(-1, keepdim=True)
    total = teacher.sub_(top).exp_().sum(-1, keepdim=True)
    teacher_lse, lse = (total.log() + top)[:, 0], _towards_(logits)
    # sum_v p_v (z_t - z_s), and the partitions apart: p sums to 1.
    kd = torch.linalg.vecdot(teacher, gap) / total[:, 0] - teacher_lse + lse
    logits.addcmul_(teacher, weight / total, value=-1)
    return kd, lse, teacher_lse


def _two_sided_(logits: Tensor, teacher: Tensor, weight: float, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Put `(1 - weight) q + weight` times the divergence's gradient in the place of the logits; return as `_forward_` does."""
    log_q, log_p = logits.log_softmax(-1), teacher.log_softmax(-1)
    log_m = log_p if beta == 1 else log_mix(log_p, log_q, beta)
    share, lse, teacher_lse = 1.0 if beta == 1 else 1 - beta, logits.logsumexp(-1), teacher.logsumexp(-1)
    gap = (log_q - log_m).masked_fill_(log_q == -torch.inf, 0.0)
    torch.exp(log_q, out=logits)
    own = torch.linalg.vecdot(logits, gap)
    logits.mul_(gap.sub_(own[:, None]).mul_(weight * share).add_(1 - weight))
    return (own if beta == 1 else beta * kl_of(log_p, log_m) + share * own), lse, teacher_lse
