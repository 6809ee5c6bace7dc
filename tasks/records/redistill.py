"""Records of re-distillations: each decision about a drop, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.records.base import Record
from tasks.records.run import Moment

Outcome = Literal["not done", "put off", "running", "interrupted", "failed", "refused", "waiting", "promoted"]
OPEN: tuple[Outcome, ...] = ("put off", "running", "interrupted")  # the same cause goes on from there
BEGUN: tuple[Outcome, ...] = ("running", "interrupted", "failed", "refused", "waiting", "promoted")  # a run was started


class TransferCounts(Record):
    """Rows of windows, and what became of them.

    Attributes:
        files: Window files.
        rows: Rows read.
        repeated: Rows whose content an other one has.
        unusable: Rows without content, of another form, or with a label that the champion does not know.
        transfer: Different contents that train.
        labelled: Those of them with a label.
        held_out: Different contents that judge.
        held_out_labelled: Those of them with a label.
        weight: Times that a row is read in an epoch.
    """

    files: int
    rows: int
    repeated: int
    unusable: int
    transfer: int
    labelled: int
    held_out: int
    held_out_labelled: int
    weight: float = 1.0


class Redistillation(Record):
    """A decision about one drop: `redistill/<name>/<number>.json`.

    Attributes:
        name: Of the registered model: the ladder's.
        cause: Id of the drop; there is one run for each.
        outcome: `put off` is tried again with the next window of the same drop; `waiting`: for a person, who promotes.
        reason: Why so, in a sentence.
        diagnosis: Of the monitor, or of a person.
        why: What the monitor, or a person, said.
        by: Who asked: `monitor`, or a person.
        champion: The version that dropped, `name/version`.
        windows: Files that were used.
        counts: Rows of them; None: they were not read.
        transfer: File of the rows that train.
        held_out: File of the rows that judge.
        judged_by: Whose labels the held-out rows have: `labels`, `teacher`, or `texts` of language models.
        kept: Models that stay as they are.
        overrides: Settings of the run, over those of the ladder's file.
        source: The ladder's name or path.
        run: Name of the run.
        asked: Examples that teachers answered for its students and that went to disk; None: they answered live.
        copied: Answers that were in the cache of earlier data.
        challenger: The version that it made.
        judgement: Sentence of the comparison.
        attempts: How often the run was begun or continued.
    """

    name: str
    number: int
    cause: str
    time: Moment
    updated: Moment
    outcome: Outcome
    reason: str
    diagnosis: str
    why: str = ""
    by: str = "monitor"
    champion: str | None = None
    windows: tuple[str, ...] = ()
    counts: TransferCounts | None = None
    transfer: str | None = None
    held_out: str | None = None
    judged_by: str | None = None
    kept: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    source: str | None = None
    run: str | None = None
    asked: int | None = None
    copied: int = 0
    challenger: str | None = None
    judgement: str | None = None
    attempts: int = 0
    window_run_id: str | None = None  # of MLflow, of the window that triggered
    more: dict[str, str] = Field(default={})

    @property
    def words(self) -> str:
        """One line: `not done: redistill.policy is off`."""
        return f"{self.outcome}: {self.reason}"
