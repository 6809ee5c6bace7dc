"""Record of remarks and counts from reading and preparing data."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record
from tasks.records.format import percent

COUNTS = "counts.json"  # beside `corpus.json`; it says how the corpus was made, and is no part of its content


class DataCounts(Record):
    """What was left out of a corpus or is remarkable in it.

    Attributes:
        dropped: `text`, `image` or `label` -> rows left out because they have none.
        conflicting: Documents whose content bears another label elsewhere.
        shared: `test in train` -> documents of a given test split that stand in the training split too, and so on; kept in both.
        notes: Remarks as the log showed them.
        labelled: Training examples of a classifier that have a label; None for language models.
        unlabelled: Those that have none.
    """

    dropped: dict[str, int] = Field(default={})
    conflicting: int = 0
    shared: dict[str, int] = Field(default={})
    notes: tuple[str, ...] = ()
    labelled: int | None = None
    unlabelled: int | None = None

    @property
    def labels_in_words(self) -> str | None:
        """A sentence on examples without label; None where all have one."""
        if not self.unlabelled:
            return None
        labelled = self.labelled or 0
        rows = self.unlabelled + labelled
        return (
            f"Of {rows:,} training examples {labelled:,} have a label; the other {self.unlabelled:,} ({percent(self.unlabelled / rows)}) "
            "serve the models that have a teacher, whose answers are their only target there."
        )
