"""The adaptive interpolation share of TAID, advanced once a step.

The share t of the teacher grows from 0.4 to 1, at least linearly, and faster while the loss falls. Shing et al. 2025,
arXiv:2501.16937, algorithm 1, with its defaults.
"""

from __future__ import annotations

import math
from typing import NamedTuple

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
