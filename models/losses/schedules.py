"""Values and teachers that change over a training: pure functions of the step."""

from __future__ import annotations

import functools
import itertools
import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.schema.stage.objective import Objective, Schedule
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training


class Turns(NamedTuple):
    """Schedule of the models that answer in each step.

    Attributes:
        sizes: Models of each teacher, which answer together: 1, or the members of an ensemble.
        shares: Relative time of each teacher where they hand over, one teaching at a time, the first one first; empty: all teach
            throughout.
    """

    sizes: tuple[int, ...]
    shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, teachers: int) -> Turns:
        """Single models that teach throughout."""
        return cls((1,) * teachers)

    def spans(self, steps: int) -> list[range]:
        """The steps of a schedule in which each model can be asked."""
        if not self.shares:
            return [range(steps)] * sum(self.sizes)
        return [span for span, size in zip(_spans(self.shares, steps), self.sizes, strict=True) for _ in range(size)]


def _spans(shares: tuple[float, ...], steps: int) -> list[range]:
    """Steps of each teacher in turn, so that exactly one teaches at every step."""
    whole = math.fsum(shares)
    ends = [0, *(round(steps * part / whole) for part in accumulate(shares))]
    ends[-1] = steps  # whatever the sum's last digit
    return [range(first, last) for first, last in pairwise(ends)]


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


def kept_teachers(count: int, keep: float, seed: int, step: int) -> list[int]:
    """Indices of the teachers that teach in a step: each with probability `keep`, and one at random where none was drawn.

    A function of seed and step, so a resumed run asks the same ones. DGKD, Son et al. 2021, arXiv:2009.08825, drops them so too
    (survival probability 0.75); there a step may be left with none, which at alpha 1 would teach nothing.

    Args:
        count: Teachers in all; a single one is always kept.
        keep: Probability, in (0, 1].
        seed: Of the training.
        step: From 0.
    """
    if count == 1:
        return [0]
    generator = np.random.default_rng([seed, step, 0x7EAC])
    drawn = generator.random(count) < keep
    fallback = int(generator.integers(count))
    return [index for index in range(count) if drawn[index]] or [fallback]


@functools.lru_cache(maxsize=16)
def _times_kept(count: int, keep: float, seed: int, steps: int) -> NDArray[np.int64]:
    """Number of times each teacher was kept in the steps before each, (steps + 1, count)."""
    times = np.zeros((steps + 1, count), dtype=np.int64)
    for step in range(steps):
        times[step + 1, kept_teachers(count, keep, seed, step)] = 1
    return times.cumsum(axis=0)


def _taught_steps(objective: Objective, steps: int) -> range:
    """The steps in which the objective needs a teacher: alpha is above 0, or features are compared."""
    alpha, first, last = objective.alpha, 0, steps
    if objective.features:
        return range(steps)
    if not (alpha.start or alpha.end):
        return range(0)
    while first < last and value_at(alpha, first, steps) == 0:  # a half cosine is 0 at an end alone
        first += 1
    while first < last and value_at(alpha, last - 1, steps) == 0:
        last -= 1
    return range(first, last)


def teachers_asked(objective: Objective, turns: Turns, seed: int, step: int, steps: int) -> list[int]:
    """Indices of the models that answer at a step in 0..steps-1, where they answer live; the members of a teacher follow one another."""
    if not objective.features and value_at(objective.alpha, step, steps) == 0:
        return []
    if turns.shares:
        return [index for index, span in enumerate(turns.spans(steps)) if step in span]
    kept = kept_teachers(len(turns.sizes), objective.keep, seed, step)
    ends = list(accumulate(turns.sizes, initial=0))
    return [index for teacher in kept for index in range(ends[teacher], ends[teacher + 1])]


def steps_asked(objective: Objective, turns: Turns, seed: int, steps: int, done: int) -> tuple[int, ...]:
    """Number of steps in which each model answers: the sum of `teachers_asked` over the steps done.

    Args:
        objective: Its alpha, features and `keep` decide.
        turns: The models.
        seed: Of the training.
        steps: Of the schedule.
        done: Steps taken; fewer where the training ended early.
    """
    taught, count = _taught_steps(objective, steps), len(turns.sizes)
    first, last = taught.start, max(min(taught.stop, done), taught.start)
    if turns.shares:
        return tuple(max(min(span.stop, last) - max(span.start, first), 0) for span in turns.spans(steps))
    if count < 2:
        return (last - first,) * sum(turns.sizes)
    times = _times_kept(count, objective.keep, seed, 1 << last.bit_length())  # few sizes, so that a search finds them in the cache
    asked = (times[last] - times[first]).tolist()
    return tuple(steps for steps, size in zip(asked, turns.sizes, strict=True) for _ in range(size))


class WritingSteps(NamedTuple):
    """Schedule of the steps that learn from text written by the student, spread evenly, and of its writing.

    A buffer of batches is written at once. Its batches are trained on in turn, and again until each has been used often enough.

    Attributes:
        steps: Of the schedule.
        fraction: Share of them.
        buffer: Batches written at once.
        reuse: Steps that learn from each.
    """

    steps: int
    fraction: float
    buffer: int
    reuse: int

    @classmethod
    def of(cls, signals: Signals, steps: int) -> WritingSteps:
        """Those of a stage's settings; none where the data are the text."""
        return cls(steps, signals.fraction if signals.on_policy else 0.0, signals.buffer, signals.reuse)

    def before(self, step: int) -> int:
        """Such steps among the first ones."""
        return math.floor(step * self.fraction)

    def has(self, step: int) -> bool:
        """Whether a step is one of them."""
        return self.before(step + 1) > self.before(step)

    def place(self, step: int) -> tuple[int, int]:
        """Number of the buffer of such a step, and which of its batches."""
        number, within = divmod(self.before(step), self.buffer * self.reuse)
        return number, within % self._size(number)

    def prompts(self, step: int) -> list[int]:
        """Steps whose batches give the prompts of the buffer of a step: its own and those of the next such steps, one for each batch."""
        following = (each for each in itertools.count(step) if self.has(each))
        return list(itertools.islice(following, self._size(self.place(step)[0])))

    def written(self, done: int) -> int:
        """Batches written in the first steps."""
        number, within = divmod(self.before(done), self.buffer * self.reuse)
        return number * self.buffer + (self._size(number) if within else 0)

    def _size(self, number: int) -> int:
        """Batches of a buffer: no more than there are steps left to use them."""
        return max(min(self.buffer, self.before(self.steps) - number * self.buffer * self.reuse), 1)
