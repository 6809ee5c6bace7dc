"""Examples that trainings read, and how many of them have answers of their own.

No torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.schema.data import has_rationales
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import weight_of_rationales
from conf.schema.stage.training import Training
from models.data.corpus import Corpus, shuffled
from tasks.training.signals.signal_policy import examples_of

KEYED_AT_ONCE = 256  # examples that are read together to find duplicates


class EpochPart(NamedTuple):
    """A part of one seed's shuffled epoch, of the places from `first` to below `last`; `pool`: see `shuffled`."""

    seed: int
    epoch: int
    first: int
    last: int
    pool: int | None = None


class TrainingExamples(NamedTuple):
    """The examples of an epoch.

    Attributes:
        number: How many; None: the data are not prepared yet.
        duplicates: Number of each example whose input an earlier one has, and the number of the first of them.
        rationales: How many bear a rationale, which is an example of its own.
    """

    number: int | None
    duplicates: tuple[tuple[int, int], ...] = ()
    rationales: int = 0

    def explained(self, ladder: Ladder, weight: float | None, rows: int) -> int:
        """Rationales among so many drawn rows of a training that weighs them; in part of an epoch as many as are to be expected.

        Data that are not prepared yet count as if every row had one.
        """
        if not has_rationales(ladder.data) or not weight_of_rationales(weight):
            return 0
        return rows if self.number is None else rows * self.rationales // self.number

    def distinct(self, asked: Mapping[int, int], parts: Collection[EpochPart] = ()) -> int:
        """Distinct examples among the first so many of the shuffled epoch of each seed, and in parts of epochs; see `parts_of`.

        At most so many where the data are unknown.
        """
        if self.number is None:
            return sum(asked.values()) + sum(part.last - part.first for part in parts)
        if max(asked.values(), default=0) >= self.number:
            return self.number - len(self.duplicates)
        if len(asked) + len(parts) <= 1 and not self.duplicates:
            return sum(asked.values()) + sum(part.last - part.first for part in parts)
        first, seen = self._first(), np.zeros(self.number, dtype=bool)
        for part in [*parts, *(EpochPart(seed, 0, 0, examples) for seed, examples in asked.items())]:
            seen[first[shuffled(part.seed, part.epoch, self.number, part.pool)[part.first : part.last]]] = True
        return int(seen.sum())

    def parts_of(self, seed: int, examples: range, pool: int | None = None) -> list[EpochPart]:
        """The parts of a seed's epochs that a range of a training's examples, counted from its beginning, covers; a whole one alone.

        Args:
            seed: Of the training's order.
            examples: The range.
            pool: Most examples of an epoch; None: all.
        """
        if self.number is None and pool is None:
            return [EpochPart(seed, 0, examples.start, examples.stop)] if examples else []
        size, parts = min(known for known in (self.number, pool) if known is not None), list[EpochPart]()
        for epoch in range(examples.start // size, -(-examples.stop // size)):
            start, end = (min(max(place - epoch * size, 0), size) for place in (examples.start, examples.stop))
            if end - start == size:
                return [EpochPart(seed, 0, 0, size)]
            if start < end:
                parts.append(EpochPart(seed, epoch, start, end, pool if epoch else None))
        return parts

    def _first(self) -> NDArray[np.int64]:
        assert self.number is not None
        first = np.arange(self.number)
        if self.duplicates:
            numbers, firsts = zip(*self.duplicates, strict=True)
            first[list(numbers)] = firsts
        return first


def training_examples(corpus: Corpus | None, cached: bool) -> TrainingExamples:
    """The examples of an epoch; duplicates only where answers are cached, as all data are read for them."""
    if corpus is None:
        return TrainingExamples(None)
    if not cached:
        return TrainingExamples(examples_of(corpus.info), rationales=corpus.info.rationales)
    from models.data.batches import TrainingBatches
    from models.signals.fill import duplicates

    batches = TrainingBatches(corpus, KEYED_AT_ONCE, 0)
    return TrainingExamples(batches.examples, tuple(duplicates(batches).items()), corpus.info.rationales)


def examples_trained(ladder: Ladder, training: Training, rationale: float | None, examples: TrainingExamples) -> int:
    """Examples of a whole training, repeated ones as often as they come: its rows, and their rationales where it weighs them."""
    rows = training.steps * training.batch_size
    return rows + examples.explained(ladder, rationale, rows)


class AnswerCaches:
    """The stored answers of a sequence of trainings, by teacher and by content: seeds, how far into each one's epoch, and other parts."""

    def __init__(self, examples: TrainingExamples) -> None:
        self.examples = examples
        self._asked: dict[Any, tuple[dict[int, int], set[EpochPart]]] = {}

    def copy(self) -> AnswerCaches:
        """The same caches, to try what a training would add to them."""
        made = AnswerCaches(self.examples)
        made._asked = {key: (dict(first), set(others)) for key, (first, others) in self._asked.items()}
        return made

    def add(self, key: Any, seed: int, examples: range, pool: int | None = None) -> tuple[int, int]:
        """Ask for a range of the examples of a seed's training; returns the distinct ones, and those of them that were not stored.

        Args:
            key: Of the cache.
            seed: Of the training's order.
            examples: The range, counted from the training's beginning.
            pool: Most examples of an epoch; None: all.
        """
        parts = self.examples.parts_of(seed, examples, pool)
        own, stored = (dict[int, int](), set[EpochPart]()), self._asked.setdefault(key, ({}, set()))
        before = self.examples.distinct(*stored)
        for asked, others in (own, stored):
            for part in parts:
                if part.epoch == part.first == 0:
                    asked[seed] = max(asked.get(seed, 0), part.last)
                else:
                    others.add(part)
        return self.examples.distinct(*own), self.examples.distinct(*stored) - before
