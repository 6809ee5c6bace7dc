"""Records of a proof: `runs/<run>/proof.json`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from conf.schema.measures.proof import Accounting, Arm
from models.base.statistics import Interval, Method, Outcome
from tasks.records.base import Record
from tasks.records.choice.route import RouteDecision
from tasks.records.run import RunRecord

PROOF = "proof.json"


class Replicate(Record):
    """One arm with one seed.

    Attributes:
        seed: Of the last student.
        score: Of the last student on the test split, which is read this once: bits per byte, or accuracy.
        valid: The same on the validation split.
        flops: Of all trainings of the arm.
        seconds: Of all trainings of the arm and of the stored answers that they need, as measured where each was computed.
        money: Price of these seconds, where one is set.
        steps: Of each training.
        fingerprints: Of each student; those of an arm that shares a student with another are the same.
        reused: How many of them were found in the store.
        parameters: Of the last student.
        nothing: Why its last student has learned nothing, on the test split; None: it has.
        route: The choice of its route by pilots, whose price is in the others, for the arm auto.
    """

    seed: int
    score: float
    valid: float
    flops: float
    seconds: float
    money: float | None = None
    steps: tuple[int, ...]
    fingerprints: tuple[str, ...]
    reused: int
    parameters: int
    nothing: str | None = None
    route: RouteDecision | None = None


class Estimate(Record):
    """A mean over seeds with its interval.

    Attributes:
        low: Lower end; None: the seeds are too few to bound it.
        high: Upper end.
        sd: Of one seed.
        pairs: Seeds that it rests on.
        method: `bootstrap` is the name that `bootstrap-t` had in earlier records.
    """

    mean: float
    low: float | None
    high: float | None
    sd: float
    pairs: int
    method: Method | Literal["bootstrap"]

    @classmethod
    def of(cls, found: Interval) -> Estimate:
        """The interval as a record."""
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(**{**found._asdict(), "low": low, "high": high})


class ArmResult(Record):
    """An arm over its seeds.

    Attributes:
        meaning: The arm in words.
        parameters: Of its last student.
        score: On the test split; None before two seeds are finished.
        valid: The same on the validation split.
    """

    arm: Arm
    meaning: str
    parameters: int
    replicates: tuple[Replicate, ...]
    score: Estimate | None
    valid: Estimate | None

    @property
    def nothing(self) -> str | None:
        """Why its students have learned nothing; None where that of any seed has."""
        reasons = [each.nothing for each in self.replicates]
        return reasons[0] if all(reasons) else None

    @property
    def flops(self) -> float:
        """Mean operations of a replicate."""
        return sum(each.flops for each in self.replicates) / len(self.replicates)

    @property
    def seconds(self) -> float:
        """Mean seconds of a replicate."""
        return sum(each.seconds for each in self.replicates) / len(self.replicates)


class SeedLook(Record):
    """One look at two arms: a run, and the seeds that it showed."""

    run: str
    seeds: tuple[int, ...]


class Contrast(Record):
    """One arm held against another.

    Attributes:
        gains: By seed; positive where the first is better, in the score's unit.
        gain: Their mean, with the interval of this look: the intervals of all looks together hold the true mean with the confidence.
        outcome: `undecided` while seeds are missing.
        seeds_to_decide: In all; None: decided, or more than 1,000.
        looks: At these seeds, in other proofs and this; empty in records of earlier versions, and where there are too few seeds.
        look: Number of this one, from 1.
    """

    first: Arm
    second: Arm
    gains: tuple[float, ...]
    gain: Estimate
    outcome: Outcome
    seeds_to_decide: int | None
    looks: tuple[SeedLook, ...] = ()
    look: int = 1


class Identified(Record):
    """Test examples (tokens, for text) for which fewer seeds give the root's answer than another: Hooker et al. 2019, arXiv:1911.05248.

    Attributes:
        seeds: Students that were asked.
        rows: Examples asked.
        identified: How many.
        known: How many of them the root answers rightly.
        shared: How many of them the first arm has, too.
    """

    arm: Arm
    seeds: int
    rows: int
    identified: int
    known: int
    shared: int


class Proof(Record):
    """A whole proof.

    Attributes:
        metric: `bits_per_byte` (less is better) or `accuracy`.
        test_examples: Held-out rows that each score is taken over: examples, or tokens for text.
        root: The root teacher's score on the test split.
        baseline: That of the majority class, or of unigram frequencies.
        contrasts: The first is the one that the verdict is about; the others hold the first arm against each other one.
        verdict: One sentence; while seeds are missing, how many.
        notes: Arms left out, and how far to trust the result.
        identified: By arm, the first one first; empty while it runs, and where less than three seeds were asked for.
    """

    run: str
    ladder: str
    metric: str
    delta: float
    confidence: float
    accounting: Accounting
    seeds: int
    pilot: bool
    test_examples: int
    root: float | None
    baseline: float | None = None
    arms: tuple[ArmResult, ...]
    contrasts: tuple[Contrast, ...]
    verdict: str
    notes: tuple[str, ...] = ()
    currency: str = "USD"
    identified: tuple[Identified, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether every arm has all its seeds."""
        return bool(self.arms) and all(len(arm.replicates) == self.seeds for arm in self.arms)


def read_proof(record: RunRecord) -> Proof | None:
    """The proof of a run, as far as it got; None where it was none, or nothing of it is finished."""
    path = Path(record.folder) / PROOF
    try:
        return Proof.model_validate_json(path.read_text(encoding="utf-8")) if record.proof and path.is_file() else None
    except ValidationError:
        return None  # of another version
