"""Record of the answers that a teacher wrote, and of those that were kept."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record


class KeptSample(Record):
    """An answer as the report shows it; `rule` is the one that dropped it, None of one that was kept."""

    prompt: str
    text: str
    rule: str | None = None


class GenerationRecord(Record):
    """A round of `data.generate`.

    Attributes:
        number: Of the round, from 1.
        teacher: Name of the model that wrote, with its address where it is an endpoint.
        fingerprint: Of the selected rows.
        answers_fingerprint: Of all answers, which are selected anew when only a rule changes.
        folder: With `rows.jsonl`, the rows that train, and `dropped.jsonl`.
        source: Hash of the content of all prompts.
        reused: Whether the selected rows were found in the store.
        prompts: That were asked.
        left_out: Prompts that were not, by reason: `equal`, `held-out`, `empty`.
        answers: That were written, found ones among them.
        written: Answers of this run; the others were found in the store or in its spool.
        kept: Rows that train.
        dropped: Rule -> answers that it dropped.
        tokens: Of all answers, as the teacher counts them.
        read: Of all prompts.
        seconds: Of writing, over all attempts.
        price: Of all answers, by the prices of the endpoint.
        currency: Of the price.
        uncounted: Answers of an endpoint that did not count its tokens.
        retries: Tries of this run that failed.
        samples: A few that were kept, and of each rule a few that it dropped.
        decision: Whether another round is worth its price, in words; None: there is one round alone.
        student: Fingerprint of this round's student.
        judged: Fingerprints of the judgement of that student and of the answers that it read.
        corpus: Fingerprint of the data that the rows of all rounds have joined; None: not yet.
        score: Of the student of this round on held prompts, the higher the better; None: it was not asked.
    """

    number: int = 1
    teacher: str
    fingerprint: str
    answers_fingerprint: str
    folder: str
    source: str | None = None
    reused: bool = False
    prompts: int
    left_out: dict[str, int] = Field(default={})
    answers: int
    written: int = 0
    kept: int
    dropped: dict[str, int] = Field(default={})
    tokens: int = 0
    read: int = 0
    seconds: float = 0.0
    price: float = 0.0
    currency: str = ""
    uncounted: int = 0
    retries: int = 0
    samples: tuple[KeptSample, ...] = ()
    score: float | None = None
    decision: str | None = None
    student: str | None = None
    judged: tuple[str, ...] = ()
    corpus: str | None = None

    @property
    def words(self) -> str:
        """A sentence for the log."""
        dropped = ", ".join(f"{number:,} {rule}" for rule, number in self.dropped.items())
        left = ", ".join(f"{number:,} {reason}" for reason, number in self.left_out.items())
        text = f"{self.kept:,} of {self.answers:,} answers of {self.teacher} to {self.prompts:,} prompts are kept"
        text += f" (dropped: {dropped})" if dropped else ""
        text += f"; prompts left out: {left}" if left else ""
        return text + (f"; price {self.price:.4g} {self.currency}" if self.price else "")
