"""Mean of several teachers; correction of teachers that a label contradicts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def log_mean(logits: Sequence[Tensor]) -> Tensor:
    """Log of the mean of several teachers' probabilities, (..., V) from tensors of that shape, divided by the temperature already."""
    return torch.stack([functional.log_softmax(each, dim=-1) for each in logits]).logsumexp(0) - math.log(len(logits))


def moved_to_label(teacher_logits: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Move probability to the label where the teacher's first choice `a` is another: `p' = (1 - m) p + m onehot(y)`.

    `m = (p_a - p_y + margin) / (1 + p_a - p_y)` lets the label lead by exactly `margin`: `p'_y - p'_a = margin`. All else keeps its
    proportions. Minifinetuning, arXiv:2506.15702.

    Args:
        teacher_logits: (N, V), divided by the temperature.
        targets: (N,) labels in [0, V).
        margin: tau, in [0, 1).

    Returns:
        (N, V) log-probabilities; rows where the teacher is right as they were.
    """
    log_p, label = functional.log_softmax(teacher_logits, dim=-1), targets[:, None]
    log_first, choice = log_p.max(-1, keepdim=True)
    lead = log_first.exp() - log_p.gather(-1, label).exp()
    share = torch.where(choice == label, 0.0, (lead + margin) / (1 + lead))
    # In logarithms: an id so improbable that its probability rounds to 0 is not ruled out.
    kept = log_p + torch.log1p(-share)
    return kept.scatter(-1, label, torch.logaddexp(kept.gather(-1, label), share.log()))


def teacher_weights(teacher_logits: Tensor, targets: Tensor, control: str) -> Tensor | None:
    """Weight of the teacher in each row.

    `correct-only`: 1 where its first choice is the label, else 0. `confidence-gate`: its probability of the label. None: all weigh 1.

    Args:
        teacher_logits: (N, V), divided by the temperature.
        targets: (N,) labels in [0, V).
        control: `Objective.wrong_teacher`.
    """
    if control == "correct-only":
        return (teacher_logits.argmax(-1) == targets).to(teacher_logits.dtype)
    if control == "confidence-gate":
        return teacher_logits.softmax(-1).gather(-1, targets[:, None])[:, 0]
    return None
