"""Rounds of generation: which prompts come next, and whether they are worth it."""

from __future__ import annotations

from collections.abc import Sequence

from conf.schema.generate import Generate
from tasks.generation.failures import JudgedStudent
from tasks.generation.prompts import AskedPrompts, Prompt
from tasks.records.choice.generation import GenerationRecord
from tasks.records.format import money
from tasks.records.run import StageRecord
from tasks.runtime.logs import log


class Rounds:
    """The state of all rounds of a run.

    Attributes:
        held: Prompts that only judge.
        unused: Prompts that no round has asked.
        prompts: Of the round under way.
        records: Of the rounds so far.
        student: Of the last round.
        goes_on: Whether there is another round.
    """

    def __init__(self, settings: Generate, asked: AskedPrompts) -> None:
        self._settings, self._left_out = settings, asked.left_out
        several = settings.rounds > 1
        held = min(settings.held, len(asked.prompts) // 2) if several else 0
        self.held, free = asked.prompts[:held], asked.prompts[held:]
        share = -(-len(free) // settings.rounds) if several else len(free)
        self._size = min(settings.per_round or share, len(free)) if several else len(free)
        self.unused: tuple[Prompt, ...] = free[self._size :]
        self.prompts = AskedPrompts(free[: self._size], asked.left_out)
        self.records: tuple[GenerationRecord, ...] = ()
        self.student: StageRecord | None = None
        self.goes_on = True

    def add(self, made: GenerationRecord) -> GenerationRecord:
        """Add the rows of a round."""
        made = made.model_copy(update={"number": len(self.records) + 1})
        self.records = (*self.records, made)
        self.goes_on = self._settings.rounds > 1
        return made

    @property
    def used(self) -> tuple[GenerationRecord, ...]:
        """The rounds whose rows train: all up to that of the best student."""
        scores = [made.score for made in self.records]
        best = max(range(len(scores)), key=lambda place: -1e30 if (score := scores[place]) is None else score)
        return self.records[: best + 1]

    def judge(self, student: StageRecord, judged: JudgedStudent) -> GenerationRecord:
        """Take the score of a round's student, decide whether there is another round, and choose its prompts."""
        self.student = student
        *earlier, last = self.records
        words = self._decide(earlier[-1].score if earlier else None, judged.score)
        made = last.model_copy(update={"score": judged.score, "decision": words, "student": student.fingerprint, "judged": judged.kept})
        self.records = (*earlier, made)
        log.info("generate: round %d: %s", made.number, words)
        if self.goes_on:
            self._choose(judged.failures)
        return made

    def _decide(self, before: float | None, score: float) -> str:
        settings, (*_, last) = self._settings, self.records
        price = f", price so far {money(sum(made.price for made in self.records), last.currency)}" if last.price else ""
        rise = "" if before is None else f", {score - before:+.4f}"
        text = f"score {score:.4f} on {len(self.held)} held prompts{rise}{price}"
        self.goes_on = False
        if last.number == settings.rounds:
            return f"{text}; the last round"
        if before is not None and score - before < settings.least_gain:
            return f"{text}; another round is not worth its price: least_gain is {settings.least_gain:g}"
        if not self.unused:
            return f"{text}; no prompts are left"
        self.goes_on = True
        return f"{text}; another round"

    def _choose(self, failures: Sequence[float]) -> None:
        """The prompts of the next round: those with the worst failures, the first of equals."""
        order = sorted(range(len(self.unused)), key=lambda place: -failures[place])
        chosen = set(order[: self._size])
        self.prompts = AskedPrompts(tuple(self.unused[place] for place in order[: self._size]), {})
        self.unused = tuple(prompt for place, prompt in enumerate(self.unused) if place not in chosen)
