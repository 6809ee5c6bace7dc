"""Loss against sorted probabilities, for teachers whose ids are others.

Shape legend: N rows, K probabilities of a teacher, V vocabulary of the student.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class SortedSignal(NamedTuple):
    """A teacher's largest probabilities, whatever its ids mean."""

    log_probs: Tensor  # (N, K), descending; -inf in all of a row that does not count for the teacher
    rest: Tensor  # (N,) probability of all its other ids together


def sorted_distance(signal: SortedSignal, student_logits: Tensor) -> Tensor:
    """`sum_i |p_(i) - q_(i)|` of both models' probabilities, the largest first, the shorter list padded with zeros.

    The Universal Logit Distillation loss, a Wasserstein distance for equal costs; Boizard et al. 2024, arXiv:2402.12030.

    Args:
        signal: At temperature 1.
        student_logits: (N, V).

    Returns:
        (N,) values in [0, 2]; 0 for a row that does not count.
    """
    q = student_logits.softmax(-1).sort(-1, descending=True).values
    p, most = signal.log_probs.exp().to(q.dtype), q.shape[-1]
    p = functional.pad(p, (0, max(most - p.shape[-1], 0)))
    apart = (p[:, :most] - q).abs().sum(-1) + p[:, most:].sum(-1) + signal.rest
    return torch.where(signal.log_probs[:, 0] > -torch.inf, apart, 0.0)
