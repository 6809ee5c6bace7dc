"""TAID's teacher, between the student's answer and the teacher's, and its share.

The share t of the teacher grows from 0.4 to 1, at least linearly, and faster while the loss falls. Shing et al. 2025,
arXiv:2501.16937, algorithm 1, with its defaults.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

START, RATE, MOMENTUM = 0.4, 5e-4, 0.99


class Taid(NamedTuple):
    """The state that is carried from step to step, and by checkpoints."""

    share: float = START  # t
    momentum: float = 0.0
    previous: float | None = None  # the last step's divergence


def advance(state: Taid, divergence: float, step: int, steps: int) -> Taid:
    """The state after a step.

    Args:
        state: Before it.
        divergence: Of the step, per valid row.
        step: Steps finished, from 1.
        steps: Of the training.
    """
    linear = START + (1 - START) * step / steps
    if state.previous is None:
        return Taid(max(state.share, linear), state.momentum, divergence)
    change = (state.previous - divergence) / (state.previous + 1e-15)
    momentum = MOMENTUM * state.momentum + (1 - MOMENTUM) * change
    adaptive = state.share + RATE * (1 - state.share) / (1 + math.exp(-momentum))
    return Taid(min(1.0, max(linear, adaptive)), momentum, divergence)


def interpolated(teacher_logits: Tensor, student_logits: Tensor, share: float) -> Tensor:
    """TAID's teacher, `(1 - t) sg(z_s) + t z_t`: between the student's own answer and the teacher's.

    Shing et al. 2025, arXiv:2501.16937.

    Args:
        teacher_logits: (..., V).
        student_logits: (..., V); no gradient flows through them here.
        share: t in [0, 1].

    Returns:
        (..., V) logits; -inf where either model's are, as 0 to any power is.
    """
    ruled_out = (teacher_logits == -torch.inf) | (student_logits == -torch.inf)
    start, end = (logits.masked_fill(ruled_out, 0.0) for logits in (student_logits.detach(), teacher_logits))
    return torch.lerp(start, end, share).masked_fill(ruled_out, -torch.inf)
