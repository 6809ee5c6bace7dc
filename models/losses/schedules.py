"""Values that change over the course of training, each a pure function of the step."""

from __future__ import annotations

import math

from conf.schema.objective import Schedule
from conf.schema.training import Training


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` at progress 0 to `end` at progress 1, along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def value_at(schedule: Schedule, step: int, steps: int) -> float:
    """Value of alpha or temperature at `step` in 0..steps-1."""
    if schedule.end is None:
        return schedule.start
    return half_cosine(schedule.start, schedule.end, step / max(steps - 1, 1))


def learning_rate_at(training: Training, step: int) -> float:
    """Learning rate at `step` in 0..steps-1: a linear warm-up, then half a cosine, or a plateau and a linear fall.

    Warmup-stable-decay: Hu et al. 2024, arXiv:2404.06395.
    """
    peak, last = training.learning_rate, training.learning_rate * training.final_ratio
    warmup = round(training.warmup * training.steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if training.schedule == "cosine":
        return half_cosine(peak, last, (step - warmup) / max(training.steps - 1 - warmup, 1))
    fall = max(round(training.decay * training.steps), 1)
    progress = max(step - (training.steps - fall), 0) / max(fall - 1, 1)
    return peak + (last - peak) * min(progress, 1.0)
